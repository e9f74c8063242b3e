package mtlsauth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/authserver"
	"github.com/caddymtls/caddy-mtls-auth/internal/check"
	"github.com/caddymtls/caddy-mtls-auth/internal/events"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

const defaultRealm = "default"

// Realm is one set of clients, the CAs that vouch for them, and the issuer of
// their tokens.
type Realm struct {
	// The CA certificates that the chains of PKI clients must lead to. Only this
	// pool decides who is trusted; the TLS connection policy does not. Files are
	// watched: after a change, the next request on every connection is decided by
	// their new content. A broken file changes nothing.
	TrustPoolRaw json.RawMessage `json:"trust_pool,omitempty" caddy:"namespace=tls.ca_pool.source inline_key=provider"`

	// How often trust pools that are not files are reloaded. Default: `1h`, at
	// least `1m`.
	TrustPoolRefresh caddy.Duration `json:"trust_pool_refresh,omitempty"`

	// The CA certificates that are to become the trust pool. They decide nothing:
	// clients that would be refused under them are logged and counted.
	ShadowTrustPoolRaw json.RawMessage `json:"shadow_trust_pool,omitempty" caddy:"namespace=tls.ca_pool.source inline_key=provider"`

	// Where signing keys, revoked tokens and copies of JWKS from URLs are stored.
	// Default: Caddy's storage.
	StorageRaw json.RawMessage `json:"storage,omitempty" caddy:"namespace=caddy.storage inline_key=module"`

	// The registered clients.
	Clients []clients.Record `json:"clients,omitempty"`

	// More sources of clients, the one with the highest rank first. A record that has the
	// `client_id` or a credential of a client of a higher rank, or of `clients`, is
	// refused alone.
	ClientsFromRaw []json.RawMessage `json:"clients_from,omitempty" caddy:"namespace=mtls.clients inline_key=source"`

	// How the servers of CRLs, OCSP, JWKS and clients are reached. Default: with the CAs of
	// the system.
	Fetch *FetchConfig `json:"fetch,omitempty"`

	// The sources that say whether a certificate has been revoked. Default: none.
	Revocation *Revocation `json:"revocation,omitempty"`

	// The proxies that may terminate TLS in front of Caddy. Default: none.
	ForwardedCertificate *ForwardedCertificate `json:"forwarded_certificate,omitempty"`

	// The realm's token issuer, which the `mtls_issuer` handler serves.
	Issuer *IssuerConfig `json:"issuer,omitempty"`

	// How many refusals are remembered for the admin API and the status page, and how
	// long. Default: 10 000 for a day.
	Refusals *RefusalsConfig `json:"refusals,omitempty"`

	// Who is told that the certificate of a client expires soon. Default: only handlers
	// of the event `mtls_certificate_expiring`.
	CertificateExpiring *CertificateExpiring `json:"certificate_expiring,omitempty"`

	name   string
	app    *App
	logger *zap.Logger // names the realm
	events events.Realm
	// refusals reports refusals
	refusals *reporter.Realm
	metrics  *metrics.Realm
	memory   *realmMemory
	// rules are what is required of each client
	rules clientRules
	// directory keeps the clients up to date
	directory *directory.Directory
	// troubles are what is wrong with documents of clients
	troubles clientTroubles
	storage  certmagic.Storage
	// current is what the realm decides by
	current snapshots
	trust   realmTrust
	// shadow is nil without a shadow trust pool
	shadow *authn.Shadow
	// revocation is nil if none is configured
	revocation *certificateRevocation
	// forwards are the formats in which handlers forward certificates
	forwards authn.Formats
	// proxyCertificates is nil if no proxy may forward certificates
	proxyCertificates *proxyCertificates
	// issuer is nil if none is configured
	issuer *authserver.Server
	expiry expiryNotice
}

// provision prepares the realm to serve requests. Nothing is left for Start,
// because the HTTP app may serve before that.
func (realm *Realm) provision(ctx caddy.Context, app *App, name string) error {
	if err := syntax.CheckRealmName(name); err != nil {
		return err
	}
	realm.name, realm.app, realm.metrics, realm.memory = name, app, metrics.NewRealm(name), app.memories.of(name, app.Now)
	realm.logger, realm.events = app.logger.With(zap.String("realm", name)), app.events.Realm(name)
	realm.refusals = reportedRealm(realm)
	if err := realm.Refusals.check(); err != nil {
		return fmt.Errorf("refusals: %w", err)
	}
	if err := realm.provisionStorage(ctx); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	// sources of clients may be reached as fetch says
	anchors, shadow, err := realm.provisionTrust()
	if err != nil {
		return err
	}
	realm.rules = clientRules{trust: anchors, shadow: shadow, fapi2: realm.Issuer.isFAPI2(), withoutIssuer: app.withoutIssuers}
	var issuer authserver.Settings
	if realm.Issuer != nil {
		if issuer, err = realm.Issuer.settings(app.Now); err != nil {
			return fmt.Errorf("issuer: %w", err)
		}
		realm.rules.issuer = &issuer.Config
	}
	if err := loadClients(ctx, realm); err != nil {
		return err
	}
	if realm.expiry, err = realm.CertificateExpiring.compile(); err != nil {
		return fmt.Errorf("certificate_expiring: %w", err)
	}
	if realm.ForwardedCertificate != nil {
		if realm.proxyCertificates, err = realm.ForwardedCertificate.compile(); err != nil {
			return fmt.Errorf("forwarded_certificate: %w", err)
		}
		for _, name := range realm.proxyCertificates.headerNames() {
			if !slices.Contains(app.proxyHeaders, name) {
				app.proxyHeaders = append(app.proxyHeaders, name)
			}
		}
	}
	if realm.Revocation != nil {
		var trustPool *trustpool.Pool
		if realm.TrustPoolRaw != nil {
			trustPool = realm.trust.pools[0]
		}
		if realm.revocation, err = newCertificateRevocation(realm, trustPool); err != nil {
			return fmt.Errorf("revocation: %w", err)
		}
		if realm.proxyCertificates != nil {
			realm.proxyCertificates.denied = realm.revocation.checker.CheckDenied
		}
	}
	registry := realm.directory.Registry()
	if realm.Issuer != nil {
		if realm.issuer, err = loadIssuer(realm, issuer); err != nil {
			return fmt.Errorf("issuer: %w", err)
		}
	}
	realm.current.logger, realm.current.issuer = realm.logger, realm.issuer
	realm.current.config = authn.Config{
		Shadow: realm.shadow, Sightings: realm.memory.sightings, Forwards: &realm.forwards, StrongKeys: realm.Issuer.isFAPI2(), Now: app.Now,
	}
	if realm.revocation != nil {
		realm.current.config.Revocation = realm.revocation.checker
	}
	first := components{registry: registry, trust: anchors, shadow: shadow}
	realm.current.warnAboutCAs(first)
	realm.current.use(first)
	// clients may have changed meanwhile, by a source or by the admin API
	realm.current.change(func(c *components) { c.registry = realm.directory.Registry() })
	return nil
}

// provisionStorage loads the realm's storage, by default Caddy's.
func (realm *Realm) provisionStorage(ctx caddy.Context) error {
	if realm.app.checking {
		realm.storage = check.EmptyStorage
		return nil
	}
	if realm.StorageRaw == nil {
		realm.storage = ctx.Storage()
		return nil
	}
	module, err := ctx.LoadModule(realm, "StorageRaw")
	if err != nil {
		return err
	}
	converter, ok := module.(caddy.StorageConverter)
	if !ok {
		return fmt.Errorf("module %T is not a storage", module)
	}
	realm.storage, err = converter.CertMagicStorage()
	return err
}

// provisionTrust loads the trust pools. Without trust_pool, no CA is trusted.
func (realm *Realm) provisionTrust() (anchors, shadow *trustpool.Trust, err error) {
	if realm.TrustPoolRefresh != 0 {
		if err := trustpool.CheckRefresh(realm.TrustPoolRefresh); err != nil {
			return nil, nil, err
		}
	}
	realm.trust = newRealmTrust(realm)
	anchors = new(trustpool.Trust)
	if realm.TrustPoolRaw != nil {
		anchors, err = realm.trust.load(observed.TrustPool, realm.TrustPoolRaw, func(t *trustpool.Trust) {
			realm.current.change(func(c *components) { c.trust = t })
		})
		if err != nil {
			return nil, nil, err
		}
	}
	if realm.ShadowTrustPoolRaw != nil {
		if realm.TrustPoolRaw == nil {
			return nil, nil, errors.New("shadow_trust_pool: the realm has no trust_pool to compare it with; add one, or use it as the trust_pool")
		}
		shadow, err = realm.trust.load(observed.ShadowPool, realm.ShadowTrustPoolRaw, func(t *trustpool.Trust) {
			realm.current.change(func(c *components) { c.shadow = t })
		})
		if err != nil {
			return nil, nil, err
		}
		realm.metrics.AddShadow(realm.name)
		realm.shadow = authn.NewShadow(authn.ShadowConfig{
			Logger: realm.logger,
			OK:     realm.metrics.ShadowOK, Fail: realm.metrics.ShadowFail, Dropped: realm.metrics.ShadowDropped,
		})
	}
	if err := realm.trust.loadFetch(realm.Fetch); err != nil {
		return nil, nil, err
	}
	if realm.TrustPoolRefresh != 0 && !slices.ContainsFunc(realm.trust.pools, (*trustpool.Pool).Refreshes) {
		return nil, nil, errors.New("trust_pool_refresh has no effect, because files are watched and inline certificates do not change; remove it")
	}
	return anchors, shadow, nil
}

// startBackground starts the background work of a realm. Each kind of work has a
// goroutine of its own, so that a slow one does not hold up the others. After
// leaveStorage, it changes nothing in storage.
func (realm *Realm) startBackground(ctx context.Context) {
	if realm.issuer != nil {
		realm.issuer.Watch(ctx)
	}
	if r := realm.revocation; r != nil && r.deny != nil {
		go look(ctx, r.pollDenyFile)
	}
	if r := realm.revocation; r != nil && r.crls != nil {
		r.crls.Begin(revocation.DefaultOCSPTimeout)
		go look(ctx, r.pollCRLs)
	}
	go look(ctx, realm.directory.Poll)
	go look(ctx, func(context.Context) {
		realm.memory.expiring.Tell(realm.events, realm.expiry.within, realm.app.Now(), realm.observed().Expiring)
	})
	realm.directory.Watch(ctx)
	go keepCopies(ctx, realm)
	for _, pool := range realm.trust.pools {
		pool.Watch(ctx)
	}
	if realm.shadow != nil {
		go realm.shadow.Run(ctx)
	}
}

// authenticate finds the client of the certificates, leaf first, and counts the
// outcome. clientID is the client that the request names, or "".
func (realm *Realm) authenticate(ctx context.Context, presented []*x509.Certificate, clientID string) (identity, *validators.Refusal) {
	if refusal := realm.app.refuseEnded(); refusal != nil {
		return identity{decidedBy: realm.current.Load()}, refusal
	}
	start := metrics.Now()
	current := realm.current.Load()
	found, refusal, remembered := current.Decide(ctx, presented, clientID)
	id := identity{Identity: found, decidedBy: current}
	realm.metrics.Duration.Observe(start.Elapsed().Seconds())
	switch {
	case remembered:
		realm.metrics.CacheHit.Inc()
	case id.Leaf != nil:
		realm.metrics.CacheMiss.Inc()
		id.Present()
	case refusal.Reason != validators.CertificateMissing:
		realm.metrics.CacheMiss.Inc()
	}
	return id, refusal
}

// noteAdmitted notes that a client has been admitted.
func (realm *Realm) noteAdmitted(id *authn.Identity) {
	if id.See() {
		sum := sha256.Sum256(id.Leaf.Raw)
		realm.memory.refusals.Forget(hex.EncodeToString(sum[:])) // it is not a stranger's any more
	}
}

// authenticator returns what the realm decides by now. It is nil for mtls_bearer
// without a realm, which takes only tokens of other servers, which have the clients.
func (realm *Realm) authenticator() *authn.Authenticator {
	if current := realm.current.Load(); current != nil {
		return current.Authenticator
	}
	return nil
}

// running returns the realm of this name in the running configuration, which is
// about to be replaced, or an empty realm.
func (realm *Realm) running() *Realm {
	if running := runningApp().Realms[realm.name]; running != nil {
		return running
	}
	return new(Realm)
}
