// Package rig runs the plugin in a real Caddy of the test process, over real
// connections on the loopback interface, with certificates made for the test.
//
// A process has one Caddy, so tests that use a rig must not be parallel.
package rig

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the modules of the configurations

	"github.com/caddymtls/caddy-mtls-auth/internal/freeport"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func init() {
	caddy.RegisterModule(new(logs))
	caddy.RegisterModule(new(pool))
}

// Protocols are the versions of HTTP that Caddy speaks over TLS.
var Protocols = []string{"h1", "h2", "h3"}

// Refused is the error code of all refusals except for a missing certificate.
const Refused = "certificate_refused"

// Hosts are the names in the server's certificate.
var Hosts = []string{"api.test", "auth.test", "alias.test", "public.test", "other.test", "metrics.test", "generation.test", "localhost"}

// Rig is a running Caddy, its upstream, and the certificates of the test.
type Rig struct {
	T        *testing.T
	Dir      string
	CA       *testpki.CA // issues the clients' certificates; the realms trust it
	OtherCA  *testpki.CA // the realms do not trust it
	ServerCA *testpki.CA
	Upstream *Upstream
	Logs     *logSink

	HTTPS, HTTP, Admin string // ports
	AdminOn            bool
	Caddyfile          string               // of the running configuration
	Change             func(map[string]any) // changes the adapted JSON, unless nil
	generation         int                  // of the configuration, from 1
	Grace              string               // grace period of requests in progress after a reload
	Leaves             []*testpki.Leaf
	Secrets            []string // what the log must not contain, besides the leaves
}

// prelude begins every configuration. It keeps tests from changing the machine:
// no trust store, no ACME, no autosave, a storage of their own. It excludes the
// logger of events because with it Caddy reads its TLS app in handshakes, possibly
// while that app is still starting, which is a data race.
const prelude = `{
	admin @ADMIN@
	persist_config off
	auto_https off
	skip_install_trust
	storage_check off
	storage_clean_interval off
	storage file_system "@DIR@/storage"
	grace_period @GRACE@
	http_port @HTTP@
	https_port @HTTPS@
	log {
		output rig @SINK@
		format json
		level DEBUG
		exclude events
	}
	@GLOBAL@
}

(mtls) {
	bind 127.0.0.1
	tls "@DIR@/server.pem" "@DIR@/server.key" {
		client_auth {
			mode request
		}
	}
}

(plain) {
	bind 127.0.0.1
}

(tls_without_client_auth) {
	bind 127.0.0.1
	tls "@DIR@/server.pem" "@DIR@/server.key"
}

https://generation.test:@HTTPS@ {
	import tls_without_client_auth
	respond "generation @GENERATION@"
}

`

// New makes certificates and starts the upstream. [Rig.Start] runs Caddy.
func New(t *testing.T) *Rig {
	t.Helper()
	r := &Rig{
		T: t, Dir: filepath.ToSlash(tempDir(t)),
		CA:       testpki.MustCA(t, testpki.CommonName("Clients CA")),
		OtherCA:  testpki.MustCA(t, testpki.CommonName("Other CA")),
		ServerCA: testpki.MustCA(t, testpki.CommonName("Server CA")),
		Logs:     newLogSink(),
		Grace:    "1s",
	}
	r.Write("clients-ca.pem", r.CA.PEM())
	r.Write("other-ca.pem", r.OtherCA.PEM())
	r.Write("server-ca.pem", r.ServerCA.PEM())
	server := testpki.MustIssue(t, r.ServerCA, testpki.CommonName("server"), testpki.DNSNames(Hosts...),
		testpki.IPs(net.IPv4(127, 0, 0, 1)), testpki.EKU(x509.ExtKeyUsageServerAuth))
	r.writeLeaf("server", server)
	r.Upstream = newUpstream(t)
	return r
}

// tempDir is like the TempDir of a test, but waits for a configuration that has ended and
// still writes there, as it may for some seconds.
func tempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "rig") //nolint:usetesting // whose folder must be empty at once
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Error(err)
				return
			}
		}
	})
	return dir
}

// Write writes a file into the folder of the test, which is @DIR@ in a
// configuration, and returns its path.
func (r *Rig) Write(name string, content []byte) string {
	r.T.Helper()
	path := filepath.Join(r.Dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		r.T.Fatal(err)
	}
	return path
}

func (r *Rig) writeLeaf(name string, leaf *testpki.Leaf) {
	r.T.Helper()
	if _, _, err := leaf.WriteFiles(r.Dir, name); err != nil {
		r.T.Fatal(err)
	}
	r.Leaves = append(r.Leaves, leaf)
}

// Issue makes a client certificate under the trusted CA and writes it to <name>.pem
// and <name>.key. Its common name is name unless an option sets another.
func (r *Rig) Issue(name string, opts ...testpki.Option) *testpki.Leaf {
	r.T.Helper()
	return r.IssueBy(r.CA, name, opts...)
}

// IssueBy is like [Rig.Issue], under another CA.
func (r *Rig) IssueBy(ca *testpki.CA, name string, opts ...testpki.Option) *testpki.Leaf {
	r.T.Helper()
	leaf := testpki.MustIssue(r.T, ca, append([]testpki.Option{testpki.CommonName(name)}, opts...)...)
	r.writeLeaf(name, leaf)
	return leaf
}

// SelfSigned makes a self-signed client certificate, with files as [Rig.Issue].
func (r *Rig) SelfSigned(name string, opts ...testpki.Option) *testpki.Leaf {
	r.T.Helper()
	leaf := testpki.MustSelfSigned(r.T, append([]testpki.Option{testpki.CommonName(name)}, opts...)...)
	r.writeLeaf(name, leaf)
	return leaf
}

// Start runs Caddy on free ports until the test ends. In the configuration, @DIR@ is
// the folder of the test, and @HTTPS@, @HTTP@ and @ADMIN@ are ports. `reverse_proxy
// @UP@` leads to the upstream and buffers the request body; `reverse_proxy @STREAM@`
// does not buffer it. Without buffering, Caddy and Go's client have a data race over
// the trailers of an HTTP/3 GET if its end takes more than 200 ms to arrive, as on a
// busy machine.
func (r *Rig) Start(global, sites string) {
	r.T.Helper()
	r.T.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			r.T.Errorf("stopping Caddy: %v", err)
		}
		r.Logs.checkSecrets(r.T, r.Leaves, r.Secrets...)
	})
	// another process may take a port before Caddy listens on it
	for attempt := 0; ; attempt++ {
		r.HTTPS, r.HTTP, r.Admin = FreePort(r.T), FreePort(r.T), FreePort(r.T)
		err := r.Load(global, sites)
		if err == nil {
			return
		}
		if attempt == 5 || !errors.Is(err, syscall.EADDRINUSE) && !strings.Contains(err.Error(), "address already in use") {
			r.T.Fatalf("loading the configuration: %v\n%s", err, r.Caddyfile)
		}
	}
}

// Reload replaces the configuration and keeps the ports. Caddy reports success a
// moment before the old configuration stops accepting connections, so Reload waits
// until only the new configuration answers new connections.
func (r *Rig) Reload(global, sites string) {
	r.T.Helper()
	if err := r.Load(global, sites); err != nil {
		r.T.Fatalf("reloading the configuration: %v\n%s", err, r.Caddyfile)
	}
	want := fmt.Sprintf("generation %d", r.generation)
	deadline := time.Now().Add(Patience)
	for _, protocol := range Protocols {
		for streak := 0; streak < 3; {
			c := r.Caller(r.T, protocol, nil)
			got, err := c.Try(http.MethodGet, "https://generation.test/")
			c.Close()
			if err == nil && got.Body == want && caddy.ListenerUsage("tcp", "127.0.0.1:"+r.HTTPS) == 1 {
				streak++
				continue
			}
			streak = 0
			if time.Now().After(deadline) {
				r.T.Fatalf("after a reload over %s: %q %v, want %q", protocol, got.Body, err, want)
			}
		}
	}
}

// Load adapts and loads a configuration.
func (r *Rig) Load(global, sites string) error {
	config, err := r.Adapt(global, sites)
	if err != nil {
		return err
	}
	defer r.awaitAdmin()
	return caddy.Load(config, true)
}

// Adapt fills in the names in @…@ and converts the Caddyfile to JSON.
func (r *Rig) Adapt(global, sites string) ([]byte, error) {
	r.generation++
	r.Caddyfile = r.Fill(strings.Replace(prelude, "@GLOBAL@", global, 1) + sites)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(r.Caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil || r.Change == nil {
		return config, err
	}
	object := JSON(r.T, string(config))
	r.Change(object)
	return json.Marshal(object)
}

// Generation returns the number of the configuration that was adapted last.
func (r *Rig) Generation() int { return r.generation }

// Fill replaces the names in @…@; see [Rig.Start].
func (r *Rig) Fill(text string) string {
	admin := "off"
	if r.AdminOn {
		admin = "127.0.0.1:" + r.Admin
	}
	const ahead = " {\n\trequest_buffers 1MiB\n"
	return strings.NewReplacer("reverse_proxy @UP@ {\n", "reverse_proxy "+r.Upstream.Address+ahead, "reverse_proxy @UP@", "reverse_proxy "+r.Upstream.Address+ahead+"}",
		"@STREAM@", r.Upstream.Address, "@DIR@", r.Dir, "@HTTPS@", r.HTTPS, "@HTTP@", r.HTTP, "@ADMIN@", admin,
		"@SINK@", r.Logs.name, "@GENERATION@", strconv.Itoa(r.generation), "@GRACE@", r.Grace).Replace(text)
}

// FreePort returns a port that is free for TCP and for UDP, which HTTP/3 uses. It
// reserves the port until the test ends. Caddy shares the ports that it listens on,
// so the Caddy of another package's tests could otherwise accept connections there.
func FreePort(t testing.TB) string {
	t.Helper()
	port, release, err := freeport.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return port
}

// ClosedPort returns a port on which nobody listens until the test ends: it is that of a
// client's end of a connection.
func ClosedPort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
	return port
}

// CertificatesOf parses the certificates in PEM text.
func CertificatesOf(text []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// Member returns the object at this path in a JSON object.
func Member(t *testing.T, object map[string]any, path ...string) map[string]any {
	t.Helper()
	for _, name := range path {
		inner, ok := object[name].(map[string]any)
		if !ok {
			t.Fatalf("no object %q in %v", name, object)
		}
		object = inner
	}
	return object
}

// JSON parses a JSON object.
func JSON(t *testing.T, text string) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatalf("%v in %.300q", err, text)
	}
	return object
}
