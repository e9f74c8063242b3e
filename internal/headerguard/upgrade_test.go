package headerguard

import (
	"maps"
	"net/http"
	"slices"
	"testing"
)

// TestStripUpgrade_D6 checks that only a single upgrade to WebSocket is left.
func TestStripUpgrade_D6(t *testing.T) {
	for _, test := range []struct {
		upgrade []string
		left    bool
	}{
		{[]string{"websocket"}, true},
		{[]string{" WebSocket "}, true},
		{[]string{"h2c"}, false},
		{[]string{"websocket, h2c"}, false},
		{[]string{"websocket", "h2c"}, false},
		{[]string{"websocket", "websocket"}, false},
		{[]string{""}, false},
	} {
		r := &http.Request{Header: http.Header{"Upgrade": test.upgrade, "Http2-Settings": {"AAMAAABk"}, "Accept": {"*/*"}}}
		want := http.Header{"Accept": {"*/*"}}
		if test.left {
			want = maps.Clone(r.Header)
		}
		defaultGuard.Strip(r)
		if !maps.EqualFunc(r.Header, want, slices.Equal[[]string]) {
			t.Errorf("Upgrade %q: left are %v, want %v", test.upgrade, r.Header, want)
		}
	}
}

// TestOpensWebSocket_D6 checks which requests reverse_proxy takes for a WebSocket.
func TestOpensWebSocket_D6(t *testing.T) {
	for _, test := range []struct {
		name string
		r    http.Request
		want bool
	}{
		{"HTTP/2", http.Request{ProtoMajor: 2, Header: http.Header{":protocol": {"websocket"}}}, true},
		{"HTTP/2, another protocol", http.Request{ProtoMajor: 2, Header: http.Header{":protocol": {"connect-udp"}}}, false},
		{"HTTP/2, none", http.Request{ProtoMajor: 2}, false},
		{"HTTP/2, as in HTTP/3", http.Request{ProtoMajor: 2, Proto: "websocket"}, false},
		{"HTTP/3", http.Request{ProtoMajor: 3, Proto: "websocket"}, true},
		{"HTTP/3, as in HTTP/2", http.Request{ProtoMajor: 3, Proto: "HTTP/3.0", Header: http.Header{":protocol": {"websocket"}}}, false},
		{"HTTP/1.1", http.Request{ProtoMajor: 1, Header: http.Header{":protocol": {"websocket"}}}, false},
	} {
		if got := OpensWebSocket(&test.r); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}
