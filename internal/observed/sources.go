package observed

import (
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

// maxSources bounds the certificate files and JWKS of a realm that are reported.
const maxSources = 1000

// sourceStatus reports on a source that is read every interval, 0 if that is not known.
func sourceStatus(name string, success time.Time, interval time.Duration, failure string, now time.Time) status.Source {
	s := status.Source{Name: name, Error: failure}
	if !success.IsZero() {
		s.LastSuccess = success.UTC()
	}
	s.Judge(interval, now)
	return s
}

// Sources reports on everything that the realm reads again and again.
func (r *Realm) Sources(now time.Time) []status.Source {
	list := r.clientSources(now)
	for _, pool := range r.Pools {
		list = append(list, sourceStatus(pool.Word(), pool.LastSuccess(), pool.Interval(), pool.Failure(), now))
	}
	if r.CRLs != nil {
		for _, state := range r.CRLs.States() {
			s := sourceStatus("crl:"+state.Location, state.Loaded, state.Refresh, errorText(state.Failure), now)
			if !state.NextUpdate.IsZero() {
				s.NextUpdate = state.NextUpdate.UTC()
			}
			list = append(list, s)
		}
	}
	if r.Deny != nil {
		list = append(list, sourceStatus(status.SourceDeny, r.Deny.LastSuccess(), source.LookInterval, errorText(r.Deny.Failure()), now))
	}
	if i := r.Issuer; i != nil {
		if interval := i.Keys.Interval(); interval > 0 {
			list = append(list, sourceStatus(status.SourceSigningKeys, i.Keys.LastRead(), interval, errorText(i.Keys.Failure()), now))
		}
		list = append(list, sourceStatus(status.SourceRevokedTokens, i.RevokedTokens.LastRead(), i.RevokedPoll, "", now))
	}
	return list
}

// clientSources reports on the sources of clients, and on the files and JWKS that clients
// name.
func (r *Realm) clientSources(now time.Time) []status.Source {
	sizes := make(map[string]directory.SourceSize)
	for _, size := range r.Directory.Sizes() {
		sizes[directory.SourceLabel(size.Source)] = size
	}
	list := []status.Source{}
	for _, state := range r.Directory.States(maxSources) {
		s := sourceStatus(state.Source, state.Success, state.Refresh, state.Failure, now)
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

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
