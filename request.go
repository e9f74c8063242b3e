package mtlsauth

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/problem"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	requestVar = "mtls_request"
	// removedVar names a removed header in which proxies usually forward certificates.
	// It is not part of the request's state, because hardly any request has one.
	removedVar        = "mtls_removed_header"
	placeholderPrefix = "http.mtls."
	claimPrefix       = "claim."
	userIDPlaceholder = "http.auth.user.id"
)

// identity is the outcome of authentication in a realm. The zero identity is
// nobody.
type identity struct {
	authn.Identity
	// decidedBy is the snapshot that decided, also where a refusal came out. The
	// client's grant is looked up there and not in a newer one.
	decidedBy *snapshot
}

// registeredID returns the client's identifier, or "" for nobody.
func (id identity) registeredID() string {
	if client := id.Client(); client != nil {
		return client.ID
	}
	return ""
}

// requestState is what the directives of this module know about a request, which may
// pass through several of them.
type requestState struct {
	repl *caddy.Replacer
	// strippedBy is the guard that removed headers last, or nil
	strippedBy *headerguard.Guard
	identity   identity
	realm      *Realm
	// refused is why the last directive refused the request, or nil
	refused *validators.Refusal

	// bearer is the identity of an admitted token, or nil
	bearer *bearerIdentity
	// authorization is the Authorization header as the caller sent it
	authorization []string

	// proxyHeaders are the headers in which proxies forward certificates, as they
	// were before a directive removed them
	proxyHeaders http.Header
	// the outcome of authentication in the realm that was asked last
	asked     *Realm
	presented []*x509.Certificate
	found     identity
	refusal   *validators.Refusal
}

// stateOf returns the request's state. The first call creates it and registers the
// placeholders.
func stateOf(app *App, r *http.Request) *requestState {
	ctx := r.Context()
	if state, ok := caddyhttp.GetVar(ctx, requestVar).(*requestState); ok {
		return state
	}
	state := &requestState{repl: ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer), authorization: r.Header["Authorization"]}
	state.repl.Map(state.placeholder)
	for _, name := range app.proxyHeaders {
		if values, ok := r.Header[name]; ok {
			if state.proxyHeaders == nil {
				state.proxyHeaders = make(http.Header)
			}
			state.proxyHeaders[name] = values
		}
	}
	caddyhttp.SetVar(ctx, requestVar, state)
	return state
}

// certificates returns the certificates that identify the caller in a realm, leaf
// first: those of the connection or, where a proxy that the realm trusts has ended
// TLS, those in its headers alone.
func (s *requestState) certificates(realm *Realm, r *http.Request) ([]*x509.Certificate, *validators.Refusal) {
	if refusal := realm.app.refuseEnded(); refusal != nil {
		return nil, refusal // before a proxy's word that there is no certificate counts
	}
	switch {
	case realm.proxyCertificates.trusts(r):
		return realm.proxyCertificates.parse(s.proxyHeaders)
	case r.TLS == nil:
		return nil, nil
	}
	return r.TLS.PeerCertificates, nil
}

// earlyData reports whether the request was sent before the handshake proved
// that the peer holds its key (RFC 8470).
func earlyData(r *http.Request) bool {
	return r.TLS != nil && !r.TLS.HandshakeComplete
}

// identify authenticates the caller in a realm. If the same realm is asked again, the
// outcome is remembered.
func (s *requestState) identify(realm *Realm, r *http.Request) (identity, *validators.Refusal) {
	if s.asked != realm {
		s.asked, s.found = realm, identity{}
		if s.presented, s.refusal = s.certificates(realm, r); s.refusal == nil {
			s.found, s.refusal = realm.authenticate(r.Context(), s.presented, "")
		}
		if s.refusal != nil && s.refusal.Reason == validators.CertificateMissing && r.TLS == nil && realm.proxyCertificates == nil {
			s.refusal = refuse(validators.CertificateMissing, "no certificate was presented, because plain HTTP has none; serve the site over HTTPS")
		}
	}
	return s.found, s.refusal
}

// clear removes the identity that an earlier directive set.
func (s *requestState) clear() {
	if s.clientID() != "" {
		s.repl.Delete(userIDPlaceholder)
	}
	s.identity, s.bearer, s.realm, s.refused = identity{}, nil, nil, nil
}

// admit makes an identity known to the handlers that follow: that of a certificate, or
// that of a token unless bearer is nil.
func (s *requestState) admit(realm *Realm, id identity, bearer *bearerIdentity) {
	s.realm, s.identity, s.bearer = realm, id, bearer
	s.repl.Set(userIDPlaceholder, s.clientID())
}

// clientID returns the client that was admitted last, or "".
func (s *requestState) clientID() string {
	if s.bearer != nil {
		return s.bearer.clientID
	}
	return s.identity.registeredID()
}

// leaf returns the certificate of the caller that was admitted last, or nil.
func (s *requestState) leaf() *x509.Certificate {
	if s.bearer != nil {
		return s.bearer.leaf
	}
	return s.identity.Leaf
}

// connectAllow lists the methods that a caller of CONNECT may use instead.
const connectAllow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

// refuseUnsafe refuses what not even an admitted client may send, before anybody is
// asked who the caller is.
func (s *requestState) refuseUnsafe(realm *Realm, directive string, w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.Method == http.MethodConnect && !headerguard.OpensWebSocket(r):
		return s.refuseTunnel(realm, directive, w, r)
	case earlyData(r):
		// the caller has not proved yet whose certificate this is
		return s.refuseAs(reporter.Refused{Directive: directive, Message: "early data refused", Refusal: refuse(validators.TooEarly, "the request came before the end of the TLS handshake")},
			realm, r, http.StatusTooEarly)
	}
	return nil
}

// refuseTunnel refuses CONNECT unless it opens a WebSocket (RFC 8441, RFC 9220), which
// reverse_proxy turns into a GET. With any other CONNECT, reverse_proxy writes the body
// to the upstream as it is. An upstream that ignores the body of a CONNECT then reads it
// as the caller's next request, with any headers. refuseTunnel also drops the body,
// because an error route may proxy the request too. It ends a connection of HTTP/1,
// because a proxy in front may have written the body of its caller's CONNECT there in the
// same way.
func (s *requestState) refuseTunnel(realm *Realm, directive string, w http.ResponseWriter, r *http.Request) error {
	r.Body, r.ContentLength, r.Trailer = http.NoBody, 0, nil
	w.Header().Set("Allow", connectAllow)
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	presented, _ := s.certificates(realm, r)
	return s.refuseAs(reporter.Refused{Directive: directive, Message: "tunnel refused", Refusal: refuse(validators.ConnectRefused, "the method is CONNECT, and the request opens no WebSocket"), Presented: presented},
		realm, r, http.StatusMethodNotAllowed)
}

// refuseAs reports a refusal whose reason the caller gets, and returns it.
func (s *requestState) refuseAs(refused reporter.Refused, realm *Realm, r *http.Request, status int) error {
	s.refused = refused.Refusal
	failure := caddyhttp.Error(status, problem.Word(refused.Refusal.Reason))
	refused.ErrorID = failure.ID
	logRefusal(realm, r, refused)
	return failure
}

// placeholder resolves every {http.mtls.*} placeholder, to "" if it has no value, so
// that none reaches an upstream verbatim.
func (s *requestState) placeholder(key string) (any, bool) {
	name, ok := strings.CutPrefix(key, placeholderPrefix)
	if !ok {
		return nil, false
	}
	return s.text(name), true
}

// text returns the value of a placeholder.
func (s *requestState) text(name string) string {
	if name == "error" {
		if s.refused == nil {
			return ""
		}
		return string(s.refused.Reason)
	}
	if s.bearer != nil {
		return s.bearer.value(name)
	}
	client := s.identity.Client()
	if client == nil {
		return ""
	}
	switch name {
	case "client_id":
		return client.ID
	case "realm":
		return s.realm.name
	case "scope":
		return client.Scope()
	case "credential":
		return string(s.identity.Credential.Kind)
	case "matched":
		return headerguard.EscapeNonASCII(s.identity.Matched)
	case "thumbprint":
		return s.identity.Thumbprint
	}
	if claim, ok := strings.CutPrefix(name, claimPrefix); ok {
		return client.ClaimText(claim)
	}
	return certificateText(s.identity.Leaf, name)
}

// certificateText returns the value of a placeholder about a certificate.
func certificateText(leaf *x509.Certificate, name string) string {
	switch name {
	case "subject":
		return headerguard.EscapeNonASCII(dn.Format(leaf.RawSubject))
	case "subject_legacy":
		return dn.FormatLegacy(leaf.RawSubject)
	case "issuer":
		return headerguard.EscapeNonASCII(dn.Format(leaf.RawIssuer))
	case "issuer_legacy":
		return dn.FormatLegacy(leaf.RawIssuer)
	case "serial":
		return serialDigits(leaf.SerialNumber)
	case "not_before":
		return leaf.NotBefore.UTC().Format(time.RFC3339)
	case "not_after":
		return leaf.NotAfter.UTC().Format(time.RFC3339)
	case "fingerprint_sha256":
		return validators.ThumbprintOf(leaf.Raw).String()
	case "fingerprint_sha1":
		return validators.SHA1ThumbprintOf(leaf.Raw).String()
	}
	return ""
}

// serialDigits returns a serial number as OpenSSL prints it: pairs of upper-case
// hexadecimal digits.
func serialDigits(serial *big.Int) string {
	if serial.Sign() == 0 {
		return "00"
	}
	return fmt.Sprintf("%X", serial.Bytes())
}
