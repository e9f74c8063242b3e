package mtlsauth

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// rigUpstream is the API behind Caddy. It knows nothing of certificates and
// answers with what it was told.
type rigUpstream struct {
	address string
	hits    atomic.Int64
	blocked chan string   // a request to /block has arrived
	release chan struct{} // lets one request to /block go on

	mu   sync.Mutex
	told []string // every X-Client-ID that the API was ever told
}

// seenRequest is a request as it reached the API.
type seenRequest struct {
	Method, URI, Host, Proto, Body string
	Header, Trailer                http.Header
}

func newRigUpstream(t *testing.T) *rigUpstream {
	u := &rigUpstream{blocked: make(chan string, 100), release: make(chan struct{})}
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	u.address = server.Listener.Addr().String()
	return u
}

func (u *rigUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.hits.Add(1)
	u.mu.Lock()
	u.told = append(u.told, r.Header.Values("X-Client-Id")...)
	u.mu.Unlock()
	switch r.URL.Path {
	case "/upgrade":
		u.upgrade(w, r)
		return
	case "/block":
		u.blocked <- r.Header.Get("X-Client-ID")
		select {
		case <-u.release:
		case <-time.After(rigPatience):
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Upstream", "1")
	_ = json.NewEncoder(w).Encode(seenRequest{
		Method: r.Method, URI: r.RequestURI, Host: r.Host, Proto: r.Proto,
		Body: string(body), Header: r.Header, Trailer: r.Trailer,
	})
}

// upgrade tells which identity came with a protocol upgrade and then echoes
// lines.
func (u *rigUpstream) upgrade(w http.ResponseWriter, r *http.Request) {
	conn, stream, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nhello %q\n",
		r.Header.Get("Upgrade"), r.Header.Values("X-Client-ID"))
	_ = stream.Flush()
	for {
		line, err := stream.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = stream.WriteString("echo " + line)
		_ = stream.Flush()
	}
}

// caller is an HTTP client with a certificate, or with none.
type caller struct {
	t        *testing.T
	protocol string
	tls      *tls.Config
	rt       http.RoundTripper
	network  string // what is dialled instead of the host of the URL
	address  string
	early    bool // sends early data where the server takes it
	patience time.Duration
	always   []func(*http.Request)
}

// caller returns a client that speaks one version of HTTP. It connects to
// Caddy whatever the host of the URL, trusts the server's CA and presents
// leaf, which may be nil, however little the server asks for it.
func (r *rig) caller(t *testing.T, protocol string, leaf *testpki.Leaf) *caller {
	t.Helper()
	c := &caller{t: t, protocol: protocol, tls: r.tlsConfig(leaf), network: "tcp", address: "127.0.0.1:" + r.https, patience: rigPatience}
	if protocol == "h3" {
		transport := &http3.Transport{
			TLSClientConfig:    c.tls,
			DisableCompression: true,
			Dial: func(ctx context.Context, _ string, tlsConfig *tls.Config, config *quic.Config) (*quic.Conn, error) {
				if c.early {
					return quic.DialAddrEarly(ctx, c.address, tlsConfig, config)
				}
				return quic.DialAddr(ctx, c.address, tlsConfig, config)
			},
		}
		t.Cleanup(func() { _ = transport.Close() })
		c.rt = transport
		return c
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(protocol == "h1")
	protocols.SetHTTP2(protocol == "h2")
	transport := &http.Transport{
		TLSClientConfig:    c.tls,
		Protocols:          protocols,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, c.network, c.address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	c.rt = transport
	return c
}

// plain returns an HTTP/1.1 client without TLS.
func (r *rig) plain(t *testing.T) *caller {
	t.Helper()
	c := r.caller(t, "h1", nil)
	c.address = "127.0.0.1:" + r.http
	return c
}

// close closes the caller's connections before the test ends.
func (c *caller) close() {
	switch transport := c.rt.(type) {
	case *http3.Transport:
		_ = transport.Close()
	case *http.Transport:
		transport.CloseIdleConnections()
	}
}

func (r *rig) tlsConfig(leaf *testpki.Leaf) *tls.Config {
	config := &tls.Config{RootCAs: r.serverCA.Pool(), MinVersion: tls.VersionTLS12}
	if leaf != nil {
		certificate := leaf.TLS()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &certificate, nil
		}
	}
	return config
}

// reply is a response, read to its end.
type reply struct {
	status  int
	header  http.Header
	body    string
	seen    *seenRequest // nil when the API behind did not answer
	errorID string
}

// with sets a header of a request, in the given spelling.
func with(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = values }
}

// withBody gives the request a body.
func withBody(contentType, body string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body = io.NopCloser(strings.NewReader(body))
		r.ContentLength = int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
	}
}

func (c *caller) get(url string, options ...func(*http.Request)) reply {
	c.t.Helper()
	return c.do(http.MethodGet, url, options...)
}

func (c *caller) do(method, url string, options ...func(*http.Request)) reply {
	c.t.Helper()
	got, err := c.try(method, url, options...)
	if err != nil {
		c.t.Fatalf("%s %s over %s: %v", method, url, c.protocol, err)
	}
	return got
}

// try is do for a request that may fail without a response.
func (c *caller) try(method, url string, options ...func(*http.Request)) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return reply{}, err
	}
	for _, option := range slices.Concat(c.always, options) {
		option(request)
	}
	response, err := c.rt.RoundTrip(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	if want := int(c.protocol[1] - '0'); response.ProtoMajor != want {
		return reply{}, fmt.Errorf("the response is %s", response.Proto)
	}
	return readReply(response)
}

func readReply(response *http.Response) (reply, error) {
	body, err := io.ReadAll(response.Body)
	got := reply{status: response.StatusCode, header: response.Header, body: string(body)}
	if err != nil {
		return got, err
	}
	if response.Header.Get("X-Upstream") != "" {
		got.seen = new(seenRequest)
		if err := json.Unmarshal(body, got.seen); err != nil {
			return got, err
		}
	}
	_, rest, _ := strings.Cut(response.Header.Get("WWW-Authenticate"), `error_id="`)
	got.errorID, _, _ = strings.Cut(rest, `"`)
	if _, rest, found := strings.Cut(got.body, "(error id: "); found {
		got.errorID, _, _ = strings.Cut(rest, ")")
	}
	return got, nil
}

// wantStatus fails the test unless the response has the status.
func (got reply) wantStatus(t *testing.T, status int) reply {
	t.Helper()
	if got.status != status {
		t.Errorf("status %d, want %d; body %.300q, WWW-Authenticate %q", got.status, status, got.body, got.header.Get("WWW-Authenticate"))
	}
	return got
}

// wantClient fails the test unless the API behind was told this client, once,
// and nobody when id is "".
func (got reply) wantClient(t *testing.T, id string) reply {
	t.Helper()
	if got.seen == nil {
		t.Fatalf("the request did not reach the API: %d %.300q", got.status, got.body)
	}
	told := got.seen.Header["X-Client-Id"]
	if id == "" && len(told) == 0 || len(told) == 1 && told[0] == id && id != "" {
		return got
	}
	t.Errorf("the API was told client %q, want %q", told, id)
	return got
}

// wantRefused fails the test unless mtls_auth refused the request as it should.
func (got reply) wantRefused(t *testing.T, realm string, status int, word string) reply {
	t.Helper()
	got.wantStatus(t, status)
	if got.seen != nil {
		t.Errorf("the request reached the API with %v", got.seen.Header)
	}
	challenge := got.header.Values("WWW-Authenticate")
	if status == http.StatusForbidden {
		if len(challenge) > 0 {
			t.Errorf("a 403 has the challenge %q", challenge)
		}
		return got
	}
	want := fmt.Sprintf(`ClientCertificate realm="%s", error="%s", error_id="%s"`, realm, word, got.errorID)
	if len(challenge) != 1 || challenge[0] != want || got.errorID == "" {
		t.Errorf("WWW-Authenticate is %q, want %q with an error id", challenge, want)
	}
	return got
}

// rawTLS is an HTTP/1.1 connection on which a test writes what it likes.
type rawTLS struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (r *rig) raw(t *testing.T, leaf *testpki.Leaf, serverName string) *rawTLS {
	t.Helper()
	config := r.tlsConfig(leaf)
	config.ServerName, config.NextProtos = serverName, []string{"http/1.1"}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+r.https, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(rigPatience))
	return &rawTLS{t: t, conn: conn, in: bufio.NewReader(conn)}
}

// send writes a request, \n standing for \r\n, and reads the response.
func (c *rawTLS) send(request string) reply {
	c.t.Helper()
	c.write(request)
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatalf("reading the response to %.200q: %v", request, err)
	}
	defer response.Body.Close()
	got, err := readReply(response)
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

func (c *rawTLS) write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		c.t.Fatal(err)
	}
}
