package mtlsauth

import (
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/events"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/sightings"
	"github.com/caddymtls/caddy-mtls-auth/internal/traffic"
)

// realmMemory is what a realm remembers for the people who run it. It belongs to the name of
// the realm, so it survives a reload. Nothing is decided by it.
type realmMemory struct {
	// since is when it began
	since     time.Time
	refusals  *refusals.Memory
	sightings *sightings.Table
	traffic   traffic.Hour
	byClient  metrics.ClientRefusals
	expiring  events.ExpiringTold
}

// observe notes what the counters say, nil if there are none yet.
func (m *realmMemory) observe(now time.Time, counts *traffic.Counts) {
	if counts == nil {
		counts = new(traffic.Counts)
	}
	m.traffic.Observe(now, *counts)
}

// Destruct implements [caddy.Destructor].
func (*realmMemory) Destruct() error { return nil }

// realmMemories has the memory of each realm of all loaded configurations by its name.
var realmMemories = caddy.NewUsagePool()

// memoryOf returns the memory of the realm with that name, "" for directives without a realm,
// until Cleanup.
func (a *App) memoryOf(name string) *realmMemory {
	if memory := a.memories[name]; memory != nil {
		return memory
	}
	loaded, _, _ := realmMemories.LoadOrNew(name, func() (caddy.Destructor, error) {
		memory := &realmMemory{since: a.Now().UTC(), refusals: refusals.NewMemory(refusals.Limits{}), sightings: sightings.NewTable()}
		memory.observe(memory.since, metrics.Traffic()[name]) // what has been counted before does not count
		return memory, nil
	})
	if a.memories == nil {
		a.memories = make(map[string]*realmMemory)
	}
	a.memories[name] = loaded.(*realmMemory)
	return a.memories[name]
}

// releaseMemories lets go of what memoryOf has returned, once. Requests that are still
// being answered go on to use it.
func (a *App) releaseMemories() {
	for name := range a.memories {
		_, _ = realmMemories.Delete(name)
	}
}
