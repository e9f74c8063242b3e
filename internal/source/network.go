package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"

	"golang.org/x/net/http/httpproxy"
)

// maxHeader is the size of the largest header of a response, in bytes.
const maxHeader = 64 << 10

// Network is how the servers of documents are reached: which CAs vouch for them, and
// through which proxies. These are the ones that the environment names when the
// Network is made (HTTP_PROXY, HTTPS_PROXY, NO_PROXY). Each request has a connection of
// its own, so that one that hangs does not hold up another. A Network may be used by
// several goroutines at once.
type Network struct {
	proxy     func(*url.URL) (*url.URL, error)
	transport atomic.Pointer[http.Transport]
}

// NewNetwork returns a Network with the CAs that vouch for servers, nil for those of the
// system.
func NewNetwork(roots *x509.CertPool) *Network {
	n := &Network{proxy: httpproxy.FromEnvironment().ProxyFunc()}
	n.SetRoots(roots)
	return n
}

// SetRoots replaces the CAs that vouch for servers.
func (n *Network) SetRoots(roots *x509.CertPool) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	n.transport.Store(&http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return n.proxy(r.URL) },
		Protocols:              protocols,
		OnProxyConnectResponse: checkProxy,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	})
}

// checkProxy names the proxy that refuses a connection.
func checkProxy(_ context.Context, proxy *url.URL, _ *http.Request, response *http.Response) error {
	if response.StatusCode == http.StatusOK {
		return nil
	}
	return fmt.Errorf("the proxy %s of the environment answers %d instead of 200", shown(proxy), response.StatusCode)
}

// RoundTrip implements [http.RoundTripper].
func (n *Network) RoundTrip(r *http.Request) (*http.Response, error) {
	return n.transport.Load().RoundTrip(r)
}
