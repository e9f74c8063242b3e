package mtlsauth

import (
	"context"
	"net"
	"net/http"
	"testing"
)

// TestProxyAddressWithAZone checks that the zone of a link-local peer address is
// ignored.
func TestProxyAddressWithAZone(t *testing.T) {
	config := ForwardedCertificate{Format: "nginx", From: []string{"fe80::/10", "10.0.0.7"}}
	f, err := config.compile()
	if err != nil {
		t.Fatal(err)
	}
	for peer, want := range map[string]bool{
		"[fe80::1%eth0]:4711": true, "[fe80::1]:4711": true, "[fec0::1%eth0]:4711": false, "[::1%lo]:4711": false,
		"10.0.0.7:4711": true, "[::ffff:10.0.0.7]:4711": true, "[::ffff:10.0.0.7%eth0]:4711": true, "10.0.0.8:4711": false,
		"fe80::1%eth0": false, "@": false, "": false,
	} {
		r, _ := newRequest(nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv6loopback, Port: 443}))
		r.RemoteAddr = peer
		if f.trusts(r) != want {
			t.Errorf("%q is trusted: %t, want %t", peer, !want, want)
		}
	}
}
