package mtlsauth

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// The integration tests run the plugin in a real Caddy of this process, over
// real connections on the loopback interface. Caddy is one per process, so no
// test that uses a rig may be parallel.

func init() {
	caddy.RegisterModule(new(rigLogs))
	caddy.RegisterModule(new(rigPool))
}

// rigProtocols are the versions of HTTP that Caddy speaks over TLS.
var rigProtocols = []string{"h1", "h2", "h3"}

// rigRefused is the word of all refusals but for a missing certificate.
const rigRefused = "certificate_refused"

// rigHosts are the names that the server's certificate is good for.
var rigHosts = []string{"api.test", "auth.test", "alias.test", "public.test", "other.test", "metrics.test", "generation.test", "localhost"}

// rig is a running Caddy, the API behind it, and the certificates of the test.
type rig struct {
	t        *testing.T
	dir      string
	ca       *testpki.CA // of the clients, trusted by the realms
	otherCA  *testpki.CA // of nobody that is trusted
	serverCA *testpki.CA
	upstream *rigUpstream
	logs     *logSink

	https, http, admin string // ports
	adminOn            bool
	caddyfile          string               // what runs
	change             func(map[string]any) // changes the adapted JSON, unless nil
	generation         int                  // of the configuration, from 1
	grace              string               // what is under way has to end after a reload
	leaves             []*testpki.Leaf
	secrets            []string // what no log may hold, beside the leaves
}

// rigPrelude is what every configuration has. A test never touches the machine
// it runs on: no trust store, no ACME, no autosave, its own storage. The logger
// of events is left out because with it Caddy reads its TLS app in handshakes
// that may come while that app is still being started, which is a data race.
const rigPrelude = `{
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

// newRig makes certificates and starts the API behind. Caddy is not running
// yet: see [rig.start].
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		t: t, dir: filepath.ToSlash(t.TempDir()),
		ca:       testpki.MustCA(t, testpki.CommonName("Clients CA")),
		otherCA:  testpki.MustCA(t, testpki.CommonName("Other CA")),
		serverCA: testpki.MustCA(t, testpki.CommonName("Server CA")),
		logs:     newLogSink(),
		grace:    "1s",
	}
	r.write("clients-ca.pem", r.ca.PEM())
	r.write("other-ca.pem", r.otherCA.PEM())
	r.write("server-ca.pem", r.serverCA.PEM())
	server := testpki.MustIssue(t, r.serverCA, testpki.CommonName("server"), testpki.DNSNames(rigHosts...),
		testpki.IPs(net.IPv4(127, 0, 0, 1)), testpki.EKU(x509.ExtKeyUsageServerAuth))
	r.writeLeaf("server", server)
	r.upstream = newRigUpstream(t)
	return r
}

// write puts a file into the folder of the test, which is @DIR@ in a
// configuration, and returns its path.
func (r *rig) write(name string, content []byte) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *rig) writeLeaf(name string, leaf *testpki.Leaf) {
	r.t.Helper()
	if _, _, err := leaf.WriteFiles(r.dir, name); err != nil {
		r.t.Fatal(err)
	}
	r.leaves = append(r.leaves, leaf)
}

// issue makes a client certificate under the trusted CA, with the files
// <name>.pem and <name>.key and the common name <name> unless an option says
// otherwise.
func (r *rig) issue(name string, opts ...testpki.Option) *testpki.Leaf {
	r.t.Helper()
	return r.issueBy(r.ca, name, opts...)
}

func (r *rig) issueBy(ca *testpki.CA, name string, opts ...testpki.Option) *testpki.Leaf {
	r.t.Helper()
	leaf := testpki.MustIssue(r.t, ca, append([]testpki.Option{testpki.CommonName(name)}, opts...)...)
	r.writeLeaf(name, leaf)
	return leaf
}

// selfSigned makes a client certificate of no CA, with files as [rig.issue].
func (r *rig) selfSigned(name string, opts ...testpki.Option) *testpki.Leaf {
	r.t.Helper()
	leaf := testpki.MustSelfSigned(r.t, append([]testpki.Option{testpki.CommonName(name)}, opts...)...)
	r.writeLeaf(name, leaf)
	return leaf
}

// start runs Caddy on free ports until the test ends. In the text @DIR@ is the
// folder of the test, @HTTPS@, @HTTP@ and @ADMIN@ are ports, and reverse_proxy
// @UP@ leads to the API behind, or @STREAM@ without reading the body ahead.
// Reading ahead is the rule here because else Caddy and Go's client have a data
// race over the trailers of a GET of HTTP/3, whose end takes more than 200 ms to
// come on a busy machine.
func (r *rig) start(global, sites string) {
	r.t.Helper()
	r.t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			r.t.Errorf("stopping Caddy: %v", err)
		}
		r.checkLogs()
	})
	// another process may take a port between the asking and the using
	for attempt := 0; ; attempt++ {
		r.https, r.http, r.admin = rigPort(r.t), rigPort(r.t), rigPort(r.t)
		err := r.load(global, sites)
		if err == nil {
			return
		}
		if attempt == 5 || !errors.Is(err, syscall.EADDRINUSE) && !strings.Contains(err.Error(), "address already in use") {
			r.t.Fatalf("loading the configuration: %v\n%s", err, r.caddyfile)
		}
	}
}

// reload replaces the configuration. Ports stay. Caddy says that it is done a
// moment before the old configuration takes no more connections, so reload
// waits until new ones are answered by the new one only.
func (r *rig) reload(global, sites string) {
	r.t.Helper()
	if err := r.load(global, sites); err != nil {
		r.t.Fatalf("reloading the configuration: %v\n%s", err, r.caddyfile)
	}
	want := fmt.Sprintf("generation %d", r.generation)
	deadline := time.Now().Add(rigPatience)
	for _, protocol := range rigProtocols {
		for streak := 0; streak < 3; {
			c := r.caller(r.t, protocol, nil)
			got, err := c.try(http.MethodGet, "https://generation.test/")
			c.close()
			if err == nil && got.body == want && caddy.ListenerUsage("tcp", "127.0.0.1:"+r.https) == 1 {
				streak++
				continue
			}
			streak = 0
			if time.Now().After(deadline) {
				r.t.Fatalf("after a reload %s is answered %q %v, want %q", protocol, got.body, err, want)
			}
		}
	}
}

// load adapts and loads a configuration, and returns the error of either.
func (r *rig) load(global, sites string) error {
	config, err := r.adapt(global, sites)
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

func (r *rig) adapt(global, sites string) ([]byte, error) {
	r.generation++
	r.caddyfile = r.fill(strings.Replace(rigPrelude, "@GLOBAL@", global, 1) + sites)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(r.caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil || r.change == nil {
		return config, err
	}
	object := asJSON(r.t, string(config))
	r.change(object)
	return json.Marshal(object)
}

func (r *rig) fill(text string) string {
	admin := "off"
	if r.adminOn {
		admin = "127.0.0.1:" + r.admin
	}
	const ahead = " {\n\trequest_buffers 1MiB\n"
	return strings.NewReplacer("reverse_proxy @UP@ {\n", "reverse_proxy "+r.upstream.address+ahead, "reverse_proxy @UP@", "reverse_proxy "+r.upstream.address+ahead+"}",
		"@STREAM@", r.upstream.address, "@DIR@", r.dir, "@HTTPS@", r.https, "@HTTP@", r.http, "@ADMIN@", admin,
		"@SINK@", r.logs.name, "@GENERATION@", strconv.Itoa(r.generation), "@GRACE@", r.grace).Replace(text)
}

// rigPort returns a port that is free for TCP and for UDP, which HTTP/3 uses.
func rigPort(t *testing.T) string {
	t.Helper()
	for range 20 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		_, port, _ := net.SplitHostPort(tcp.Addr().String())
		_ = tcp.Close()
		if err == nil {
			_ = udp.Close()
			return port
		}
	}
	t.Fatal("found no port that is free for TCP and UDP")
	return ""
}

// rigClocks are the clocks that [rigPool] puts into the app, by name.
var rigClocks sync.Map

// rigClock is the system's clock, moved. With a transport, the app fetches what
// has to come over https through it.
type rigClock struct {
	ahead     atomic.Int64
	broken    atomic.Bool // panics when a handler asks for the time
	apps      sync.Map    // that it has been put into
	transport http.RoundTripper
}

// newRigClock returns a clock that `trust_pool rig <pem-file> <name>` puts into
// the app, where name is that of the test.
func newRigClock(t *testing.T) *rigClock {
	clock := new(rigClock)
	rigClocks.Store(t.Name(), clock)
	t.Cleanup(func() { rigClocks.Delete(t.Name()) })
	return clock
}

func (c *rigClock) now() time.Time {
	if c.broken.Load() && bytes.Contains(debug.Stack(), []byte("caddyhttp.(*Server).ServeHTTP")) {
		panic("out of order")
	}
	return time.Now().Add(time.Duration(c.ahead.Load()))
}

func (c *rigClock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// rigPool is a trust pool whose provisioning replaces the clock of the app that
// loads it, before anything has read the clock.
type rigPool struct {
	File  string `json:"file,omitempty"`
	Clock string `json:"clock,omitempty"`

	pool  *x509.CertPool
	certs []*x509.Certificate
}

func (*rigPool) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.ca_pool.source.rig", New: func() caddy.Module { return new(rigPool) }}
}

func (p *rigPool) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&p.File, &p.Clock) {
		return d.ArgErr()
	}
	return nil
}

func (p *rigPool) Provision(ctx caddy.Context) error {
	text, err := os.ReadFile(p.File)
	if err != nil {
		return err
	}
	if p.certs, err = certificatesOf(text); err != nil {
		return err
	}
	p.pool = x509.NewCertPool()
	for _, cert := range p.certs {
		p.pool.AddCert(cert)
	}
	known, ok := rigClocks.Load(p.Clock)
	if !ok {
		return errors.New("there is no clock '" + p.Clock + "'")
	}
	app, err := ctx.AppIfConfigured("mtls")
	if err != nil {
		return err
	}
	// an app that is running loads its trust pools again
	clock := known.(*rigClock)
	if _, again := clock.apps.LoadOrStore(app, true); !again {
		app.(*App).Now = clock.now
		if clock.transport != nil {
			app.(*App).Fetch = source.NewSecureFetcher(clock.transport).Get
		}
	}
	return nil
}

// certificatesOf parses the certificates of a PEM file.
func certificatesOf(text []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

func (p *rigPool) CertPool() *x509.CertPool { return p.pool }

func (p *rigPool) Certificates() []*x509.Certificate { return p.certs }

// member descends into a JSON object.
func member(t *testing.T, object map[string]any, path ...string) map[string]any {
	t.Helper()
	for _, name := range path {
		inner, ok := object[name].(map[string]any)
		if !ok {
			t.Fatalf("there is no object %q in %v", name, object)
		}
		object = inner
	}
	return object
}

// asJSON parses a JSON object.
func asJSON(t *testing.T, text string) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatalf("%v in %.300q", err, text)
	}
	return object
}
