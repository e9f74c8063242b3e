package mtlsauth

import (
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/authserver"
	"github.com/caddymtls/caddy-mtls-auth/internal/events"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/sightings"
	"github.com/caddymtls/caddy-mtls-auth/internal/traffic"
)

// Observed returns the parts of the app that the people who run it may see.
func (a *App) Observed() *observed.App {
	parts := &observed.App{
		Now: a.Now, Realms: make(map[string]func() *observed.Realm, len(a.Realms)),
		Refusals: a.memories.refusals, Counts: metrics.Traffic, InForce: func() bool { return runningApp() == a && !a.stopped.Load() },
	}
	for name, realm := range a.Realms {
		parts.Realms[name] = realm.observed
	}
	for id, keys := range a.declared.allTrustedKeys() {
		parts.TrustedKeys = append(parts.TrustedKeys, observed.TrustedKeys{Issuer: id.issuer, TrustedKeys: keys})
	}
	return parts
}

// observed returns the parts of the realm that the people who run it may see.
func (realm *Realm) observed() *observed.Realm {
	memory := realm.memory
	parts := &observed.Realm{
		Name: realm.name, Since: memory.since, Refusals: memory.refusals, Sightings: memory.sightings, Traffic: &memory.traffic,
		Registry: realm.current.Load().registry, Directory: realm.directory, Pools: realm.trust.pools, Shadow: realm.shadow,
	}
	if r := realm.revocation; r != nil {
		parts.CRLs, parts.Deny = r.crls, r.deny
	}
	if i := realm.issuer; i != nil {
		parts.Issuer = &observed.Issuer{URL: i.Config.URL, Keys: i.Keys, RevokedTokens: i.RevokedTokens, RevokedPoll: authserver.RevokedPoll}
	}
	return parts
}

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

// Destruct implements [caddy.Destructor].
func (*realmMemory) Destruct() error { return nil }

// realmMemories has the memory of each realm of all loaded configurations by its name.
var realmMemories = caddy.NewUsagePool()

// memories are those that an app uses, by the name of the realm, "" for directives without
// one.
type memories map[string]*realmMemory

// of returns the memory of the realm with that name, until release.
func (m memories) of(name string, now func() time.Time) *realmMemory {
	if memory := m[name]; memory != nil {
		return memory
	}
	loaded, _, _ := realmMemories.LoadOrNew(name, func() (caddy.Destructor, error) {
		memory := &realmMemory{since: now().UTC(), refusals: refusals.NewMemory(refusals.Limits{}), sightings: sightings.NewTable()}
		memory.traffic.Observe(memory.since, metrics.Traffic()[name]) // what has been counted before does not count
		return memory, nil
	})
	m[name] = loaded.(*realmMemory)
	return m[name]
}

// refusals returns what is remembered about refusals.
func (m memories) refusals() map[string]*refusals.Memory {
	all := make(map[string]*refusals.Memory, len(m))
	for name, memory := range m {
		all[name] = memory.refusals
	}
	return all
}

// release lets go of all, once. Requests that are still being answered go on to use them.
func (m memories) release() {
	for name := range m {
		_, _ = realmMemories.Delete(name)
	}
}
