package mtlsauth

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/authserver"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
	"github.com/caddymtls/caddy-mtls-auth/internal/sites"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// tokenBodyTimeout bounds the time in which a client sends the body of a request.
const tokenBodyTimeout = 10 * time.Second

// IssuerHandler serves the endpoints of a realm's issuer: its metadata
// (RFC 8414), its public keys, the token endpoint, where a client gets an access
// token bound to the certificate it authenticates with (RFC 8705 §3), and the
// endpoints where tokens are introspected (RFC 7662) and revoked (RFC 7009).
// Other paths below `/connect/`, and below `/.well-known/` on the host of
// `mtls_alias`, are answered with 404. Requests to any other path go to the next
// handler.
//
// Paths are those of the request after any rewrite, so the handler does not
// belong inside `handle_path`. Metadata and keys need no certificate.
type IssuerHandler struct {
	// The realm whose issuer is served. Default: `default`.
	Realm string `json:"realm,omitempty"`

	realm *Realm
	timer metrics.Timer
}

// CaddyModule returns the Caddy module information.
func (IssuerHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.mtls_issuer",
		New: func() caddy.Module { return new(IssuerHandler) },
	}
}

// Provision finds the realm.
func (h *IssuerHandler) Provision(ctx caddy.Context) error {
	var err error
	if h.realm, err = realmFor(ctx, h); err != nil {
		return err
	}
	h.timer = metrics.NewTimer(h.realm.name, directiveIssuer)
	metrics.AddRefusals(h.realm.name, directiveIssuer, false, validators.Reasons)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && h.realm.Issuer.isFAPI2() {
		// FAPI 2.0 §5.2.2
		if err := sites.CheckSuites(server, h.realm.issuer.Config.URL, h.realm.issuer.Config.MTLSAlias); err != nil {
			return fmt.Errorf("profile %s: %w", profileFAPI2, err)
		}
	}
	h.realm.app.warnAboutSites(ctx)
	return nil
}

func (h *IssuerHandler) realmName() string { return cmp.Or(h.Realm, defaultRealm) }

func (h *IssuerHandler) checkRealm(realm *Realm) error {
	if realm.Issuer == nil {
		return fmt.Errorf("realm '%s' has no issuer; add 'issuer <https-url>' to it", realm.name)
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *IssuerHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	issuer := h.realm.current.Load().issuer
	endpoint := issuer.Endpoint(r.Host, r.URL.Path)
	if endpoint == tokens.EndpointNone && !issuer.Owns(r.Host, r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	start, body := metrics.Now(), &metrics.Body{ReadCloser: r.Body}
	r.Body = body
	if span := startSpan(r, directiveIssuer, h.realm); span != nil {
		defer span.End()
		r = withSpan(r, span)
	}
	err := h.serve(w, r, issuer, endpoint)
	h.timer.Observe(start, body)
	return err
}

// serve answers a request to a path of the issuer.
func (h *IssuerHandler) serve(w http.ResponseWriter, r *http.Request, issuer *tokens.Issuer, endpoint tokens.EndpointKind) error {
	switch endpoint {
	case tokens.EndpointMetadata:
		return h.servePublic(w, r, issuer.Metadata())
	case tokens.EndpointJWKS:
		jwks, failure := issuer.JWKS(r.Context())
		if failure != nil {
			h.refuseToken(w, r, reporter.Refused{}, failure)
			return nil
		}
		return h.servePublic(w, r, jwks)
	case tokens.EndpointToken:
		h.serveToken(w, r)
		return nil
	case tokens.EndpointIntrospection:
		h.serveIntrospection(w, r)
		return nil
	case tokens.EndpointRevocation:
		h.serveRevocation(w, r)
		return nil
	}
	// somebody else's 200 would be taken for an answer
	return caddyhttp.Error(http.StatusNotFound, errors.New("not_found"))
}

// servePublic serves a document that needs no certificate. It may be cached, but for
// a shorter time than a key is announced.
func (h *IssuerHandler) servePublic(w http.ResponseWriter, r *http.Request, document keyring.Document) error {
	if refusal := h.realm.app.refuseEnded(); refusal != nil {
		h.refuseClient(w, r, nil, identity{}, refusal)
		return nil
	}
	header := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		return caddyhttp.Error(http.StatusMethodNotAllowed, errors.New("method_not_allowed"))
	}
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(h.realm.issuer.Keys.MaxAge().Seconds())))
	header.Set("Etag", document.ETag)
	r.Header.Del("Range") // as many ranges as fit into a header make a long answer of a short document
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document.Body))
	return nil
}

// identifyCaller returns the certificates of a request, before its body is read.
// If there is nothing to authenticate, or only what has been refused already, it
// answers and ok is false.
func (h *IssuerHandler) identifyCaller(w http.ResponseWriter, r *http.Request) (presented []*x509.Certificate, ok bool) {
	if earlyData(r) {
		h.refuseToken(w, r, reporter.Refused{}, &tokens.Error{
			Status: http.StatusTooEarly, Code: tokens.CodeInvalidRequest, Description: "the request came before the end of the TLS handshake; send it again",
		})
		return nil, false
	}
	// HTTP/1.1 answers no earlier than the body ends, so this bounds a refusal too
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(tokenBodyTimeout))
	presented, refusal := stateOf(h.realm.app, r).certificates(h.realm, r)
	var id identity
	if refusal == nil && h.realm.current.Load().Refuses(presented) {
		id, refusal = h.realm.authenticate(r.Context(), presented, "")
	}
	// a stranger could send the body of a POST for ever; any other method is
	// refused as such
	if refusal != nil && r.Method == http.MethodPost {
		h.refuseClient(w, r, presented, id, refusal)
		return nil, false
	}
	return presented, true
}

// chooseClient authenticates the client that the body of a request names
// (RFC 8705 §2). If that fails, it answers and ok is false.
func (h *IssuerHandler) chooseClient(w http.ResponseWriter, r *http.Request, presented []*x509.Certificate, clientID string) (id identity, ok bool) {
	// the body is here, and what follows may take its time
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	id, refusal := h.realm.authenticate(r.Context(), presented, clientID)
	if refusal != nil {
		h.refuseClient(w, r, presented, id, refusal)
		return id, false
	}
	h.realm.metrics.Certificates.Count("")
	h.realm.noteAdmitted(&id.Identity)
	noteSpan(r, "ok", id.Client().ID, "")
	stateOf(h.realm.app, r).repl.Set(userIDPlaceholder, id.Client().ID)
	return id, true
}

// serveToken answers a token request (RFC 6749 §4.4.2, RFC 8705 §2).
func (h *IssuerHandler) serveToken(w http.ResponseWriter, r *http.Request) {
	presented, ok := h.identifyCaller(w, r)
	if !ok {
		return
	}
	request, failure := tokens.ParseTokenRequest(r)
	if failure != nil {
		h.refuseToken(w, r, reporter.Refused{ClientID: request.ClientID, Claimed: true}, failure)
		return
	}
	id, ok := h.chooseClient(w, r, presented, request.ClientID)
	if !ok {
		return
	}
	var token *tokens.TokenResponse
	grant, failure := authserver.GrantFor(&id.Identity)
	if failure == nil {
		token, failure = id.decidedBy.issuer.Mint(r.Context(), &grant, request)
	}
	switch {
	case failure == nil:
	case errors.Is(failure, tokens.ErrCertificateExpired):
		h.refuseClient(w, r, presented, id, &validators.Refusal{Reason: validators.CertificateExpired, Detail: failure.Cause.Error()})
		return
	default:
		h.refuseToken(w, r, reporter.Refused{ClientID: id.Client().ID}, failure)
		return
	}
	h.realm.metrics.TokensIssued.Inc()
	h.realm.events.TokenIssued(&id.Identity, token, reporter.RemoteIP(r), r.Host)
	w = h.realm.expiry.withDaysLeft(w, id.Leaf, h.realm.app.Now)
	h.realm.issuer.Denied.Remember(&id.Identity, presented, id.decidedBy.trust.Pool, h.realm.app.Now())
	tokens.WriteToken(w, token)
}

// serveIntrospection answers an introspection request (RFC 7662 §2).
func (h *IssuerHandler) serveIntrospection(w http.ResponseWriter, r *http.Request) {
	query, id, ok := h.tokenQuery(w, r)
	if !ok {
		return
	}
	client := id.Client()
	answer, failure := id.decidedBy.issuer.Introspect(r.Context(), tokens.Introspector{ClientID: client.ID, Resources: client.Introspect}, query.Token)
	if failure != nil {
		h.refuseToken(w, r, reporter.Refused{ClientID: client.ID}, failure)
		return
	}
	if answer.Token != nil {
		h.realm.metrics.Active.Inc()
	} else {
		h.realm.metrics.Inactive.Inc()
		h.logToken(r, "token inactive", client.ID, "", answer.Cause)
	}
	tokens.WriteIntrospection(w, answer)
}

// serveRevocation answers a revocation request (RFC 7009 §2).
func (h *IssuerHandler) serveRevocation(w http.ResponseWriter, r *http.Request) {
	query, id, ok := h.tokenQuery(w, r)
	if !ok {
		return
	}
	client := id.Client()
	result, failure := id.decidedBy.issuer.Revoke(r.Context(), client.ID, query.Token)
	if failure != nil {
		h.refuseToken(w, r, reporter.Refused{ClientID: client.ID}, failure)
		return
	}
	if result.Cause == nil {
		h.realm.metrics.Revoked.Inc()
		h.logToken(r, "token revoked", client.ID, result.TokenID, nil)
	} else {
		h.realm.metrics.RevocationIgnored.Inc()
		h.logToken(r, "no token revoked", client.ID, "", result.Cause)
	}
	tokens.WriteRevoked(w)
}

// tokenQuery reads a request about a token and authenticates its sender. If that
// fails, it answers and ok is false.
func (h *IssuerHandler) tokenQuery(w http.ResponseWriter, r *http.Request) (query tokens.TokenQuery, id identity, ok bool) {
	presented, ok := h.identifyCaller(w, r)
	if !ok {
		return query, id, false
	}
	query, failure := tokens.ParseTokenQuery(r)
	if failure != nil {
		h.refuseToken(w, r, reporter.Refused{ClientID: query.ClientID, Claimed: true}, failure)
		return query, id, false
	}
	id, ok = h.chooseClient(w, r, presented, query.ClientID)
	return query, id, ok
}

// logToken logs the outcome of a request about a token. The line never contains the
// token.
func (h *IssuerHandler) logToken(r *http.Request, message, clientID, tokenID string, cause error) {
	entry := h.realm.logger.Check(zap.InfoLevel, message)
	if entry == nil {
		return
	}
	fields := []zap.Field{zap.String("client_id", clientID), zap.String("remote_ip", reporter.RemoteIP(r)), zap.String("uri", r.URL.Path)}
	if tokenID != "" {
		fields = append(fields, zap.String("jti", tokenID))
	}
	if refusal := new(tokens.TokenError); errors.As(cause, &refusal) {
		fields = append(fields, zap.String("reason", string(refusal.Reason)), zap.String("detail", refusal.Detail))
	}
	entry.Write(fields...)
}

// refuseClient answers a request whose client is not authenticated. The response is
// the same for every reason but a missing certificate. It is a 401, which has a
// challenge, only where an RFC demands it: OAuth libraries do not read the error of a
// 401, or mistake the challenge for a different protocol.
func (h *IssuerHandler) refuseClient(w http.ResponseWriter, r *http.Request, presented []*x509.Certificate, id identity, refusal *validators.Refusal) {
	h.realm.metrics.Certificates.Count(refusal.Reason)
	failure, refusal := h.clientFailure(r, refusal)
	h.realm.metrics.CountTokenError(failure.Code)
	errorID := caddyhttp.Error(failure.Status, errors.New(failure.Code)).ID
	noteSpan(r, string(refusal.Reason), "", errorID)
	logRefusal(h.realm, r, reporter.Refused{Directive: directiveIssuer, Message: "client refused", Refusal: refusal, Presented: presented, Notes: id.Notes, ClientID: id.registeredID(), ErrorID: errorID})
	tokens.WriteError(w, failure, errorID)
}

// clientFailure returns the response to a client that is not authenticated, and the
// refusal for the log. A client without a certificate at the issuer's own host may have
// overlooked that mtls_alias is on another.
func (h *IssuerHandler) clientFailure(r *http.Request, refusal *validators.Refusal) (*tokens.Error, *validators.Refusal) {
	issuer, description := h.realm.current.Load().issuer, "client authentication failed"
	switch refusal.Reason {
	case validators.ConfigurationEnded:
		failure := tokens.NewError(tokens.CodeTemporarilyUnavailable, "the server has a new configuration, try again on a new connection")
		failure.Header = http.Header{"Retry-After": {retryAfter}}
		return failure, refusal
	case validators.CertificateMissing:
		description = "no client certificate was presented"
		if alias := issuer.AliasFor(r.Host); alias != "" {
			refusal = refuse(refusal.Reason, "%s; this host may not ask for one: clients find %s in the mtls_endpoint_aliases of the metadata", refusal.Detail, alias)
		}
	}
	introspection := issuer.Endpoint(r.Host, r.URL.Path) == tokens.EndpointIntrospection
	return tokens.InvalidClient(description, introspection || len(r.Header["Authorization"]) > 0), refusal
}

// refuseToken answers a request that fails for any other reason than the client's
// authentication, and logs why. from says which client sent it.
func (h *IssuerHandler) refuseToken(w http.ResponseWriter, r *http.Request, from reporter.Refused, failure *tokens.Error) {
	h.realm.metrics.CountTokenError(failure.Code)
	errorID := caddyhttp.Error(failure.Status, errors.New(failure.Code)).ID
	from.Directive, from.Message, from.Refusal, from.ErrorID = directiveIssuer, "token request refused", tokenFailure(failure), errorID
	noteSpan(r, failure.Code, "", errorID)
	logRefusal(h.realm, r, from)
	tokens.WriteError(w, failure, errorID)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*IssuerHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*IssuerHandler)(nil)
)
