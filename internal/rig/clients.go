package rig

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Caller is an HTTP client with or without a certificate.
type Caller struct {
	T        *testing.T
	Protocol string
	Tls      *tls.Config
	Rt       http.RoundTripper
	Network  string // dialled together with Address, instead of the URL's host
	Address  string
	Early    bool // sends early data if the server accepts it
	Always   []func(*http.Request)
}

// Caller returns a client that speaks one version of HTTP. It connects to Caddy
// whatever the URL's host, trusts the server's CA and presents leaf, unless that
// is nil, even if the server does not name its CA.
func (r *Rig) Caller(t *testing.T, protocol string, leaf *testpki.Leaf) *Caller {
	t.Helper()
	c := r.Connect(protocol, leaf)
	c.T = t
	t.Cleanup(c.Close)
	return c
}

// Connect is like [Rig.Caller], for callers that come and go within a test: close each
// of them, and send its requests with [Caller.Try].
func (r *Rig) Connect(protocol string, leaf *testpki.Leaf) *Caller {
	c := &Caller{Protocol: protocol, Tls: r.TLSConfig(leaf), Network: "tcp", Address: "127.0.0.1:" + r.HTTPS}
	if protocol == "h3" {
		transport := &http3.Transport{
			TLSClientConfig:    c.Tls,
			DisableCompression: true,
			// with keep-alive packets, a connection that the server forgot is told from one that waits
			QUICConfig: &quic.Config{MaxIncomingStreams: -1, HandshakeIdleTimeout: 20 * time.Second, MaxIdleTimeout: 20 * time.Second, KeepAlivePeriod: 5 * time.Second},
			Dial: func(ctx context.Context, _ string, tlsConfig *tls.Config, config *quic.Config) (*quic.Conn, error) {
				if c.Early {
					return quic.DialAddrEarly(ctx, c.Address, tlsConfig, config)
				}
				return dialH3(ctx, c.Address, tlsConfig, config)
			},
		}
		c.Rt = transport
		return c
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(protocol == "h1")
	protocols.SetHTTP2(protocol == "h2")
	transport := &http.Transport{
		TLSClientConfig:    c.Tls,
		Protocols:          protocols,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, c.Network, c.Address)
		},
	}
	c.Rt = transport
	return c
}

// Plain returns an HTTP/1.1 client without TLS.
func (r *Rig) Plain(t *testing.T) *Caller {
	t.Helper()
	c := r.Caller(t, "h1", nil)
	c.Address = "127.0.0.1:" + r.HTTP
	return c
}

// Close closes the caller's connections before the test ends.
func (c *Caller) Close() {
	switch transport := c.Rt.(type) {
	case *http3.Transport:
		_ = transport.Close()
	case *http.Transport:
		transport.CloseIdleConnections()
	}
}

// TLSConfig returns a configuration that trusts the server and presents the leaf,
// unless it is nil.
func (r *Rig) TLSConfig(leaf *testpki.Leaf) *tls.Config {
	config := &tls.Config{RootCAs: r.ServerCA.Pool(), MinVersion: tls.VersionTLS12}
	if leaf != nil {
		certificate := leaf.TLS()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &certificate, nil
		}
	}
	return config
}

// Reply is a response that has been read to its end.
type Reply struct {
	Status  int
	Header  http.Header
	Body    string
	Seen    *SeenRequest // nil if the upstream did not answer
	ErrorID string
}

// With sets a request header in the given spelling.
func With(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = values }
}

// WithBody sets the request's body.
func WithBody(contentType, body string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body = io.NopCloser(strings.NewReader(body))
		r.ContentLength = int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
	}
}

// Get sends a GET request. It ends the test if there is no response.
func (c *Caller) Get(url string, options ...func(*http.Request)) Reply {
	c.T.Helper()
	return c.Do(http.MethodGet, url, options...)
}

// Do sends a request. It ends the test if there is no response.
func (c *Caller) Do(method, url string, options ...func(*http.Request)) Reply {
	c.T.Helper()
	got, err := c.Try(method, url, options...)
	if err != nil {
		c.T.Fatalf("%s %s over %s: %v", method, url, c.Protocol, err)
	}
	return got
}

// Try is like Do, for a request that may fail without a response.
func (c *Caller) Try(method, url string, options ...func(*http.Request)) (Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return Reply{}, err
	}
	for _, option := range slices.Concat(c.Always, options) {
		option(request)
	}
	response, err := c.Rt.RoundTrip(request)
	if err != nil {
		return Reply{}, err
	}
	defer response.Body.Close()
	if want := int(c.Protocol[1] - '0'); response.ProtoMajor != want {
		return Reply{}, fmt.Errorf("the response is %s", response.Proto)
	}
	return ReadReply(response)
}

// MayReopen reports whether a request that failed while the configuration was replaced is to
// be sent again, on another connection. open is what [Reused] has found.
//
// When Caddy closes the old socket, the operating system resets the connections in its
// queue, and Go's server closes those it has just accepted. A connection of HTTP/3 may also
// time out while it is being opened, be one that is going away, or be one that the server
// has ended, if the packet that said so was lost.
func (c *Caller) MayReopen(err error, open bool) bool {
	if c.Protocol != "h3" {
		return !open
	}
	var rejected *http3.Error // HTTP/3 itself marks the request as safe to send again
	var handshake *quic.HandshakeTimeoutError
	var idle *quic.IdleTimeoutError
	return errors.As(err, &rejected) && rejected.ErrorCode == http3.ErrCodeRequestRejected || errors.As(err, &handshake) || errors.As(err, &idle) ||
		strings.HasPrefix(err.Error(), "http3: conn unusable:") // nothing was sent
}

// ReadReply reads a response to its end.
func ReadReply(response *http.Response) (Reply, error) {
	body, err := io.ReadAll(response.Body)
	got := Reply{Status: response.StatusCode, Header: response.Header, Body: string(body)}
	if err != nil {
		return got, err
	}
	if response.Header.Get("X-Upstream") != "" {
		got.Seen = new(SeenRequest)
		if err := json.Unmarshal(body, got.Seen); err != nil {
			return got, err
		}
	}
	_, rest, _ := strings.Cut(response.Header.Get("WWW-Authenticate"), `error_id="`)
	got.ErrorID, _, _ = strings.Cut(rest, `"`)
	if _, rest, found := strings.Cut(got.Body, "(error id: "); found {
		got.ErrorID, _, _ = strings.Cut(rest, ")")
	}
	return got, nil
}

// WantStatus fails the test unless the response has the status.
func (got Reply) WantStatus(t *testing.T, status int) Reply {
	t.Helper()
	if got.Status != status {
		t.Errorf("status %d, want %d; body %.300q, WWW-Authenticate %q", got.Status, status, got.Body, got.Header.Get("WWW-Authenticate"))
	}
	return got
}

// WantClient fails the test unless the request reached the upstream with exactly
// this client ID, or without any if id is "".
func (got Reply) WantClient(t *testing.T, id string) Reply {
	t.Helper()
	if got.Seen == nil {
		t.Fatalf("the request did not reach the upstream: %d %.300q", got.Status, got.Body)
	}
	told := got.Seen.Header["X-Client-Id"]
	if id == "" && len(told) == 0 || len(told) == 1 && told[0] == id && id != "" {
		return got
	}
	t.Errorf("the upstream got client %q, want %q", told, id)
	return got
}

// WantRefused fails the test unless mtls_auth refused the request with this status
// and word.
func (got Reply) WantRefused(t *testing.T, realm string, status int, word string) Reply {
	t.Helper()
	got.WantStatus(t, status)
	if got.Seen != nil {
		t.Errorf("the request reached the upstream with %v", got.Seen.Header)
	}
	challenge := got.Header.Values("WWW-Authenticate")
	if status == http.StatusForbidden {
		if len(challenge) > 0 {
			t.Errorf("the 403 response has the challenge %q", challenge)
		}
		return got
	}
	want := fmt.Sprintf(`ClientCertificate realm="%s", error="%s", error_id="%s"`, realm, word, got.ErrorID)
	if len(challenge) != 1 || challenge[0] != want || got.ErrorID == "" {
		t.Errorf("WWW-Authenticate is %q, want %q with an error id", challenge, want)
	}
	return got
}

// RawTLS is an HTTP/1.1 connection on which a test writes arbitrary text.
type RawTLS struct {
	t    *testing.T
	Conn net.Conn
	In   *bufio.Reader
}

// Raw opens a TLS connection for requests that no HTTP client would send.
func (r *Rig) Raw(t *testing.T, leaf *testpki.Leaf, serverName string) *RawTLS {
	t.Helper()
	config := r.TLSConfig(leaf)
	config.ServerName, config.NextProtos = serverName, []string{"http/1.1"}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+r.HTTPS, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(Patience))
	return &RawTLS{t: t, Conn: conn, In: bufio.NewReader(conn)}
}

// Send writes a request, with \r\n for each \n, and reads the response.
func (c *RawTLS) Send(request string) Reply {
	c.t.Helper()
	c.Write(request)
	response, err := http.ReadResponse(c.In, nil)
	if err != nil {
		c.t.Fatalf("reading the response to %.200q: %v", request, err)
	}
	defer response.Body.Close()
	got, err := ReadReply(response)
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

// Write sends text, with \r\n for each \n.
func (c *RawTLS) Write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

// Connections counts the connections that a caller opens to a host.
type Connections struct {
	c    *Caller
	host string
	N    atomic.Int64
}

// ConnectionsTo starts counting connections. It must be called before the
// caller's first request.
func (c *Caller) ConnectionsTo(host string) *Connections {
	counted := &Connections{c: c, host: host}
	count := func(address string) {
		if strings.HasPrefix(address, host+":") {
			counted.N.Add(1)
		}
	}
	switch transport := c.Rt.(type) {
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

// WantOne fails the test unless all requests so far used one connection.
func (counted *Connections) WantOne(t *testing.T) {
	t.Helper()
	if n := counted.N.Load(); n != 1 {
		t.Errorf("%s: %d connections to %s, want one, shared by refused and admitted requests", counted.c.Protocol, n, counted.host)
	}
}

// WantReason fails the test unless mtls_auth refused the request for this reason.
func (r *Rig) WantReason(t *testing.T, got Reply, reason string) {
	t.Helper()
	got.WantRefused(t, "default", http.StatusUnauthorized, Refused)
	if entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID); entry.Str("reason") != reason {
		t.Errorf("the reason is %q (%s), want %q", entry["reason"], entry["detail"], reason)
	}
}

// Sameness returns the parts of a response that do not vary between requests.
func Sameness(got Reply) string {
	header := got.Header.Clone()
	header.Del("Date")
	header.Del("Alt-Svc") // Caddy sends it once HTTP/3 is up
	var text strings.Builder
	fmt.Fprintln(&text, got.Status)
	for _, name := range slices.Sorted(maps.Keys(header)) {
		fmt.Fprintln(&text, name, header[name])
	}
	text.WriteString(got.Body)
	return strings.ReplaceAll(text.String(), got.ErrorID, "ID")
}
