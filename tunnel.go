package mtlsauth

import (
	"errors"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// connectAllow are the methods that a caller may use who tried CONNECT.
const connectAllow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

var errTunnel = errors.New("connect_refused")

// stripUpgrade lets a request upgrade to WebSocket and to nothing else. Through
// a connection that became HTTP/2 or another protocol with requests of its own,
// a caller would talk to the API directly, with any headers it likes.
func stripUpgrade(header http.Header, values []string) {
	if len(values) == 1 && strings.EqualFold(textproto.TrimString(values[0]), "websocket") {
		return
	}
	header.Del("Upgrade")
	header.Del("Http2-Settings")
}

// refuseTunnel refuses CONNECT, whoever comes with it, unless it asks for a
// WebSocket (RFC 8441, RFC 9220), which reverse_proxy makes a GET. Of any other
// it writes the body to the API as it is: to an API that takes CONNECT for a
// request without a body, that is the caller's next request, with any headers.
// The body goes, for an error route may proxy the request too.
func (a *App) refuseTunnel(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodConnect || opensWebSocket(r) {
		return nil
	}
	r.Body, r.ContentLength, r.Trailer = http.NoBody, 0, nil
	failure := caddyhttp.Error(http.StatusMethodNotAllowed, errTunnel)
	a.logger.Warn("tunnel refused", zap.String("remote_ip", remoteIP(r)), zap.String("host", r.Host), zap.String("error_id", failure.ID))
	w.Header().Set("Allow", connectAllow)
	return failure
}

// opensWebSocket reports what reverse_proxy takes for an extended CONNECT: the
// protocol is in a pseudo-header of HTTP/2, and where the version is of HTTP/3.
func opensWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 2 && r.Header.Get(":protocol") == "websocket" || r.ProtoMajor == 3 && r.Proto == "websocket"
}
