package mtlsauth

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/allowlist"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/problem"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// refusedWord is what a caller learns of every refusal of a certificate.
const refusedWord = "certificate_refused"

// Handler admits requests that come with the certificate of a registered
// client, and tells the upstream who that client is.
//
// A refused caller gets 401 `certificate_missing` or `certificate_refused`, or
// 403 `client_not_allowed` or `scope_missing`, through Caddy's error routes. A
// request that comes seconds after its configuration was replaced gets 503
// `temporarily_unavailable`.
// The reason is in the log line `client refused`, which has the same error id
// as the response.
//
// Headers that an upstream could mistake for an identity are removed from every
// request, whatever the outcome: `X-Client-ID`, every header that a directive of
// this plugin sets anywhere in the configuration, and the headers that other
// gateways use (`Client-Cert`, `X-Forwarded-Client-Cert`, `X-SSL-*`, …).
// `Authorization` is removed only where this directive sets it.
//
// These placeholders are set for an admitted client, and empty otherwise:
//
// Placeholder | Description
// ------------|------------
// `{http.mtls.client_id}` | The client; also in `{http.auth.user.id}`
// `{http.mtls.realm}` | The realm
// `{http.mtls.scope}` | The client's scopes, separated by spaces
// `{http.mtls.credential}` | The kind of credential that matched: `subject`, `san_dns`, `san_uri`, `san_ip`, `san_email`, `thumbprint`, `public_key`, `certificate` or `jwks`
// `{http.mtls.matched}` | The value in the certificate that matched; it differs from the declared one if that is a wildcard
// `{http.mtls.thumbprint}` | SHA-256 of the certificate in base64url (`x5t#S256`)
// `{http.mtls.subject}` | The certificate's subject as an RFC 4514 string, in ASCII
// `{http.mtls.subject_legacy}` | The subject with slashes, as in `/O=company/CN=client`
// `{http.mtls.issuer}` | The issuer, in the form of `subject`
// `{http.mtls.issuer_legacy}` | The issuer, in the form of `subject_legacy`
// `{http.mtls.serial}` | The certificate's serial number in upper-case hexadecimal digits, as OpenSSL prints it
// `{http.mtls.fingerprint_sha256}` | SHA-256 of the certificate in lower-case hexadecimal digits
// `{http.mtls.fingerprint_sha1}` | SHA-1 of the certificate in lower-case hexadecimal digits, for an upstream that knows certificates by it
// `{http.mtls.not_before}` | When the certificate's validity begins, as RFC 3339
// `{http.mtls.not_after}` | When the certificate expires, as RFC 3339
// `{http.mtls.claim.*}` | A claim of the client
// `{http.mtls.error}` | The refusal reason, for `handle_errors` and logs; not meant for callers
type Handler struct {
	// The realm whose clients are admitted. Default: `default`.
	Realm string `json:"realm,omitempty"`

	// The clients that are admitted. `*` stands for any run of characters.
	// Default: every client of the realm.
	Allow []string `json:"allow,omitempty"`

	// The scopes that the client must be registered for, all of them. Default:
	// none.
	RequireScope []string `json:"require_scope,omitempty"`

	// Whether requests without a certificate are passed on without an identity.
	// A certificate that is not accepted is still refused. Default: false.
	Optional bool `json:"optional,omitempty"`

	// Whether refusals are only logged and counted, and the request passed on. It
	// has an identity only if it would have been admitted. Default: false.
	ReportOnly bool `json:"report_only,omitempty"`

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

	// How the upstream gets the certificate of an admitted client. Default: not at
	// all.
	ForwardCertificate *ForwardCertificate `json:"forward_certificate,omitempty"`

	// The signed token that tells the upstream who the client is. Default: none.
	ForwardToken *ForwardToken `json:"forward_token,omitempty"`

	realm   *Realm
	timer   metrics.Timer
	allowed allowlist.List
	minter  *gatewayMinter // nil without forward_token
	// upstream are the headers of the certificate and the token
	upstream []string
	identityHeaders
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.mtls_auth",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the realm and compiles the configuration.
func (h *Handler) Provision(ctx caddy.Context) error {
	var err error
	if err := h.check(); err != nil {
		return err
	}
	if h.realm, err = realmFor(ctx, h); err != nil {
		return err
	}
	h.timer = metrics.NewTimer(h.realm.name, directiveAuth)
	metrics.AddRefusals(h.realm.name, directiveAuth, h.ReportOnly, validators.Reasons)
	registry := h.realm.current.Load().registry
	h.allowed = allowlist.New(h.Allow)
	for _, pattern := range h.Allow {
		if !allowlist.MatchesAny(pattern, registry) {
			h.realm.logger.Warn("allow matches no client", zap.String("allow", pattern))
		}
	}
	for _, scope := range h.RequireScope {
		if !registry.HasScope(scope) {
			h.realm.logger.Warn("require_scope matches no client", zap.String("require_scope", scope))
		}
	}
	if h.ForwardToken != nil {
		if h.minter, err = h.ForwardToken.provision(h.realm); err != nil {
			return fmt.Errorf("forward_token: %w", err)
		}
	}
	if h.ForwardCertificate != nil {
		if err := h.ForwardCertificate.provision(h.realm); err != nil {
			return fmt.Errorf("forward_certificate: %w", err)
		}
	}
	h.upstream = h.upstreamHeaders()
	if err := h.compileHeaders(h.realm, h.HeaderUp, h.KeepHeader, h.upstream); err != nil {
		return err
	}
	h.warnAboutHeaders(registry)
	h.realm.app.warnAboutSites(ctx)
	problem.Answer(ctx)
	return nil
}

func (h *Handler) realmName() string { return cmp.Or(h.Realm, defaultRealm) }

func (h *Handler) checkRealm(realm *Realm) error {
	if h.ForwardToken != nil && realm.Issuer == nil {
		return fmt.Errorf("forward_token: realm '%s' has no issuer to sign it; add 'issuer <https-url>' to the realm", realm.name)
	}
	return nil
}

// check returns what is wrong with the configuration, as far as its text shows.
func (h *Handler) check() error {
	// an empty list, as a generator may write one, must not admit everybody
	if h.Allow != nil && len(h.Allow) == 0 {
		return errors.New("allow is an empty list; name a client, or leave it out to admit every client of the realm")
	}
	for _, pattern := range h.Allow {
		if err := allowlist.Check(pattern); err != nil {
			return fmt.Errorf("allow '%s': %w", pattern, err)
		}
	}
	if err := checkScopes("require_scope", h.RequireScope); err != nil {
		return err
	}
	if h.ForwardCertificate != nil {
		if _, err := h.ForwardCertificate.compile(); err != nil {
			return fmt.Errorf("forward_certificate: %w", err)
		}
	}
	if h.ForwardToken != nil {
		if err := h.ForwardToken.check(); err != nil {
			return fmt.Errorf("forward_token: %w", err)
		}
	}
	return checkIdentityHeaders(h.HeaderUp, h.KeepHeader, h.upstreamHeaders())
}

// checkScopes returns what is wrong with the scopes of an option.
func checkScopes(option string, scopes []string) error {
	if scopes != nil && len(scopes) == 0 {
		return fmt.Errorf("%s is an empty list; name a scope or leave it out", option)
	}
	for _, scope := range scopes {
		if err := syntax.CheckDeclaredScope(scope); err != nil {
			return fmt.Errorf("%s: %w", option, err)
		}
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	start, span := metrics.Now(), startSpan(r, directiveAuth, h.realm)
	err := h.decide(w, r)
	h.timer.Observe(start, nil)
	if span != nil {
		stateOf(h.realm.app, r).endSpan(span, err)
	}
	if err != nil {
		return problem.Return(w, r, err)
	}
	return h.pass(h.realm.expiry.tellDaysLeft(h.realm.app, w, r), r, next)
}

// decide admits a request or returns the refusal. It also returns nil if the request
// goes on without an identity.
func (h *Handler) decide(w http.ResponseWriter, r *http.Request) error {
	state := stateOf(h.realm.app, r)
	h.stripProtected(state, r)
	state.clear()

	if err := state.refuseUnsafe(h.realm, directiveAuth, w, r); err != nil {
		return err
	}
	id, refusal := state.identify(h.realm, r)
	if refusal == nil {
		refusal = h.permit(id.Client())
	}
	var token string
	if refusal == nil && h.minter != nil {
		var failure *tokens.Error
		if token, refusal, failure = h.minter.token(r.Context(), id); failure != nil {
			return h.withoutToken(state, w, r, id, failure)
		}
	}
	if refusal == nil {
		h.realm.metrics.Certificates.Count("")
		h.realm.noteAdmitted(&id.Identity)
		state.admit(h.realm, id, nil)
		h.setIdentity(state, r)
		h.setUpstreamHeaders(r.Header, id, token)
		return nil
	}
	if h.Optional && refusal.Reason == validators.CertificateMissing {
		return nil
	}
	h.realm.metrics.Certificates.Count(refusal.Reason)
	state.refused = refusal
	if h.ReportOnly {
		logRefusal(h.realm, r, reporter.Refused{Directive: directiveAuth, ReportOnly: true, Message: "client would be refused", Refusal: refusal, Presented: state.presented, Notes: id.Notes, ClientID: id.registeredID()})
		return nil
	}
	status, word := outcome(refusal.Reason)
	failure := caddyhttp.Error(status, problem.Word(word))
	logRefusal(h.realm, r, reporter.Refused{Directive: directiveAuth, Message: "client refused", Refusal: refusal, Presented: state.presented, Notes: id.Notes, ClientID: id.registeredID(), ErrorID: failure.ID})
	w.Header().Set("Cache-Control", "no-store")
	switch status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", retryAfter)
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`ClientCertificate realm="%s", error="%s", error_id="%s"`, h.realm.name, word, failure.ID))
	}
	return failure
}

// permit returns why this directive does not admit an authenticated client, or
// nil.
func (h *Handler) permit(client *clients.Client) *validators.Refusal {
	if !h.allowed.Admits(client.ID) {
		return refuse(validators.ClientNotAllowed, "client '%s' is not in the allow list", client.ID)
	}
	for _, scope := range h.RequireScope {
		if !client.HasScope(scope) {
			return refuse(validators.ScopeMissing, "client '%s' is not registered for scope '%s'", client.ID, scope)
		}
	}
	return nil
}

// refuse returns a refusal. Text from a certificate or a token must be quoted.
func refuse(reason validators.Reason, format string, args ...any) *validators.Refusal {
	return &validators.Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// outcome returns what the caller learns of a refusal. Nothing else decides that.
func outcome(reason validators.Reason) (status int, word string) {
	switch reason {
	case validators.CertificateMissing:
		return http.StatusUnauthorized, string(reason)
	case validators.ClientNotAllowed, validators.ScopeMissing:
		return http.StatusForbidden, string(reason)
	case validators.ConfigurationEnded:
		return http.StatusServiceUnavailable, tokens.CodeTemporarilyUnavailable
	}
	return http.StatusUnauthorized, refusedWord
}

// pass calls the next handler, and hides from caches outside that the response
// depends on headers which only the upstream sees.
func (h *Handler) pass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.ForwardCertificate == nil && h.ForwardToken == nil {
		return next.ServeHTTP(w, r)
	}
	within := h.own.VaryWriter(w)
	err := next.ServeHTTP(within, r)
	within.Hide() // the header may not have been sent yet
	if err != nil {
		// error routes do not write through the writer above, so they get neither
		// the certificate nor the token
		for _, name := range h.upstream {
			delete(r.Header, name)
		}
	}
	return err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
