package clients

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"time"
)

// listing is a certificate that the JWKS of a client lists.
type listing struct {
	// certificate is nil while the client's JWKS is not known: then the
	// certificate does not count, but is nobody else's either
	certificate *x509.Certificate
	sum         [sha256.Size]byte
	// since is when it was first seen there, zero where that is not known
	since time.Time
}

func listings(certificates []*x509.Certificate) []listing {
	list := make([]listing, len(certificates))
	for i, certificate := range certificates {
		list[i] = listing{certificate: certificate, sum: sha256.Sum256(certificate.Raw)}
	}
	return list
}

// dated tells since when certificates are listed, by what was known before.
// Without a JWKS, those of before stay, and do not count.
func dated(list, before []listing, now time.Time) []listing {
	if list == nil {
		list = slices.Clone(before)
		for i := range list {
			list[i].certificate = nil
		}
		return list
	}
	since := make(map[[sha256.Size]byte]time.Time, len(before))
	for _, l := range before {
		since[l.sum] = l.since
	}
	for i := range list {
		var known bool
		if list[i].since, known = since[list[i].sum]; !known {
			list[i].since = now
		}
	}
	return list
}

// sameListings reports whether two lists have the same certificates since the
// same time.
func sameListings(a, b []listing) bool {
	if len(a) != len(b) {
		return false
	}
	since := make(map[[sha256.Size]byte]time.Time, len(b))
	for _, l := range b {
		since[l.sum] = l.since
	}
	return !slices.ContainsFunc(a, func(l listing) bool {
		before, known := since[l.sum]
		return !known || !before.Equal(l.since)
	})
}

// corrected returns a client's listings with what a copy of its JWKS knows
// better: that a certificate was listed earlier, and, while the JWKS is not
// known, what it lists. It returns nil if that is nothing.
func corrected(client *Client, copied map[[sha256.Size]byte]time.Time) []listing {
	if !client.hasJWKS() {
		return nil
	}
	list, better := slices.Clone(client.listed), false
	known := make(map[[sha256.Size]byte]struct{}, len(list))
	for i := range list {
		l := &list[i]
		known[l.sum] = struct{}{}
		if since, ok := copied[l.sum]; ok && since.Before(l.since) {
			l.since, better = since, true
		}
	}
	if len(list) == 0 || list[0].certificate == nil {
		for sum, since := range copied {
			if _, ok := known[sum]; !ok {
				list, better = append(list, listing{sum: sum, since: since}), true
			}
		}
	}
	if !better {
		return nil
	}
	return list
}

func (c *Client) hasJWKS() bool {
	return slices.ContainsFunc(c.Credentials, func(cred *Credential) bool { return cred.Kind == KindJWKS })
}

// relisted returns the client with other listings.
func (c *Client) relisted(list []listing) *Client {
	changed := *c
	changed.listed, changed.Credentials = list, nil
	for _, cred := range c.Credentials {
		own := *cred
		changed.add(&own)
	}
	return &changed
}
