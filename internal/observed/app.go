package observed

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/internal/traffic"
	"github.com/caddymtls/caddy-mtls-auth/internal/version"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// trafficPoll is how often the counters are read, and clients that are gone are looked for
// among those that have been seen.
const trafficPoll = 5 * time.Second

// App has the parts of a configuration that can be observed.
type App struct {
	Now    func() time.Time
	Realms map[string]func() *Realm
	// Refusals returns those that are remembered, by the name of the realm, "" for directives
	// without one.
	Refusals func() map[string]*refusals.Memory
	// TrustedKeys are the keys of other servers, which belong to no realm.
	TrustedKeys []TrustedKeys
	// Counts returns what the counters of each realm say.
	Counts func() map[string]traffic.Counts
	// InForce reports whether the configuration is in force. One that is not does not know
	// which clients are gone.
	InForce func() bool
}

// TrustedKeys are the keys of another server.
type TrustedKeys struct {
	Issuer string
	*tokens.TrustedKeys
}

// Names returns the names of the realms.
func (a *App) Names() []string { return slices.Sorted(maps.Keys(a.Realms)) }

// Status reports on the realms.
func (a *App) Status(q status.Query) status.Report {
	a.observeTraffic()
	report := status.Report{At: a.Now().UTC(), Version: version.Plugin(), Realms: []status.Realm{}}
	for _, name := range a.Names() {
		if q.Realm != "" && q.Realm != name {
			continue
		}
		realm := a.Realms[name]().Status(q, report.At)
		if report.Since.IsZero() || realm.Since.Before(report.Since) {
			report.Since = realm.Since
		}
		report.Realms = append(report.Realms, realm)
	}
	if q.Realm == "" {
		report.Sources = a.Sources(report.At)
		if memory := a.Refusals()[""]; memory != nil {
			report.Refusals = memory.List(refusals.Query{Limit: maxStatusRefusals})
		}
	}
	return report
}

// Sources reports on the sources that belong to no realm.
func (a *App) Sources(now time.Time) []status.Source {
	var list []status.Source
	for _, keys := range a.TrustedKeys {
		list = append(list, sourceStatus("jwks:"+keys.Issuer, keys.LastSuccess(), keys.Interval(), errorText(keys.Failure()), now))
	}
	slices.SortFunc(list, func(a, b status.Source) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.LastSuccess.Compare(b.LastSuccess))
	})
	return list
}

// ListRefusals returns the refusals of a realm, or of all for "", that a query selects, the
// newest first.
func (a *App) ListRefusals(realm string, q refusals.Query) []refusals.Record {
	list := []refusals.Record{}
	for name, memory := range a.Refusals() {
		if realm == "" || realm == name {
			list = append(list, memory.List(q)...)
		}
	}
	slices.SortStableFunc(list, func(x, y refusals.Record) int { return y.At.Compare(x.At) })
	if q.Limit > 0 && len(list) > q.Limit {
		list = list[:q.Limit]
	}
	return list
}

// Refusal returns the refusal with this error id, if it is remembered.
func (a *App) Refusal(errorID string) (refusals.Record, bool) {
	for _, memory := range a.Refusals() {
		if record, found := memory.Find(errorID); found {
			return record, true
		}
	}
	return refusals.Record{}, false
}

// Watch keeps what the status says about the past up to date, until ctx is done.
func (a *App) Watch(ctx context.Context) {
	source.Poll(ctx, trafficPoll, func(context.Context) error {
		a.observeTraffic()
		return nil
	}, nil)
}

// observing is held from when the counters are read until that is noted. What somebody
// else, such as the configuration before, has read earlier is not noted after it: a counter
// that is smaller than before looks as if it had begun anew.
var observing sync.Mutex

// observeTraffic notes what the counters say now, and forgets clients that are gone.
func (a *App) observeTraffic() {
	a.noteTraffic()
	for _, realm := range a.Realms {
		if realm := realm(); a.InForce() {
			realm.Sightings.Prune(realm.Registry)
		}
	}
}

func (a *App) noteTraffic() {
	observing.Lock()
	defer observing.Unlock()
	now, counts := a.Now(), a.Counts()
	for name, realm := range a.Realms {
		realm().Traffic.Observe(now, counts[name])
	}
}
