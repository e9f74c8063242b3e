package mtlsauth

import (
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
)

// Observed returns the parts of the app that the people who run it may see.
func (a *App) Observed() *observed.App {
	parts := &observed.App{
		Now: a.Now, Realms: make(map[string]func() *observed.Realm, len(a.Realms)),
		Refusals: a.memories.refusals, Counts: metrics.Traffic, InForce: func() bool { return a.watching.Load() && !a.stopped.Load() },
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
		parts.Issuer = &observed.Issuer{URL: i.url, Keys: i.keys, RevokedTokens: i.revokedTokens, RevokedPoll: revokedPoll}
	}
	return parts
}
