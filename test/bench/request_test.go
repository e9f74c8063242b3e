//go:build unix

package bench_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"text/template"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

const (
	// benchServerEnv tells the server process the folder of the Caddyfile to serve.
	benchServerEnv = "MTLS_BENCH_SERVER"
	// turnRequests is the number of requests to a site before the next site's turn.
	turnRequests = 200
	// benchConnections is the number of concurrent requests.
	benchConnections = 8
)

// benchSites are the sites of one Caddy, each on its own port.
type benchSites struct {
	Dir, Upstream string
	// MTLSAuth uses this plugin.
	MTLSAuth string
	// HeaderUp requests certificates in the same way and passes the subject on.
	HeaderUp string
	// Verify works without this plugin: Caddy verifies the certificate in the
	// handshake and passes the subject on.
	Verify string
	// Proxy passes on no identity.
	Proxy string
	// ForwardToken and ForwardCertificate are MTLSAuth with that option.
	ForwardToken, ForwardCertificate string
	// LongHeader is MTLSAuth with a header as long as a token.
	LongHeader string
}

var benchCaddyfile = template.Must(template.New("Caddyfile").Parse(`{
	admin off
	persist_config off
	auto_https off
	storage file_system "{{.Dir}}/storage"
	log {
		level ERROR
	}
	servers {
		protocols h1 h2
	}
	mtls {
		trust_pool file "{{.Dir}}/clients-ca.pem"
		client billing {
			subject "CN=billing, OU=production, O=Partner"
			scopes  invoices.read
		}
		issuer https://localhost
	}
}

(request) {
	bind 127.0.0.1
	tls "{{.Dir}}/server.pem" "{{.Dir}}/server.key" {
		client_auth {
			mode request
		}
	}
}

https://localhost:{{.MTLSAuth}} {
	import request
	mtls_auth
	reverse_proxy {{.Upstream}}
}

https://localhost:{{.HeaderUp}} {
	import request
	reverse_proxy {{.Upstream}} {
		header_up X-Client-ID {http.request.tls.client.subject}
	}
}

https://localhost:{{.Verify}} {
	bind 127.0.0.1
	tls "{{.Dir}}/server.pem" "{{.Dir}}/server.key" {
		client_auth {
			mode require_and_verify
			trust_pool file "{{.Dir}}/clients-ca.pem"
		}
	}
	reverse_proxy {{.Upstream}} {
		header_up X-Client-ID {http.request.tls.client.subject}
	}
}

https://localhost:{{.Proxy}} {
	import request
	reverse_proxy {{.Upstream}}
}

https://localhost:{{.ForwardToken}} {
	import request
	mtls_auth {
		forward_token {
			audience urn:bench
		}
	}
	reverse_proxy {{.Upstream}}
}

https://localhost:{{.LongHeader}} {
	import request
	mtls_auth
	reverse_proxy {{.Upstream}} {
		header_up X-Long "` + strings.Repeat("x", 620) + `"
	}
}

https://localhost:{{.ForwardCertificate}} {
	import request
	mtls_auth {
		forward_certificate
	}
	reverse_proxy {{.Upstream}}
}
`))

// BenchmarkCompareRequest compares the CPU time that the server, a separate
// process, spends on a request with and without mtls_auth before the same proxy.
func BenchmarkCompareRequest(b *testing.B) {
	if dir := os.Getenv(benchServerEnv); dir != "" {
		serveBench(b, dir)
		return
	}
	const subject = "CN=billing,OU=production,O=Partner"
	leaf, roots, server := startBenchServer(b)
	for _, protocol := range []benchProtocol{
		{name: "http1", turns: 20},
		{name: "http2", http2: true, turns: 20},
		{name: "http1_new_connections", newConnection: true, turns: 5},
	} {
		b.Run(protocol.name, func(b *testing.B) {
			site := protocol.sites(b, leaf, roots, server)
			testtool.Compare(b, protocol.turns,
				site("mtls_auth", server.sites.MTLSAuth, "billing"),
				site("header_up", server.sites.HeaderUp, subject),
				site("verify_header_up", server.sites.Verify, subject),
				site("proxy", server.sites.Proxy, ""),
			)
		})
	}
}

// BenchmarkCompareForward compares requests whose upstream receives a token or the
// certificate with requests whose upstream receives only a client_id, or a header
// as long as a token.
func BenchmarkCompareForward(b *testing.B) {
	leaf, roots, server := startBenchServer(b)
	for _, protocol := range []benchProtocol{{name: "http1", turns: 20}, {name: "http2", http2: true, turns: 20}} {
		b.Run(protocol.name, func(b *testing.B) {
			site := protocol.sites(b, leaf, roots, server)
			testtool.Compare(b, protocol.turns,
				site("forward_token", server.sites.ForwardToken, "billing token"),
				site("mtls_auth", server.sites.MTLSAuth, "billing"),
				site("long_header", server.sites.LongHeader, "billing"),
				site("forward_certificate", server.sites.ForwardCertificate, "billing certificate"),
			)
		})
	}
}

// benchProtocol determines how requests are made.
type benchProtocol struct {
	name                 string
	http2, newConnection bool
	turns                int
}

// sites returns a function that makes a contender of a site. Its API must answer
// with the identity it received.
func (p benchProtocol) sites(b *testing.B, leaf *testpki.Leaf, roots *x509.CertPool, server *benchServer) func(name, port, told string) testtool.Contender {
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{leaf.TLS()}, MinVersion: tls.VersionTLS13},
		MaxIdleConnsPerHost: benchConnections,
		DisableKeepAlives:   p.newConnection,
		Protocols:           new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(!p.http2)
	transport.Protocols.SetHTTP2(p.http2)
	b.Cleanup(transport.CloseIdleConnections)
	return func(name, port, told string) testtool.Contender {
		turn := func() time.Duration {
			return server.requests(b, func() error {
				return ask(&http.Client{Transport: transport}, "https://localhost:"+port+"/v1/invoices", "hello "+told)
			})
		}
		turn() // opens the connections
		return testtool.Contender{Name: name, Turn: turn}
	}
}

// benchServer is the server under test, as the client process sees it.
type benchServer struct {
	sites benchSites
	benchProcess
}

// benchProcess is a process that reports its CPU time.
type benchProcess struct {
	input  io.Writer
	output *bufio.Scanner
}

// requests makes a turn of requests and returns the server's CPU time for each.
func (s benchProcess) requests(b *testing.B, request func() error) time.Duration {
	start := s.cpu(b)
	s.makeRequests(b, request)
	return (s.cpu(b) - start) / turnRequests
}

// makeRequests makes a turn of requests.
func (s benchProcess) makeRequests(b *testing.B, request func() error) {
	var made atomic.Int64
	failures := make(chan error, benchConnections)
	for range benchConnections {
		go func() {
			for made.Add(1) <= turnRequests {
				if err := request(); err != nil {
					failures <- err
					return
				}
			}
			failures <- nil
		}()
	}
	for range benchConnections {
		if err := <-failures; err != nil {
			b.Fatal(err)
		}
	}
}

// ask makes one request. The API answers with the caller's identity it received.
func ask(client *http.Client, url, answer string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || string(body) != answer {
		return fmt.Errorf("%s answered %d %q, want %q", url, response.StatusCode, body, answer)
	}
	return nil
}

// cpu asks the server for its CPU time.
func (s benchProcess) cpu(b *testing.B) (used time.Duration) {
	if _, err := fmt.Fprintln(s.input); err != nil {
		b.Fatal(err)
	}
	var said []string
	for s.output.Scan() {
		if n, _ := fmt.Sscanf(s.output.Text(), "cpu %d", &used); n == 1 {
			return used
		}
		said = append(said, s.output.Text())
	}
	b.Fatalf("the server under test exited:\n%s", strings.Join(said, "\n"))
	return 0
}

// startBenchServer starts the server under test, and its upstream API in this
// process.
func startBenchServer(b *testing.B) (*testpki.Leaf, *x509.CertPool, *benchServer) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told := r.Header.Get("X-Client-ID")
		if r.Header.Get("Authorization") != "" {
			told += " token"
		}
		if r.Header.Get("Client-Cert-Chain") != "" {
			told += " certificate"
		}
		_, _ = io.WriteString(w, "hello "+told)
	}))
	b.Cleanup(upstream.Close)

	sites := benchSites{Dir: filepath.ToSlash(b.TempDir()), Upstream: strings.TrimPrefix(upstream.URL, "http://")}
	for _, port := range []*string{&sites.MTLSAuth, &sites.HeaderUp, &sites.Verify, &sites.Proxy, &sites.ForwardToken, &sites.ForwardCertificate, &sites.LongHeader} {
		*port = rig.FreePort(b)
	}
	root := testpki.MustCA(b)
	leaf := testpki.MustIssue(b, testpki.MustIntermediate(b, root), testpki.Subject(pkix.Name{
		CommonName: "billing", OrganizationalUnit: []string{"production"}, Organization: []string{"Partner"},
	}))
	serverCA := testpki.MustCA(b)
	server := testpki.MustIssue(b, serverCA, testpki.DNSNames("localhost"), testpki.EKU(x509.ExtKeyUsageServerAuth))
	if _, err := root.WriteFile(sites.Dir, "clients-ca"); err != nil {
		b.Fatal(err)
	}
	if _, _, err := server.WriteFiles(sites.Dir, "server"); err != nil {
		b.Fatal(err)
	}
	var text strings.Builder
	if err := benchCaddyfile.Execute(&text, sites); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(sites.Dir, "Caddyfile"), []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}

	return leaf, serverCA.Pool(), &benchServer{sites: sites, benchProcess: startBenchProcess(b, "BenchmarkCompareRequest", sites.Dir)}
}

// startBenchProcess starts the server under test. It runs this program again, with
// the folder of the Caddyfile in the environment.
func startBenchProcess(b *testing.B, benchmark, dir string) benchProcess {
	command := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^"+benchmark+"$", "-test.benchtime=1x")
	command.Env = append(os.Environ(), benchServerEnv+"="+dir)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = command.Wait() }) // the end of the context kills the process
	return benchProcess{input: input, output: bufio.NewScanner(output)}
}

// serveBench runs the server under test. It answers every line on standard input
// with its CPU time, and ends with the input.
func serveBench(b *testing.B, dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "Caddyfile"))
	if err != nil {
		b.Fatal(err)
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		b.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fmt.Printf("\ncpu %d\n", testtool.CPUTime(b))
	}
}
