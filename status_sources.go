package mtlsauth

import (
	"cmp"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

// statusSource reports on a source that is read every interval, 0 if that is not known.
func statusSource(name string, success time.Time, interval time.Duration, failure string, now time.Time) status.Source {
	s := status.Source{Name: name, Error: failure}
	if !success.IsZero() {
		s.LastSuccess = success.UTC()
	}
	s.Judge(interval, now)
	return s
}

// sources reports on everything that the realm reads again and again.
func (realm *Realm) sources(now time.Time) []status.Source {
	list := realm.clientSources(now)
	for _, pool := range realm.trustPools {
		list = append(list, statusSource(pool.Word(), pool.LastSuccess(), pool.Interval(), pool.Failure(), now))
	}
	if r := realm.revocation; r != nil && r.crls != nil {
		for _, state := range r.crls.States() {
			s := statusSource("crl:"+state.Location, state.Loaded, state.Refresh, errorText(state.Failure), now)
			if !state.NextUpdate.IsZero() {
				s.NextUpdate = state.NextUpdate.UTC()
			}
			list = append(list, s)
		}
	}
	if r := realm.revocation; r != nil && r.deny != nil {
		list = append(list, statusSource(sourceDeny, r.deny.LastSuccess(), source.LookInterval, errorText(r.deny.Failure()), now))
	}
	if i := realm.issuer; i != nil {
		if interval := i.keys.Interval(); interval > 0 {
			list = append(list, statusSource(sourceSigningKeys, i.keys.LastRead(), interval, errorText(i.keys.Failure()), now))
		}
		list = append(list, statusSource(sourceRevokedTokens, i.revokedTokens.LastRead(), revokedPoll, "", now))
	}
	return list
}

// clientSources reports on the sources of clients, and on the files and JWKS that clients
// name.
func (realm *Realm) clientSources(now time.Time) []status.Source {
	sizes := make(map[string]directory.SourceSize)
	for _, size := range realm.directory.Sizes() {
		sizes[directory.SourceLabel(size.Source)] = size
	}
	list := []status.Source{}
	for _, state := range realm.directory.States(maxSourceSeries) {
		s := statusSource(state.Source, state.Success, state.Refresh, state.Failure, now)
		if state.Copy != "" {
			s.Copy = state.Copy
			if !state.CopyTime.IsZero() {
				s.CopyTime = state.CopyTime.UTC()
			}
		}
		if size, known := sizes[state.Source]; known {
			s.Clients, s.Refused = size.Clients, size.Refused
		}
		list = append(list, s)
	}
	return list
}

// trustedIssuerSources reports on the keys of other servers, which belong to no realm.
func (a *App) trustedIssuerSources(now time.Time) []status.Source {
	var list []status.Source
	for id, keys := range a.declared.allTrustedKeys() {
		list = append(list, statusSource("jwks:"+id.issuer, keys.LastSuccess(), keys.Interval(), errorText(keys.Failure()), now))
	}
	slices.SortFunc(list, func(a, b status.Source) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.LastSuccess.Compare(b.LastSuccess))
	})
	return list
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
