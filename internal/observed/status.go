package observed

import (
	"cmp"
	"encoding/hex"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

const (
	// maxStatusRefusals is how many refusals of a realm a report has, and
	// maxStatusStrangers how many strangers, unless the query says otherwise.
	maxStatusRefusals  = 20
	maxStatusStrangers = 50
	// maxStatusExpiring is how many certificates that expire a report has, and
	// maxStatusFailing how many that fail under the shadow trust pool.
	maxStatusExpiring = 200
	maxStatusFailing  = 200
)

// Status reports on the realm. What it costs does not depend on how many clients there are.
func (r *Realm) Status(q status.Query, now time.Time) status.Realm {
	report := status.Realm{
		Name: r.Name, Since: r.Since, Sources: r.Sources(now),
		Traffic:  r.Traffic.Traffic(),
		Refusals: orEmpty(r.Refusals.List(refusals.Query{Limit: cmp.Or(q.Most, maxStatusRefusals)})),
	}
	report.Clients.Total, report.Clients.NotNoted = r.Registry.Len(), r.Sightings.Unnoted()
	report.Clients.Seen = min(r.Sightings.Len(), report.Clients.Total) // those that are gone may not have been forgotten yet
	report.Expiring, report.MoreExpiring = r.Expiring(now, now.Add(status.ExpiringWithin), maxStatusExpiring)
	report.Clients.List, report.Clients.Next = q.List(r.Registry.From(q.After), r.Sightings)
	report.Strangers, report.MoreStrangers = r.Strangers(cmp.Or(q.Most, maxStatusStrangers))
	if r.Shadow != nil {
		report.Shadow = r.shadowStatus(now)
	}
	if r.Issuer != nil {
		report.Issuer = r.Issuer.status()
	}
	return report
}

// shadowStatus reports on the shadow trust pool.
func (r *Realm) shadowStatus(now time.Time) *status.Shadow {
	failures, more := r.Shadow.Failures(r.Registry, now, maxStatusFailing)
	report := &status.Shadow{Failing: []status.ShadowFailure{}, More: more}
	for _, f := range failures {
		failing := status.ShadowFailure{
			ClientID: f.ClientID, Subject: f.Subject, Thumbprint: hex.EncodeToString(f.Thumbprint[:]), NotAfter: f.NotAfter.UTC(), Why: f.Why,
		}
		if last, seen := r.Sightings.Of(f.ClientID); seen && last.Thumbprint != f.Thumbprint {
			failing.Another = last.At
		}
		report.Failing = append(report.Failing, failing)
	}
	return report
}

func (i *Issuer) status() *status.Issuer {
	report := &status.Issuer{URL: i.URL, Keys: []status.Key{}, NextRotation: i.Keys.NextRotation(), RevokedTokens: i.RevokedTokens.Count()}
	for _, info := range i.Keys.Infos() {
		report.Keys = append(report.Keys, status.Key{
			ID: info.ID, Algorithm: string(info.Algorithm), State: info.State,
			Created: info.Created, From: info.SignsFrom, Until: info.Leaves,
		})
	}
	return report
}

// orEmpty returns a list that is not null in JSON.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
