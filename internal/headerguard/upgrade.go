package headerguard

import (
	"net/http"
	"net/textproto"
	"strings"
)

// stripUpgrade lets a request upgrade to WebSocket and to nothing else. Through
// a connection that became HTTP/2 or another protocol with requests of its own,
// a caller would talk to the upstream directly, with any headers they like.
func stripUpgrade(header http.Header, values []string) {
	if len(values) == 1 && strings.EqualFold(textproto.TrimString(values[0]), "websocket") {
		return
	}
	header.Del("Upgrade")
	header.Del("Http2-Settings")
}

// OpensWebSocket reports whether reverse_proxy takes the request for an extended
// CONNECT to a WebSocket (RFC 8441, RFC 9220). The protocol is in a
// pseudo-header in HTTP/2, and in place of the version in HTTP/3.
func OpensWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 2 && r.Header.Get(":protocol") == "websocket" || r.ProtoMajor == 3 && r.Proto == "websocket"
}
