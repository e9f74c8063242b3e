package mtlsauth

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/problem"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

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
		return s.refuseAs(refusedRequest{directive: directive, message: "early data refused", refusal: refuse(validators.TooEarly, "the request came before the end of the TLS handshake")},
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
	return s.refuseAs(refusedRequest{directive: directive, message: "tunnel refused", refusal: refuse(validators.ConnectRefused, "the method is CONNECT, and the request opens no WebSocket"), presented: presented},
		realm, r, http.StatusMethodNotAllowed)
}

// refuseAs reports a refusal whose reason the caller gets, and returns it.
func (s *requestState) refuseAs(refused refusedRequest, realm *Realm, r *http.Request, status int) error {
	s.refused = refused.refusal
	failure := caddyhttp.Error(status, problem.Word(refused.refusal.Reason))
	refused.errorID = failure.ID
	logRefusal(realm, r, refused)
	return failure
}
