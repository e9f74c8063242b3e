package mtlsauth

import (
	"cmp"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/internal/version"
)

const (
	// maxStatusRefusals is how many refusals of a realm a report has, and
	// maxStatusStrangers how many strangers, unless the query says otherwise.
	maxStatusRefusals  = 20
	maxStatusStrangers = 50
	// maxStatusFailing is how many certificates that fail under the shadow trust pool
	// there are.
	maxStatusFailing = 200
)

// status reports on the realms of the app. What it costs does not depend on how many
// clients there are.
func (a *App) status(q status.Query) status.Report {
	a.observeTraffic()
	report := status.Report{At: a.Now().UTC(), Version: version.Plugin(), Realms: []status.Realm{}}
	for _, name := range slices.Sorted(maps.Keys(a.Realms)) {
		if q.Realm != "" && q.Realm != name {
			continue
		}
		realm := a.Realms[name].status(q, report.At)
		if report.Since.IsZero() || realm.Since.Before(report.Since) {
			report.Since = realm.Since
		}
		report.Realms = append(report.Realms, realm)
	}
	if q.Realm == "" {
		report.Sources = a.trustedIssuerSources(report.At)
		if memory := a.memories[""]; memory != nil {
			report.Refusals = memory.refusals.List(refusals.Query{Limit: maxStatusRefusals})
		}
	}
	return report
}

// status reports on a realm.
func (realm *Realm) status(q status.Query, now time.Time) status.Realm {
	registry, memory := realm.current.Load().registry, realm.memory
	report := status.Realm{
		Name: realm.name, Since: memory.since, Sources: realm.sources(now),
		Traffic:  memory.traffic.Traffic(),
		Refusals: orEmpty(memory.refusals.List(refusals.Query{Limit: cmp.Or(q.Most, maxStatusRefusals)})),
	}
	report.Clients.Total, report.Clients.NotNoted = registry.Len(), memory.sightings.Unnoted()
	report.Clients.Seen = min(memory.sightings.Len(), report.Clients.Total) // those that are gone may not have been forgotten yet
	report.Expiring, report.MoreExpiring = realm.expiring(now, now.Add(status.ExpiringWithin), maxStatusExpiring)
	report.Clients.List, report.Clients.Next = q.List(registry.From(q.After), memory.sightings)
	report.Strangers, report.MoreStrangers = realm.strangers(cmp.Or(q.Most, maxStatusStrangers))
	if realm.shadow != nil {
		report.Shadow = realm.shadowStatus(registry, now)
	}
	if realm.issuer != nil {
		report.Issuer = realm.issuer.status()
	}
	return report
}

// shadowStatus reports on the shadow trust pool.
func (realm *Realm) shadowStatus(registry *clients.Registry, now time.Time) *status.Shadow {
	failures, more := realm.shadow.Failures(registry, now, maxStatusFailing)
	report := &status.Shadow{Failing: []status.ShadowFailure{}, More: more}
	for _, f := range failures {
		report.Failing = append(report.Failing, status.ShadowFailure{
			ClientID: f.ClientID, Subject: f.Subject, Thumbprint: hex.EncodeToString(f.Thumbprint[:]), NotAfter: f.NotAfter.UTC(), Why: f.Why,
		})
	}
	return report
}

// status reports on an issuer.
func (i *realmIssuer) status() *status.Issuer {
	report := &status.Issuer{URL: i.url, Keys: []status.Key{}, NextRotation: i.keys.NextRotation(), RevokedTokens: i.revokedTokens.Count()}
	for _, info := range i.keys.Infos() {
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
