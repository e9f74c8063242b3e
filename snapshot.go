package mtlsauth

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/authserver"
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

// snapshots has the current snapshot of a realm, and makes the next one.
type snapshots struct {
	atomic.Pointer[snapshot]
	// changing is held while the current one is replaced
	changing sync.Mutex
	logger   *zap.Logger
	// config is of all authenticators, without what can change
	config authn.Config
	// issuer is nil if none is configured
	issuer *authserver.Server
}

// change replaces components of the current snapshot. Before there is one, it does
// nothing; see [Realm.provision].
func (s *snapshots) change(update func(*components)) {
	s.changing.Lock()
	defer s.changing.Unlock()
	before := s.Load()
	if before == nil {
		return
	}
	next := before.components
	update(&next)
	if next.trust != before.trust {
		s.warnAboutCAs(next)
	}
	s.use(next)
}

// use makes a snapshot of components the current one.
func (s *snapshots) use(c components) {
	next, before := &snapshot{components: c}, s.Load()
	if before != nil && before.trust == c.trust && before.shadow == c.shadow {
		next.Authenticator = before.WithRegistry(c.registry)
	} else {
		next.Authenticator = s.newAuthenticator(c)
	}
	switch {
	case s.issuer == nil:
	case before != nil && before.registry == c.registry:
		next.issuer = before.issuer
	default:
		next.issuer = s.issuer.WithClients(c.registry)
	}
	if s.config.Shadow != nil {
		s.config.Shadow.Use(c.shadow.Pool)
	}
	s.Store(next)
}

// newAuthenticator returns an authenticator that remembers nothing.
func (s *snapshots) newAuthenticator(c components) *authn.Authenticator {
	config := s.config
	config.Registry, config.Trust = c.registry, c.trust.Pool
	if c.shadow != nil {
		config.ShadowTrust = c.shadow.Pool
	}
	return authn.New(config)
}

// apart returns an authenticator whose decisions at a time leave no trace: nothing is
// remembered, and no client counts as seen.
func (s *snapshots) apart(at time.Time) *authn.Authenticator {
	other := snapshots{config: s.config}
	other.config.Sightings, other.config.Shadow = nil, authn.NewShadow(authn.ShadowConfig{})
	other.config.Now = func() time.Time { return at }
	return other.newAuthenticator(s.Load().components)
}

// warnAboutCAs logs which clients have names that any of several CAs can issue.
func (s *snapshots) warnAboutCAs(c components) {
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
	s.logger.Warn("trust pool has several CAs that can each issue the clients' names; add issued_by",
		zap.Int("cas", len(c.trust.Certificates)), zap.Int("clients", loose), zap.Strings("client_ids", named))
}
