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

	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// keysRetryAfter is what a caller is told whose token cannot be verified yet.
const keysRetryAfter = "5"

// BearerHandler admits requests that come with an access token and the
// certificate it is bound to (RFC 6750, RFC 8705 §3), and tells the API behind
// whom the token was issued to.
//
// The token is taken from `Authorization: Bearer` alone, never from the query or
// the body. It is a JWT as in RFC 9068, signed by the realm's issuer or by a
// server in `trust_issuers`, for one of the audiences, and its `cnf` must be the
// hash of the certificate of this very connection, or of the one that the
// realm's proxies forward. On every request the certificate must be valid and
// not in the realm's deny file. A client of the realm must still be registered
// with this certificate; of the clients of other servers only possession of the
// certificate's key is asked (RFC 8705 §6.2).
//
// A refused caller gets 401 with a bare `Bearer` challenge without a token, 401
// `invalid_token`, 403 `insufficient_scope` or 400 `invalid_request`, through
// Caddy's error routes. The reason is in the log line `token refused`, which has
// the same error id as the response.
//
// The same headers are removed from every request as by `mtls_auth`. The upstream
// gets the `Authorization` header as the caller sent it.
//
// For a caller that is admitted, the placeholders of `mtls_auth` are set:
// `{http.mtls.client_id}` is the client of the token, `{http.mtls.scope}` the
// token's scopes, `{http.mtls.credential}` is `token`, `{http.mtls.claim.*}` are
// the claims of the token, and `{http.mtls.matched}` is empty. Those of the
// certificate are empty for a token that is not bound to one.
type BearerHandler struct {
	// The realm whose tokens are admitted, if it has an issuer; its proxies and
	// its deny file count for all tokens. Default: `default`, or none with
	// `trust_issuers`.
	Realm string `json:"realm,omitempty"`

	// Other authorization servers whose tokens are admitted.
	TrustIssuers []*TrustedIssuer `json:"trust_issuers,omitempty"`

	// The names of this API in the `aud` of the realm's tokens; a token must
	// have one of them. Default: the issuer's `audience`, or the issuer URL if it
	// has none and no resources.
	Audience []string `json:"audience,omitempty"`

	// Scopes the token must have, all of them.
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

	app *App
	// realm has no name and decides nothing where none is meant
	realm     *Realm
	verifiers []*trustedVerifier
	cached    cache.Table[cachedToken]
	results   metrics.Results
	identityHeaders
}

// CaddyModule returns the Caddy module information.
func (BearerHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.mtls_bearer",
		New: func() caddy.Module { return new(BearerHandler) },
	}
}

// Provision refuses a configuration that could not do what it says, and finds
// the realm and the keys of the issuers.
func (h *BearerHandler) Provision(ctx caddy.Context) error {
	if err := h.check(); err != nil {
		return fmt.Errorf("mtls_bearer: %w", err)
	}
	if err := h.findRealm(ctx); err != nil {
		return err
	}
	if err := checkProxyHeadersKept(h.realm, h.KeepHeader); err != nil {
		return fmt.Errorf("mtls_bearer: %w", err)
	}
	h.compileHeaders(&h.app.declared, h.HeaderUp, h.KeepHeader, nil, h.realm.proxyCertificates.headerNames())
	if err := h.acceptIssuers(ctx); err != nil {
		return fmt.Errorf("mtls_bearer: %w", err)
	}
	h.cached = cache.New[cachedToken](tokenCacheSize)
	h.results = metrics.NewBearerResults(h.realm.name, bearerReasons())
	warnWithoutClientAuth(ctx, h.realm, "mtls_bearer")
	return nil
}

// namesRealm tells whether a realm is meant, by its name or as the default.
func (h *BearerHandler) namesRealm() bool { return h.Realm != "" || len(h.TrustIssuers) == 0 }

func (h *BearerHandler) findRealm(ctx caddy.Context) (err error) {
	if h.namesRealm() {
		h.app, h.realm, err = findRealm(ctx, "mtls_bearer", h.Realm)
		return err
	}
	// only other servers' tokens, for which no realm need be declared
	module, err := ctx.App(appID)
	if err != nil {
		return fmt.Errorf("mtls_bearer: %w", err)
	}
	h.app = module.(*App)
	h.realm = &Realm{app: h.app, logger: h.app.logger.With(zap.String("realm", ""))}
	return nil
}

// check reports what the text alone shows to be wrong.
func (h *BearerHandler) check() error {
	switch {
	case h.RequireScope != nil && len(h.RequireScope) == 0:
		return errors.New("require_scope is an empty list; name a scope or leave it out")
	case h.Audience != nil && len(h.Audience) == 0:
		return errors.New("audience is an empty list; name this API or leave it out")
	case len(h.Audience) > 0 && !h.namesRealm():
		return errors.New("audience applies to a realm's tokens, but no realm is named; move it into trust_issuer, or name the realm")
	}
	if err := checkIdentityHeaders(h.HeaderUp, h.KeepHeader); err != nil {
		return err
	}
	for _, scope := range h.RequireScope {
		if err := syntax.CheckScope(scope); err != nil {
			return fmt.Errorf("require_scope: %w", err)
		}
	}
	for i, trusted := range h.TrustIssuers {
		if trusted == nil {
			return errors.New("trust_issuer is null; name an issuer or remove it")
		}
		if err := trusted.check(h.Realm != "" || len(h.TrustIssuers) > 1); err != nil {
			return fmt.Errorf("trust_issuer '%s': %w", trusted.Issuer, err)
		}
		for _, other := range h.TrustIssuers[:i] {
			if err := trusted.checkBeside(other); err != nil {
				return fmt.Errorf("trust_issuer '%s': %w", trusted.Issuer, err)
			}
		}
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *BearerHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	state := stateOf(h.app, r)
	h.stripProtected(state, r)
	onlyAuthorization.StripHop(r)
	state.clear()

	if err := h.app.refuseTunnel(w, r); err != nil {
		return err
	}
	if earlyData(r) {
		return caddyhttp.Error(http.StatusTooEarly, errEarlyData)
	}
	presented, refusal := state.certificates(h.realm, r)
	bearer, refusal := h.admit(state, r, presented, refusal)
	if refusal == nil {
		h.results.Count("")
		state.admitBearer(h.realm, bearer)
		h.setIdentity(state, r)
		return next.ServeHTTP(w, r)
	}
	h.results.Count(refusal.Reason)
	state.reason = refusal.Reason
	answer := bearerOutcome(refusal.Reason)
	failure := caddyhttp.Error(answer.status, errors.New(answer.word))
	logRefusal(h.realm, r, refusedRequest{message: "token refused", refusal: refusal, presented: presented, errorID: failure.ID, more: bearer.logFields()})
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case answer.status == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", keysRetryAfter)
	case refusal.Reason == tokenMissing:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case refusal.Reason == validators.ScopeMissing:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="%s", scope="%s", error_id="%s"`, answer.word, strings.Join(h.RequireScope, " "), failure.ID))
	default:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="%s", error_id="%s"`, answer.word, failure.ID))
	}
	return failure
}

// admit decides about a request. noCertificate is why there is none, if there
// had to be one. With a refusal, the bearer is who the token was issued to, if
// it has been verified, else nil.
func (h *BearerHandler) admit(state *requestState, r *http.Request, presented []*x509.Certificate, noCertificate *validators.Refusal) (*bearerIdentity, *validators.Refusal) {
	token, refusal := bearerToken(state.authorization)
	if refusal != nil {
		return nil, refusal
	}
	if noCertificate != nil && noCertificate.Reason != validators.CertificateMissing {
		return nil, noCertificate // what a proxy forwarded cannot be read
	}
	var leaf *x509.Certificate
	if len(presented) > 0 {
		leaf = presented[0]
	}
	known, refusal := h.verifyCached(token, leaf, noCertificate)
	if refusal != nil {
		return nil, refusal
	}
	if refusal := h.permit(known, r, presented); refusal != nil {
		return &known.identity, refusal
	}
	return &known.identity, nil
}

// permit decides what can change from one request to the next.
func (h *BearerHandler) permit(known *cachedToken, r *http.Request, presented []*x509.Certificate) *validators.Refusal {
	if known.token.Thumbprint != "" {
		if refusal := validators.CheckValidity(presented[0], h.app.Now()); refusal != nil {
			return refusal
		}
	}
	if known.by.own {
		// it is remembered, and has asked for everything that could have
		// happened to the client and to its certificate
		if _, refusal := h.realm.authenticate(r.Context(), presented, known.token.ClientID); refusal != nil {
			return refusal
		}
		if h.realm.issuer.revokedTokens.Revoked(known.token.ClientID, known.token.ID, known.token.IssuedAt) {
			return refuseBearer(tokenRevoked, "token %q of client '%s' has been revoked", known.token.ID, known.token.ClientID)
		}
	} else if refusal := h.permitForeign(known); refusal != nil {
		return refusal
	}
	for _, scope := range h.RequireScope {
		if !slices.Contains(known.token.Scopes, scope) {
			return refuseBearer(validators.ScopeMissing, "token lacks scope '%s'", scope)
		}
	}
	return nil
}

// permitForeign asks of the client of another server that it has not the name of
// one of ours; nothing more is known of it here.
func (h *BearerHandler) permitForeign(known *cachedToken) *validators.Refusal {
	if current := h.realm.current.Load(); current != nil && current.registry.Client(known.identity.clientID) != nil {
		return refuseBearer(tokenClient, "client %q of issuer %s has the name of a client of realm '%s'; choose another id_prefix",
			known.token.ClientID, known.by.issuer, h.realm.name)
	}
	return nil
}

// refuseBearer makes a refusal. Text from a token must be quoted.
func refuseBearer(reason validators.Reason, format string, args ...any) *validators.Refusal {
	return &validators.Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// logFields describe the token of a refusal, if it has been verified.
func (b *bearerIdentity) logFields() []zap.Field {
	if b == nil {
		return nil
	}
	return []zap.Field{
		zap.String("client_id", b.clientID),
		zap.String("token_issuer", b.token.Issuer),
		zap.String("token_id", fmt.Sprintf("%.200s", b.token.ID)),
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*BearerHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*BearerHandler)(nil)
)
