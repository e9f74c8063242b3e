package mtlsauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	defaultIdentityHeader = "X-Client-ID"
	clientIDPlaceholder   = "{http.mtls.client_id}"
	refusedWord           = "certificate_refused"
)

// Handler admits requests that come with the certificate of a registered
// client, and tells the API behind who that client is.
//
// A refused caller gets 401 `certificate_missing` or `certificate_refused`, or
// 403 `client_not_allowed` or `scope_missing`, through Caddy's error routes.
// The reason is in the log line `client refused`, which has the same error id
// as the response.
//
// Headers that could pass for an identity are removed from every request,
// whatever the outcome: those in `header_up`, and the ones other gateways use
// (`Client-Cert`, `X-Forwarded-Client-Cert`, `X-SSL-*`, …).
//
// For a client that is admitted, these placeholders are set; otherwise they
// are empty:
//
// Placeholder | Description
// ------------|------------
// `{http.mtls.client_id}` | The client; also in `{http.auth.user.id}`
// `{http.mtls.realm}` | The realm
// `{http.mtls.scope}` | The scopes it is registered for, separated by spaces
// `{http.mtls.credential}` | The kind of credential that matched: `subject`, `san_dns`, `san_uri`, `san_ip`, `san_email`, `thumbprint`, `public_key` or `certificate`
// `{http.mtls.matched}` | What of the certificate matched; with a wildcard it is not what was declared
// `{http.mtls.thumbprint}` | SHA-256 of the certificate in base64url (`x5t#S256`)
// `{http.mtls.subject}` | The certificate's subject as an RFC 4514 string, in ASCII
// `{http.mtls.not_after}` | When the certificate expires, as RFC 3339
// `{http.mtls.claim.*}` | A claim of the client
// `{http.mtls.error}` | The refusal reason, for `handle_errors` and logs; not meant for callers
type Handler struct {
	// The realm whose clients are admitted. Default: `default`.
	Realm string `json:"realm,omitempty"`

	// The clients that may pass; `*` stands for any run of characters.
	// Default: every client of the realm.
	Allow []string `json:"allow,omitempty"`

	// Scopes the client must be registered for, all of them.
	RequireScope []string `json:"require_scope,omitempty"`

	// Pass requests without a certificate on, without an identity. A
	// certificate that is refused is still refused. Default: false.
	Optional bool `json:"optional,omitempty"`

	// Refuse nothing; log and count what would have been refused. The request
	// has an identity only where it would have been admitted. Default: false.
	ReportOnly bool `json:"report_only,omitempty"`

	// Request headers to set for the API behind, from name to value, which may
	// have placeholders. A header whose value comes out empty is removed.
	// Default: `X-Client-ID` with `{http.mtls.client_id}`.
	HeaderUp map[string]string `json:"header_up,omitempty"`

	// Protected headers that callers may send after all; a trailing `*`
	// stands for any ending.
	KeepHeader []string `json:"keep_header,omitempty"`

	// Send the API the certificate of an admitted client: its own in
	// `Client-Cert`, and in `Client-Cert-Chain` the chain that was verified, the
	// CA of the trust pool included (RFC 9440). A pin that counts without a
	// chain has none. Default: false.
	ForwardCertificate bool `json:"forward_certificate,omitempty"`

	// Send the API a signed token that says who the client is. Default: none.
	ForwardToken *ForwardToken `json:"forward_token,omitempty"`

	app       *App
	realm     *Realm
	headers   []headerTemplate
	own       protectedNames // what this directive sets
	protected protectedNames // own, and what other gateways set
	allowed   allowList
	minter    *gatewayMinter // nil without forward_token
}

type headerTemplate struct{ name, value string }

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
	if h.app, h.realm, err = findRealm(ctx, "mtls_auth", h.Realm); err != nil {
		return err
	}
	h.allowed = newAllowList(h.Allow)
	for _, pattern := range h.Allow {
		if !newAllowList([]string{pattern}).admitsAny(h.realm.current.Load().registry) {
			h.app.logger.Warn("allow names no client of the realm, so it admits nobody; check the spelling",
				zap.String("realm", h.realm.name), zap.String("allow", pattern))
		}
	}
	headerUp := h.HeaderUp
	if len(headerUp) == 0 {
		headerUp = map[string]string{defaultIdentityHeader: clientIDPlaceholder}
	}
	var names []string
	for name, value := range headerUp {
		names = append(names, name)
		h.headers = append(h.headers, headerTemplate{textproto.CanonicalMIMEHeaderKey(name), value})
	}
	names = append(names, h.forwardedNames()...)
	if h.ForwardToken != nil {
		if h.minter, err = h.ForwardToken.provision(h.app, h.realm); err != nil {
			return fmt.Errorf("mtls_auth: forward_token: %w", err)
		}
	}
	if h.ForwardCertificate {
		h.realm.texts.wanted.Store(true)
	}
	for _, name := range h.realm.forwarded.headers() {
		if newHeaderNames(h.KeepHeader...).contains(name) {
			return fmt.Errorf("mtls_auth: keep_header: the realm takes certificates from header '%s', so it cannot be kept; remove one of the two", name)
		}
		names = append(names, name)
	}
	h.own = protectedNames{names: newHeaderNames(names...), keep: newHeaderNames()}
	h.protected = protectedNames{
		names: newHeaderNames(slices.Concat(names, foreignIdentityHeaders)...),
		keep:  newHeaderNames(h.KeepHeader...),
	}
	warnWithoutClientAuth(ctx, h.realm, "mtls_auth")
	return nil
}

// Validate refuses a configuration that could not do what it says.
func (h *Handler) Validate() error {
	// an empty list from a generator must not admit everybody
	if h.Allow != nil && len(h.Allow) == 0 {
		return errors.New("mtls_auth: allow is an empty list; name a client, or leave it out to admit every client of the realm")
	}
	if h.RequireScope != nil && len(h.RequireScope) == 0 {
		return errors.New("mtls_auth: require_scope is an empty list; name a scope or leave it out")
	}
	var set []string
	for name, value := range h.HeaderUp {
		if err := checkHeaderName(name); err != nil {
			return fmt.Errorf("mtls_auth: header_up: %w", err)
		}
		if value == "" {
			return fmt.Errorf("mtls_auth: header_up %s has no value; remove it or name a placeholder such as %s", name, clientIDPlaceholder)
		}
		if i := slices.IndexFunc(set, newHeaderNames(name).contains); i >= 0 {
			return fmt.Errorf("mtls_auth: header_up sets '%s' and '%s', which are one name to many servers; keep one", set[i], name)
		}
		set = append(set, name)
	}
	if len(set) == 0 {
		set = []string{defaultIdentityHeader}
	}
	var err error
	if set, err = h.checkForwarded(set); err != nil {
		return fmt.Errorf("mtls_auth: %w", err)
	}
	for _, name := range h.KeepHeader {
		if err := checkKeptName(name, set); err != nil {
			return fmt.Errorf("mtls_auth: keep_header: %w", err)
		}
	}
	for _, scope := range h.RequireScope {
		if err := clients.CheckScope(scope); err != nil {
			return fmt.Errorf("mtls_auth: require_scope: %w", err)
		}
	}
	for _, pattern := range h.Allow {
		if err := checkAllow(pattern); err != nil {
			return fmt.Errorf("mtls_auth: %w", err)
		}
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	state := stateOf(h.app, r)
	// before anything can fail, so that no error route sees a forged name
	if state.stripped {
		h.own.strip(r)
	} else {
		h.protected.strip(r)
		state.stripped = true
	}
	state.clear()

	if earlyData(r) {
		return caddyhttp.Error(http.StatusTooEarly, errEarlyData)
	}
	id, refusal := state.authenticate(h.realm, r)
	if refusal == nil {
		refusal = h.permit(id.client())
	}
	var token string
	if refusal == nil && h.minter != nil {
		var failure *tokens.Error
		if token, refusal, failure = h.minter.token(r.Context(), id); failure != nil {
			return h.withoutToken(state, w, r, next, id, failure)
		}
	}
	if refusal == nil {
		h.realm.metrics.decided("")
		state.admit(h.realm, id)
		h.setHeaders(state, r)
		h.forward(r.Header, id, token)
		return h.pass(w, r, next)
	}
	if h.Optional && refusal.Reason == validators.CertificateMissing {
		return h.pass(w, r, next)
	}
	h.realm.metrics.decided(refusal.Reason)
	state.reason = refusal.Reason
	if h.ReportOnly {
		h.realm.logRefusal("client would be refused", r, state.presented, id, refusal, "")
		return h.pass(w, r, next)
	}
	status, word := outcome(refusal.Reason)
	// the error says no more than the caller's word: {http.error.message}
	// often ends up in a body
	failure := caddyhttp.Error(status, errors.New(word))
	h.realm.logRefusal("client refused", r, state.presented, id, refusal, failure.ID)
	w.Header().Set("Cache-Control", "no-store")
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`ClientCertificate realm="%s", error="%s", error_id="%s"`, h.realm.name, word, failure.ID))
	}
	return failure
}

// permit decides whether an authenticated client may pass here.
func (h *Handler) permit(client *clients.Client) *validators.Refusal {
	if !h.allowed.admits(client.ID) {
		return &validators.Refusal{
			Reason: validators.ClientNotAllowed,
			Detail: fmt.Sprintf("client '%s' is not in the allow list", client.ID),
		}
	}
	for _, scope := range h.RequireScope {
		if !client.HasScope(scope) {
			return &validators.Refusal{
				Reason: validators.ScopeMissing,
				Detail: fmt.Sprintf("client '%s' is not registered for scope '%s'", client.ID, scope),
			}
		}
	}
	return nil
}

// outcome is the one place where a reason becomes what the caller learns.
func outcome(reason validators.Reason) (status int, word string) {
	switch reason {
	case validators.CertificateMissing:
		return http.StatusUnauthorized, string(reason)
	case validators.ClientNotAllowed, validators.ScopeMissing:
		return http.StatusForbidden, string(reason)
	}
	return http.StatusUnauthorized, refusedWord
}

func (h *Handler) setHeaders(state *requestState, r *http.Request) {
	for _, header := range h.headers {
		value := state.identity.credential.Client.ID
		if header.value != clientIDPlaceholder {
			value = strings.TrimSpace(headerText(state.repl.ReplaceAll(header.value, "")))
		}
		if value == "" {
			delete(r.Header, header.name)
		} else {
			r.Header[header.name] = []string{value}
		}
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
