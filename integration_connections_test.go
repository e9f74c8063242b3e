package mtlsauth

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// connections counts the connections that a caller opens to a host.
type connections struct {
	c    *caller
	host string
	n    atomic.Int64
}

// connectionsTo has to be called before the caller's first request.
func (c *caller) connectionsTo(host string) *connections {
	counted := &connections{c: c, host: host}
	count := func(address string) {
		if strings.HasPrefix(address, host+":") {
			counted.n.Add(1)
		}
	}
	switch transport := c.rt.(type) {
	case *http.Transport:
		dial := transport.DialContext
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			count(address)
			return dial(ctx, network, address)
		}
	case *http3.Transport:
		dial := transport.Dial
		transport.Dial = func(ctx context.Context, address string, tlsConfig *tls.Config, config *quic.Config) (*quic.Conn, error) {
			count(address)
			return dial(ctx, address, tlsConfig, config)
		}
	}
	return counted
}

// wantOne fails the test unless all requests so far went over one connection.
func (counted *connections) wantOne(t *testing.T) {
	t.Helper()
	if n := counted.n.Load(); n != 1 {
		t.Errorf("%s: %d connections to %s, so who was refused had come over another", counted.c.protocol, n, counted.host)
	}
}
