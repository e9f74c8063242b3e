package mtlsauth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/problem"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// retryAfter is the Retry-After, in seconds, of a request that nothing can decide
// about at the moment.
const retryAfter = "5"

// BearerHandler admits requests that carry an access token together with the
// certificate it is bound to (RFC 6750, RFC 8705 §3), and tells the upstream which
// client the token was issued to.
//
// The token is taken from `Authorization: Bearer` only, never from the query or
// the body. It is a JWT as in RFC 9068, signed by the realm's issuer or by a
// server in `trust_issuers`, for one of the audiences. Its `cnf` must be the hash
// of the certificate of this connection, or of the one that a proxy of the realm
// forwards. On every request the certificate must be valid and not in the realm's
// deny file. A client of the realm must still be registered with this certificate;
// a client of another server only has to possess the certificate's key
// (RFC 8705 §6.2).
//
// A refused caller gets 401 with a bare `Bearer` challenge if it sent no token,
// else 401 `invalid_token`, 403 `insufficient_scope` or 400 `invalid_request`,
// through Caddy's error routes. The reason is in the log line `token refused`,
// which has the same error ID as the response.
//
// The same headers are removed from every request as by `mtls_auth`. The upstream
// gets the `Authorization` header as the caller sent it.
//
// For an admitted caller, the placeholders of `mtls_auth` are set:
// `{http.mtls.client_id}` is the client of the token, `{http.mtls.scope}` the
// token's scopes, `{http.mtls.credential}` is `token`, `{http.mtls.claim.*}` are
// the claims of the token, and `{http.mtls.matched}` is empty. Those of the
// certificate are empty for a token that is not bound to one.
type BearerHandler struct {
	// The realm whose tokens are admitted, if it has an issuer. Its proxies and its
	// deny file apply to all tokens. Default: `default`, or none with
	// `trust_issuers`.
	Realm string `json:"realm,omitempty"`

	// Other authorization servers whose tokens are admitted.
	TrustIssuers []*TrustedIssuer `json:"trust_issuers,omitempty"`

	// The names of this API in the `aud` of the realm's tokens; a token must have
	// one of them. Default: the issuer's `audience`, or the issuer URL if the
	// issuer has neither an audience nor resources.
	Audience []string `json:"audience,omitempty"`

	// The scopes that the token must have, all of them.
	RequireScope []string `json:"require_scope,omitempty"`

	// The request headers to set for the upstream, from name to value. Values may
	// contain placeholders. A header whose value is empty after expansion is
	// removed. Default: `X-Client-ID` with `{http.mtls.client_id}`.
	HeaderUp map[string]string `json:"header_up,omitempty"`

	// The protected headers that callers may send nevertheless. A trailing `*`
	// stands for any ending and covers only the headers of other gateways:
	// `X-Client-ID`, or a header that another directive of the configuration
	// sets, must be named in full. A header that this directive sets cannot be
	// kept. Default: none.
	KeepHeader []string `json:"keep_header,omitempty"`

	// realm has no name and decides nothing if none is configured
	realm   *Realm
	tokens  bearerTokens
	results metrics.Results
	timer   metrics.Timer
	identityHeaders
}

// CaddyModule returns the Caddy module information.
func (BearerHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.mtls_bearer",
		New: func() caddy.Module { return new(BearerHandler) },
	}
}

// Provision checks the configuration and finds the realm and the issuers' keys.
func (h *BearerHandler) Provision(ctx caddy.Context) error {
	if err := h.check(); err != nil {
		return err
	}
	if err := h.findRealm(ctx); err != nil {
		return err
	}
	if err := h.compileHeaders(h.realm, h.HeaderUp, h.KeepHeader, nil); err != nil {
		return err
	}
	h.tokens = bearerTokens{realm: h.realm, cached: new(cache.Growing[cachedToken])}
	if err := h.acceptIssuers(); err != nil {
		return err
	}
	h.realm.app.declared.addCache(h.realm.name, cacheBearerTokens, h.tokens.cached.Entries)
	h.timer = metrics.NewTimer(h.realm.name, directiveBearer)
	metrics.AddRefusals(h.realm.name, directiveBearer, false, bearerReasons())
	h.results = metrics.NewBearerResults(h.realm.name, bearerReasons())
	h.realm.app.warnAboutSites(ctx)
	problem.Answer(ctx)
	h.warnAboutAudience()
	return nil
}

// warnAboutAudience logs a warning about each audience that no token of the realm can
// have.
func (h *BearerHandler) warnAboutAudience() {
	if h.realm.issuer == nil {
		return
	}
	config := h.realm.issuer.Config
	possible := slices.Clone(config.Audience)
	for _, resource := range config.Resources {
		possible = append(possible, resource.Name)
	}
	if len(possible) == 0 {
		possible = []string{h.realm.issuer.Config.URL}
	}
	for _, audience := range h.Audience {
		if audience, err := caddyfileutil.Expand(audience); err == nil && !slices.Contains(possible, audience) {
			h.realm.logger.Warn("no token of the realm can have the audience", zap.String("audience", audience), zap.Strings("possible", possible))
		}
	}
}

// realmName returns the realm that is configured, or the default one unless other
// issuers are trusted.
func (h *BearerHandler) realmName() string {
	if h.Realm == "" && len(h.TrustIssuers) == 0 {
		return defaultRealm
	}
	return h.Realm
}

func (h *BearerHandler) checkRealm(realm *Realm) error {
	issuer := realm.Issuer
	switch {
	case issuer == nil && len(h.TrustIssuers) == 0:
		return fmt.Errorf("realm '%s' has no issuer, so it issues no tokens; add 'issuer <https-url>' to it, or trust_issuer here", realm.name)
	case issuer == nil && len(h.Audience) > 0:
		return fmt.Errorf("audience applies to the tokens of realm '%s', which has no issuer; move it into trust_issuer", realm.name)
	case issuer != nil && len(issuer.Resources) > 0 && len(issuer.Audience)+len(h.Audience) == 0:
		return fmt.Errorf("the issuer of realm '%s' has resources, so its tokens are for several APIs; name this one with 'audience'", realm.name)
	}
	return nil
}

func (h *BearerHandler) findRealm(ctx caddy.Context) (err error) {
	if h.realmName() != "" {
		h.realm, err = realmFor(ctx, h)
		return err
	}
	// only the tokens of other servers, which need no realm
	module, err := ctx.App(appID)
	if err != nil {
		return err
	}
	app := module.(*App)
	h.realm = &Realm{app: app, logger: app.logger.With(zap.String("realm", "")), events: app.events.Realm(""), memory: app.memories.of("", app.Now)}
	h.realm.refusals = reportedRealm(h.realm)
	h.realm.trust = newRealmTrust(h.realm)
	return nil
}

// check returns what is wrong with the configuration, as far as its text shows.
func (h *BearerHandler) check() error {
	switch {
	case h.Audience != nil && len(h.Audience) == 0:
		return errors.New("audience is an empty list; name this API or leave it out")
	case len(h.Audience) > 0 && h.realmName() == "":
		return errors.New("audience applies to a realm's tokens, but no realm is named; move it into trust_issuer, or name the realm")
	}
	if err := checkIdentityHeaders(h.HeaderUp, h.KeepHeader, nil); err != nil {
		return err
	}
	if err := checkScopes("require_scope", h.RequireScope); err != nil {
		return err
	}
	for i, trusted := range h.TrustIssuers {
		if trusted == nil {
			return errors.New("trust_issuer is null; name an issuer or remove it")
		}
		if err := trusted.check(h.Realm != "" || len(h.TrustIssuers) > 1); err != nil {
			return fmt.Errorf("trust_issuer '%s': %w", source.ShownValue(trusted.Issuer), err)
		}
		for _, other := range h.TrustIssuers[:i] {
			if err := trusted.checkWith(other); err != nil {
				return fmt.Errorf("trust_issuer '%s': %w", source.ShownValue(trusted.Issuer), err)
			}
		}
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *BearerHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	start, span := metrics.Now(), startSpan(r, directiveBearer, h.realm)
	err := h.decide(w, r)
	h.timer.Observe(start, nil)
	if span != nil {
		stateOf(h.realm.app, r).endSpan(span, err)
	}
	if err != nil {
		return problem.Return(w, r, err)
	}
	return next.ServeHTTP(h.realm.expiry.tellDaysLeft(h.realm.app, w, r), r)
}

// decide admits a request or returns the refusal.
func (h *BearerHandler) decide(w http.ResponseWriter, r *http.Request) error {
	state := stateOf(h.realm.app, r)
	h.stripProtected(state, r)
	onlyAuthorization.StripHop(r)
	state.clear()

	if err := state.refuseUnsafe(h.realm, directiveBearer, w, r); err != nil {
		return err
	}
	presented, refusal := state.certificates(h.realm, r)
	bearer, refusal := h.admit(state, r, presented, refusal)
	if refusal == nil {
		h.results.Count("")
		state.admit(h.realm, identity{}, bearer)
		h.setIdentity(state, r)
		return nil
	}
	h.results.Count(refusal.Reason)
	state.refused = refusal
	answer := bearerOutcome(refusal.Reason)
	failure := caddyhttp.Error(answer.status, problem.Word(answer.word))
	logRefusal(h.realm, r, about(bearer, reporter.Refused{Directive: directiveBearer, Message: "token refused", Refusal: refusal, Presented: presented, Notes: h.notesOn(presented), ErrorID: failure.ID}))
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case answer.status == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", retryAfter)
	case refusal.Reason == tokenMissing:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case refusal.Reason == validators.ScopeMissing:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="%s", scope="%s", error_id="%s"`, answer.word, strings.Join(h.RequireScope, " "), failure.ID))
	default:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="%s", error_id="%s"`, answer.word, failure.ID))
	}
	return failure
}

// admit decides about a request. noCertificate is why there is no certificate, if
// one is required. With a refusal, the identity is that of the token if it has been
// verified, else nil.
func (h *BearerHandler) admit(state *requestState, r *http.Request, presented []*x509.Certificate, noCertificate *validators.Refusal) (*bearerIdentity, *validators.Refusal) {
	if refusal := h.realm.app.refuseEnded(); refusal != nil {
		return nil, refusal
	}
	token, refusal := bearerToken(state.authorization)
	if refusal != nil {
		return nil, refusal
	}
	if noCertificate != nil && noCertificate.Reason != validators.CertificateMissing {
		return nil, noCertificate // what a proxy forwarded cannot be read
	}
	if refusal := validators.CheckPresented(presented); refusal != nil {
		return nil, refusal
	}
	switch {
	case len(presented) > 0, h.allowsUnbound():
	case noCertificate != nil:
		return nil, noCertificate
	default:
		return nil, refuse(validators.CertificateMissing, detailNotPresented)
	}
	cached, refusal := h.tokens.verifyCached(r.Context(), token, presented, noCertificate)
	if refusal != nil {
		return nil, refusal
	}
	return h.permit(cached, r, presented)
}

// allowsUnbound reports whether a token can be good without a certificate.
func (h *BearerHandler) allowsUnbound() bool {
	return slices.ContainsFunc(h.TrustIssuers, func(trusted *TrustedIssuer) bool { return trusted.AllowUnbound })
}

// permit checks what can change from one request to the next, and returns the
// token's identity, with a refusal too.
func (h *BearerHandler) permit(cached *cachedToken, r *http.Request, presented []*x509.Certificate) (*bearerIdentity, *validators.Refusal) {
	identity := cached.identity.Load()
	var own authn.Identity // the zero Identity for a token of another server
	if cached.token.Thumbprint != "" {
		if refusal := validators.CheckValidity(presented[0], h.realm.app.Now()); refusal != nil {
			return identity, refusal
		}
	}
	if cached.by.own {
		// its verdict is cached, and takes account of every change to the client
		// and to its certificate
		id, refusal := h.realm.authenticate(r.Context(), presented, cached.token.ClientID)
		if refusal != nil {
			return identity, refusal
		}
		identity = cached.identityOf(id.Client())
		own = id.Identity
		if h.realm.issuer.RevokedTokens.Revoked(cached.token.ClientID, cached.token.ID, cached.token.IssuedAt) {
			return identity, refuse(tokenRevoked, "token %q of client '%s' has been revoked", cached.token.ID, cached.token.ClientID)
		}
	} else if current := h.realm.current.Load(); current != nil && current.registry.Client(identity.clientID) != nil {
		// nothing more is known here about a client of another server
		return identity, refuse(tokenClient, "client %q of issuer %s has the name of a client of realm '%s'; choose another id_prefix",
			cached.token.ClientID, cached.by.issuer, h.realm.name)
	}
	for _, scope := range h.RequireScope {
		switch {
		case slices.Contains(identity.scopes, scope):
		case slices.Contains(cached.token.Scopes, scope):
			return identity, refuse(validators.ScopeMissing, "token has scope '%s', but client '%s' is no longer registered for it", scope, cached.token.ClientID)
		default:
			return identity, refuse(validators.ScopeMissing, "token lacks scope '%s'", scope)
		}
	}
	h.realm.noteAdmitted(&own)
	return identity, nil
}

// notesOn returns what the realm keeps for the log about the certificates. It is nil
// without a realm.
func (h *BearerHandler) notesOn(presented []*x509.Certificate) *authn.Notes {
	if current := h.realm.current.Load(); current != nil {
		return current.NotesOn(presented)
	}
	return nil
}

// about adds what is known about a refused token, if it has been verified.
func about(token *bearerIdentity, refused reporter.Refused) reporter.Refused {
	if token != nil {
		refused.ClientID, refused.TokenIssuer, refused.TokenID = token.clientID, token.token.Issuer, token.token.ID
	}
	return refused
}

// Interface guards
var (
	_ caddy.Provisioner           = (*BearerHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*BearerHandler)(nil)
)
