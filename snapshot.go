package mtlsauth

import (
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// maxWarnedClients is how many clients a warning names.
const maxWarnedClients = 20

// components are what a realm decides by. Each can change while the realm is in
// use.
type components struct {
	registry *clients.Registry
	trust    *trustpool.Trust // the zero Trust without a trust pool
	shadow   *trustpool.Trust // nil without a shadow trust pool
}

// snapshot is everything that a realm decides by at one moment. It is immutable:
// when a component changes, a new snapshot replaces it, and decides the next request
// on every connection. One with other clients shares the caches of the one before, so
// that it costs next to nothing.
type snapshot struct {
	*authn.Authenticator
	components
	// issuer is nil if none is configured
	issuer *tokens.Issuer
}

// change replaces components of the current snapshot. Before there is one, it does
// nothing; see [Realm.provision].
func (realm *Realm) change(update func(*components)) {
	realm.changing.Lock()
	defer realm.changing.Unlock()
	before := realm.current.Load()
	if before == nil {
		return
	}
	next := before.components
	update(&next)
	if next.trust != before.trust {
		realm.warnAboutCAs(next)
	}
	realm.use(next)
}

// use makes a snapshot of components the current one.
func (realm *Realm) use(c components) {
	s, before := &snapshot{components: c}, realm.current.Load()
	if before != nil && before.trust == c.trust && before.shadow == c.shadow {
		s.Authenticator = before.WithRegistry(c.registry)
	} else {
		s.Authenticator = realm.newAuthenticator(c)
	}
	switch {
	case realm.issuer == nil:
	case before != nil && before.registry == c.registry:
		s.issuer = before.issuer
	default:
		s.issuer = realm.issuer.server.WithClients(issuerClients{c.registry, realm.app})
	}
	if realm.shadow != nil {
		realm.shadow.Use(c.shadow.Pool)
	}
	realm.current.Store(s)
}

// newAuthenticator returns an authenticator that remembers nothing.
func (realm *Realm) newAuthenticator(c components) *authn.Authenticator {
	config := authn.Config{
		Registry: c.registry, Trust: c.trust.Pool, Shadow: realm.shadow, Sightings: realm.memory.sightings, Forwards: &realm.forwards,
		StrongKeys: realm.Issuer.isFAPI2(), Now: realm.app.Now,
	}
	if c.shadow != nil {
		config.ShadowTrust = c.shadow.Pool
	}
	if realm.revocation != nil {
		config.Revocation = realm.revocation.checker
	}
	return authn.New(config)
}

// warnAboutCAs logs which clients have names that any of several CAs can issue.
func (realm *Realm) warnAboutCAs(c components) {
	loose := c.registry.LooseClients()
	if len(c.trust.Certificates) < 2 || loose == 0 {
		return
	}
	var named []string
	for client := range c.registry.All() {
		if client.HasPKI() && len(client.IssuedBy) == 0 {
			named = append(named, client.ID)
		}
		if len(named) == min(loose, maxWarnedClients) {
			break
		}
	}
	realm.logger.Warn("trust pool has several CAs that can each issue the clients' names; add issued_by",
		zap.Int("cas", len(c.trust.Certificates)), zap.Int("clients", loose), zap.Strings("client_ids", named))
}
