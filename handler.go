package mtlsauth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const refusedWord = "certificate_refused"

// connectAllow are the methods that a caller may use who tried CONNECT.
const connectAllow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

var errTunnel = errors.New("connect_refused")

// Handler admits requests that come with the certificate of a registered
// client, and tells the API behind who that client is.
//
// A refused caller gets 401 `certificate_missing` or `certificate_refused`, or
// 403 `client_not_allowed` or `scope_missing`, through Caddy's error routes.
// The reason is in the log line `client refused`, which has the same error id
// as the response.
//
// Headers that could pass for an identity are removed from every request,
// whatever the outcome: `X-Client-ID`, every header that a directive of this
// plugin sets anywhere in the configuration, and the ones other gateways use
// (`Client-Cert`, `X-Forwarded-Client-Cert`, `X-SSL-*`, …). `Authorization` is
// removed only where this directive sets it.
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

	// Protected headers that callers may send after all. A trailing `*` stands
	// for any ending and covers only what other gateways set: `X-Client-ID`, and
	// a header that another directive of the configuration sets, must be named in
	// full. A header that this directive sets cannot be kept.
	KeepHeader []string `json:"keep_header,omitempty"`

	// Send the API the certificate of an admitted client: its own in
	// `Client-Cert`, and in `Client-Cert-Chain` the chain that was verified, the
	// CA of the trust pool included (RFC 9440). A pin that counts without a
	// chain has none. Default: false.
	ForwardCertificate bool `json:"forward_certificate,omitempty"`

	// Send the API a signed token that says who the client is. Default: none.
	ForwardToken *ForwardToken `json:"forward_token,omitempty"`

	app     *App
	realm   *Realm
	allowed allowList
	minter  *gatewayMinter // nil without forward_token
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
	if h.app, h.realm, err = findRealm(ctx, "mtls_auth", h.Realm); err != nil {
		return err
	}
	h.allowed = newAllowList(h.Allow)
	for _, pattern := range h.Allow {
		if !newAllowList([]string{pattern}).admitsAny(h.realm.current.Load().registry) {
			h.realm.logger.Warn("allow names no client of the realm, so it admits nobody; check the spelling",
				zap.String("allow", pattern))
		}
	}
	for _, scope := range h.RequireScope {
		if _, known := slices.BinarySearch(h.realm.current.Load().registry.Scopes(), scope); !known {
			h.realm.logger.Warn("require_scope names a scope that no client of the realm is registered for, so it admits nobody; check the spelling",
				zap.String("require_scope", scope))
		}
	}
	if h.ForwardToken != nil {
		if h.minter, err = h.ForwardToken.provision(h.app, h.realm); err != nil {
			return fmt.Errorf("mtls_auth: forward_token: %w", err)
		}
	}
	if h.ForwardCertificate {
		h.realm.certificateHeaders.Want()
	}
	if err := checkProxyHeadersKept(h.realm, h.KeepHeader); err != nil {
		return fmt.Errorf("mtls_auth: %w", err)
	}
	h.compileHeaders(&h.app.declared, h.HeaderUp, h.KeepHeader, h.upstreamHeaders(), h.realm.proxyCertificates.headerNames())
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
	set, err := checkHeaderUp(h.HeaderUp)
	if err == nil {
		set, err = h.checkUpstreamHeaders(set)
	}
	if err == nil {
		err = checkKeepHeader(h.KeepHeader, set)
	}
	if err != nil {
		return fmt.Errorf("mtls_auth: %w", err)
	}
	for _, scope := range h.RequireScope {
		if err := syntax.CheckScope(scope); err != nil {
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
	h.stripProtected(state, r)
	state.clear()

	if err := h.app.refuseTunnel(w, r); err != nil {
		return err
	}
	if earlyData(r) {
		return caddyhttp.Error(http.StatusTooEarly, errEarlyData)
	}
	id, refusal := state.identify(h.realm, r)
	if refusal == nil {
		refusal = h.permit(id.Client())
	}
	var token string
	if refusal == nil && h.minter != nil {
		var failure *tokens.Error
		if token, refusal, failure = h.minter.token(r.Context(), id); failure != nil {
			return h.withoutToken(state, w, r, next, id, failure)
		}
	}
	if refusal == nil {
		h.realm.metrics.Certificates.Count("")
		state.admit(h.realm, id)
		h.setIdentity(state, r)
		h.setUpstreamHeaders(r.Header, id, token)
		return h.pass(w, r, next)
	}
	if h.Optional && refusal.Reason == validators.CertificateMissing {
		return h.pass(w, r, next)
	}
	h.realm.metrics.Certificates.Count(refusal.Reason)
	state.reason = refusal.Reason
	if h.ReportOnly {
		logRefusal(h.realm, r, refusedRequest{message: "client would be refused", refusal: refusal, presented: state.presented, clientID: id.clientID()})
		return h.pass(w, r, next)
	}
	status, word := outcome(refusal.Reason)
	// the error says no more than the caller's word: {http.error.message}
	// often ends up in a body
	failure := caddyhttp.Error(status, errors.New(word))
	logRefusal(h.realm, r, refusedRequest{message: "client refused", refusal: refusal, presented: state.presented, clientID: id.clientID(), errorID: failure.ID})
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

// pass hands the request to the next handler, and hides from caches outside that
// the response depends on headers which only the upstream sees.
func (h *Handler) pass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !h.ForwardCertificate && h.ForwardToken == nil {
		return next.ServeHTTP(w, r)
	}
	within := h.own.VaryWriter(w)
	err := next.ServeHTTP(within, r)
	within.Hide() // the header may not have been sent yet
	if err != nil {
		// error routes answer without the writer above, so they are told neither
		// the certificate nor the token
		for _, name := range h.upstreamHeaders() {
			delete(r.Header, name)
		}
	}
	return err
}

// refuseTunnel refuses CONNECT, whoever comes with it, unless it asks for a
// WebSocket (RFC 8441, RFC 9220), which reverse_proxy makes a GET. Of any other
// it writes the body to the API as it is: to an API that takes CONNECT for a
// request without a body, that is the caller's next request, with any headers.
// The body goes, for an error route may proxy the request too.
func (a *App) refuseTunnel(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodConnect || headerguard.OpensWebSocket(r) {
		return nil
	}
	r.Body, r.ContentLength, r.Trailer = http.NoBody, 0, nil
	failure := caddyhttp.Error(http.StatusMethodNotAllowed, errTunnel)
	a.logger.Warn("tunnel refused", zap.String("remote_ip", remoteIP(r)), zap.String("host", r.Host), zap.String("error_id", failure.ID))
	w.Header().Set("Allow", connectAllow)
	return failure
}

// allowList is a compiled `allow` option; without entries it admits every client.
type allowList struct {
	exact     map[string]struct{}
	wildcards []wildcard
}

// wildcard is a pattern cut at its asterisks, each of which stands for any run
// of characters.
type wildcard []string

func newAllowList(patterns []string) allowList {
	list := allowList{exact: make(map[string]struct{})}
	for _, pattern := range patterns {
		if parts := strings.Split(pattern, "*"); len(parts) > 1 {
			list.wildcards = append(list.wildcards, parts)
		} else {
			list.exact[pattern] = struct{}{}
		}
	}
	return list
}

func (l allowList) admits(id string) bool {
	if len(l.exact) == 0 && len(l.wildcards) == 0 {
		return true
	}
	if _, ok := l.exact[id]; ok {
		return true
	}
	return slices.ContainsFunc(l.wildcards, func(w wildcard) bool { return w.matches(id) })
}

func (l allowList) admitsAny(registry *clients.Registry) bool {
	for id := range l.exact {
		if registry.Client(id) != nil {
			return true
		}
	}
	if len(l.wildcards) == 0 {
		return false
	}
	for client := range registry.All() {
		if l.admits(client.ID) {
			return true
		}
	}
	return false
}

func (w wildcard) matches(id string) bool {
	first, last := w[0], w[len(w)-1]
	if len(id) < len(first)+len(last) || !strings.HasPrefix(id, first) || !strings.HasSuffix(id, last) {
		return false
	}
	id = id[len(first) : len(id)-len(last)]
	for _, part := range w[1 : len(w)-1] {
		i := strings.Index(id, part)
		if i < 0 {
			return false
		}
		id = id[i+len(part):]
	}
	return true
}

func checkAllow(pattern string) error {
	plain := strings.ReplaceAll(pattern, "*", "")
	if plain == "" && pattern != "" {
		return nil
	}
	if err := clients.CheckID(plain); err != nil {
		return fmt.Errorf("allow '%s': %w", pattern, err)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
