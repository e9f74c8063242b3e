package observed

import (
	"cmp"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/sightings"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// Expiring returns the certificates that expire within a time: those of clients that have
// been admitted, those in the files of clients, and the CAs of the trust pools. There are
// at most most, the soonest first.
func (r *Realm) Expiring(now, until time.Time, most int) (list []status.Expiring, more int) {
	seen, more := r.Sightings.Expiring(now, until, most)
	known := make(map[string]bool, len(seen)) // by client and certificate
	for _, s := range seen {
		known[s.ClientID+" "+s.ThumbprintText()] = true
		list = append(list, expiringClient(s))
	}
	files, moreFiles := r.Directory.CertificateFiles(now, until, most)
	more += moreFiles
	for _, file := range files {
		thumbprint := validators.ThumbprintOf(file.Certificate.Raw).String()
		if known[file.ClientID+" "+thumbprint] {
			continue
		}
		list = append(list, status.Expiring{
			Kind: status.ExpiringClient, ClientID: file.ClientID, Subject: dn.Format(file.Certificate.RawSubject),
			Thumbprint: thumbprint, NotAfter: file.Certificate.NotAfter.UTC(),
		})
	}
	for _, pool := range r.Pools {
		list = append(list, expiringCAs(pool, now, until)...)
	}
	slices.SortStableFunc(list, func(a, b status.Expiring) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.ClientID, b.ClientID))
	})
	if len(list) > most {
		more += len(list) - most
		list = list[:most]
	}
	return orEmpty(list), more
}

func expiringClient(s sightings.Presented) status.Expiring {
	e := status.Expiring{Kind: status.ExpiringClient, ClientID: s.ClientID, Thumbprint: s.ThumbprintText(), NotAfter: s.NotAfter}
	if s.Kind == string(clients.KindSubject) {
		e.Subject = s.Matched
	}
	return e
}

// expiringCAs returns the CAs of a pool that expire within a time.
func expiringCAs(pool *trustpool.Pool, now, until time.Time) (list []status.Expiring) {
	kind := map[string]string{TrustPool: status.ExpiringCA, ShadowPool: status.ExpiringShadow, FetchPool: status.ExpiringFetch}[pool.Word()]
	for _, ca := range pool.Trust().ExpiringFirst() {
		if ca.NotAfter.Before(now) || ca.NotAfter.After(until) {
			continue
		}
		list = append(list, status.Expiring{
			Kind: kind, Subject: dn.Format(ca.RawSubject), Thumbprint: validators.ThumbprintOf(ca.Raw).String(), NotAfter: ca.NotAfter.UTC(),
		})
	}
	return list
}
