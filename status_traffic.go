package mtlsauth

import (
	"context"
	"time"
	"weak"

	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// trafficPoll is how often the counters are read, and clients that are gone are
	// looked for among those that have been seen.
	trafficPoll = 5 * time.Second
	// pruneStep is how many of those are looked at each time.
	pruneStep = 10_000
)

// watchTraffic keeps what the status says about the past up to date, until ctx is done.
func (a *App) watchTraffic(ctx context.Context) {
	a.watching.Store(true)
	source.Poll(ctx, trafficPoll, func(context.Context) error {
		a.observeTraffic()
		return nil
	}, nil)
}

// observeTraffic notes what the counters say now, and forgets clients that are gone. An app
// that is not in force yet, or any more, does not know which are.
func (a *App) observeTraffic() {
	now, counts := a.Now(), metrics.Traffic()
	for name, realm := range a.Realms {
		realm.memory.observe(now, counts[name])
		if a.watching.Load() && !a.stopped.Load() {
			realm.pruneSightings()
		}
	}
}

// pruneSightings forgets some of the clients that have been seen and are not registered any
// more. It looks at all, step by step, after each change of the clients.
func (realm *Realm) pruneSightings() {
	if !realm.pruning.TryLock() {
		return
	}
	defer realm.pruning.Unlock()
	registry := realm.current.Load().registry
	if realm.prunedWith == weak.Make(registry) {
		return
	}
	if realm.memory.sightings.Prune(func(id string) bool { return registry.Client(id) != nil }, pruneStep) {
		realm.prunedWith = weak.Make(registry)
	}
}
