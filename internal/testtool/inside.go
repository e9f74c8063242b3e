package testtool

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Inside is an https server that has a certificate of a private CA, a name that nobody
// resolves, and a proxy that leads to it.
type Inside struct {
	CA *testpki.CA
	// Server answers at its URL, and through the proxy under any name.
	Server *httptest.Server
	// Proxy is the URL of the proxy, without its password.
	Proxy string

	mu     sync.Mutex
	asked  []string
	status int
}

// InsideHost is the name in the server's certificate, besides 127.0.0.1.
const InsideHost = "inside.example"

// NewInside starts the server and the proxy, and sets the environment so that the proxy
// is used, except for direct.invalid. Options change the server's certificate.
func NewInside(t *testing.T, handler http.Handler, opts ...testpki.Option) *Inside {
	t.Helper()
	in := &Inside{CA: testpki.MustCA(t, testpki.CommonName("Intranet CA"))}
	leaf := testpki.MustIssue(t, in.CA, append([]testpki.Option{
		testpki.CommonName("inside"), testpki.EKU(x509.ExtKeyUsageServerAuth), testpki.DNSNames(InsideHost), testpki.IPs(net.IPv4(127, 0, 0, 1)),
	}, opts...)...)
	in.Server = httptest.NewUnstartedServer(handler)
	in.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	in.Server.TLS = &tls.Config{Certificates: []tls.Certificate{leaf.TLS()}}
	in.Server.StartTLS()
	t.Cleanup(in.Server.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { in.serveProxy(handler, w, r) }))
	t.Cleanup(proxy.Close)
	in.Proxy = proxy.URL
	withPassword := strings.Replace(proxy.URL, "http://", "http://proxyuser:SECRET@", 1)
	for name, value := range map[string]string{"HTTPS_PROXY": withPassword, "HTTP_PROXY": withPassword, "NO_PROXY": "direct.invalid"} {
		t.Setenv(name, value)
		t.Setenv(strings.ToLower(name), value)
	}
	return in
}

// serveProxy connects to the server, whatever name is asked for. Plain requests are
// answered here.
func (in *Inside) serveProxy(handler http.Handler, w http.ResponseWriter, r *http.Request) {
	in.mu.Lock()
	in.asked = append(in.asked, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization"))
	status := in.status
	in.mu.Unlock()
	switch {
	case status != 0:
		w.WriteHeader(status)
		return
	case r.Method != http.MethodConnect:
		handler.ServeHTTP(w, r)
		return
	}
	ours, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	theirs, err := net.Dial("tcp", in.Server.Listener.Addr().String())
	if err != nil {
		_ = ours.Close()
		return
	}
	_, _ = io.WriteString(ours, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { _, _ = io.Copy(theirs, ours); _ = theirs.Close() }()
	go func() { _, _ = io.Copy(ours, theirs); _ = ours.Close() }()
}

// Asked returns what the proxy was asked since the last call.
func (in *Inside) Asked() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	defer func() { in.asked = nil }()
	return strings.Join(in.asked, ", ")
}

// RefuseProxy has the proxy answer with this status, or with zero as it should.
func (in *Inside) RefuseProxy(status int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.status = status
}
