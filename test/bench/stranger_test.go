//go:build unix

package bench_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// strangerSites are the sites of one Caddy that refuse, each on its own port. Our log
// lines and the access log of the plain site go to files of their own.
type strangerSites struct {
	Dir, Auth, Bearer, Issuer, Plain string
}

var strangerCaddyfile = template.Must(template.New("Caddyfile").Parse(`{
	admin off
	persist_config off
	auto_https off
	storage file_system "{{.Dir}}/storage"
	log {
		output file "{{.Dir}}/ours.log" {
			roll_disabled
		}
		format json
		level INFO
	}
	servers {
		protocols h1 h2
	}
	mtls {
		trust_pool file "{{.Dir}}/clients-ca.pem"
		client billing {
			subject "CN=billing, OU=production, O=Partner"
			san_dns billing.example
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

https://localhost:{{.Auth}} {
	import request
	mtls_auth
	respond ok
}

https://localhost:{{.Bearer}} {
	import request
	mtls_bearer
	respond ok
}

https://localhost:{{.Issuer}} {
	import request
	mtls_issuer
	respond 404
}

https://localhost:{{.Plain}} {
	import request
	log {
		output file "{{.Dir}}/plain.log" {
			roll_disabled
		}
		format json
	}
	respond 401
}
`))

// stranger is a request that is refused.
type stranger struct {
	name, site    string
	leaf          *testpki.Leaf // nil without a certificate
	path          string
	authorization string
	form          url.Values
	newConnection bool
	turns         int
}

// BenchmarkCompareStranger compares the CPU time that the server spends on a request
// that it refuses with that of the cheapest refusal that Caddy itself has: a fixed
// response, with a line in the access log, because a refusal of ours is logged too.
func BenchmarkCompareStranger(b *testing.B) {
	sites, roots, server := startStrangerServer(b)
	for _, s := range strangers(b, sites, roots) {
		b.Run(s.name, func(b *testing.B) {
			transport := &http.Transport{
				TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
				MaxIdleConnsPerHost: benchConnections,
				DisableKeepAlives:   s.newConnection,
				Protocols:           new(http.Protocols),
			}
			if s.leaf != nil {
				certificate := s.leaf.TLS()
				transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
			}
			transport.Protocols.SetHTTP1(s.newConnection)
			transport.Protocols.SetHTTP2(!s.newConnection)
			b.Cleanup(transport.CloseIdleConnections)
			octets := make(map[string]int64)
			requests := make(map[string]int64)
			contender := func(name, port, log string) testtool.Contender {
				turn := func() time.Duration {
					before := logSize(b, sites, log)
					used := server.settled(b, func() error { return s.ask(transport, port) })
					octets[log] += logSize(b, sites, log) - before
					requests[log] += turnRequests
					return used
				}
				turn() // opens the connections
				return testtool.Contender{Name: name, Turn: turn}
			}
			testtool.Compare(b, s.turns, contender(s.site, s.port(sites), "ours.log"), contender("caddy_401", sites.Plain, "plain.log"))
			b.ReportMetric(float64(octets["ours.log"])/float64(requests["ours.log"]), "log-octets")
			b.ReportMetric(float64(octets["plain.log"])/float64(requests["plain.log"]), "caddy_401-log-octets")
		})
	}
}

// strangers returns what is measured.
func strangers(b *testing.B, sites strangerSites, roots *x509.CertPool) []stranger {
	names := func(n, each int) *testpki.Leaf {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("%03d", i)+strings.Repeat("a", max(each-3, 0)))
		}
		return testpki.MustSelfSigned(b, testpki.CommonName("stranger"), testpki.DNSNames(list...))
	}
	one := names(1, 20)
	presenting := func(size int) *testpki.Leaf {
		var chain []*x509.Certificate
		for total := 2 * len(one.Cert.Raw); total < size; total += len(one.Cert.Raw) {
			chain = append(chain, one.Cert)
		}
		return testpki.Presenting(one, chain...)
	}
	issuer := testpki.MustCA(b) // nobody trusts it
	encode := base64.RawURLEncoding.EncodeToString
	numbers := func(n int) string {
		return "Bearer " + encode([]byte(`{"typ":"at+jwt","alg":"ES256","x":[0`+strings.Repeat(",0", n)+`]}`)) + ".e30.AAAA"
	}
	header := encode(fmt.Appendf(nil, `{"typ":"at+jwt","alg":"ES256","kid":%q}`, keyID(b, sites, roots)))
	longSignature := "Bearer " + header + ".e30." + strings.Repeat("A", 12<<10)
	forged := "Bearer " + header + ".e30." + strings.Repeat("A", 86)
	garbage := "Bearer " + strings.Repeat("A", 15<<10)
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"billing"}}
	longForm := url.Values{"grant_type": {"client_credentials"}, "client_id": {"billing"}, "scope": {strings.Repeat("%", 10<<10)}}
	return []stranger{
		{name: "no_certificate", site: "mtls_auth", turns: 5},
		{name: "1_name", site: "mtls_auth", leaf: one, turns: 5},
		{name: "256_names", site: "mtls_auth", leaf: names(256, 200), turns: 5},
		{name: "other_ca", site: "mtls_auth", leaf: testpki.MustIssue(b, issuer, testpki.CommonName("stranger")), turns: 5},
		{name: "expired", site: "mtls_auth", leaf: testpki.MustSelfSigned(b, testpki.Validity(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))), turns: 5},
		{name: "chain_60_KiB", site: "mtls_auth", leaf: presenting(60 << 10), turns: 5},
		{name: "chain_100_KiB", site: "mtls_auth", leaf: presenting(100 << 10), turns: 5},
		{name: "chain_200_KiB", site: "mtls_auth", leaf: presenting(200 << 10), turns: 5},
		{name: "path_15_KiB", site: "mtls_auth", leaf: one, path: strings.Repeat("a", 15<<10), turns: 5},
		{name: "path_5_KiB_of_controls", site: "mtls_auth", leaf: one, path: strings.Repeat("%01", 5<<10), turns: 5},
		{name: "new_connections_1_name", site: "mtls_auth", leaf: one, newConnection: true, turns: 1},
		{name: "new_connections_256_names", site: "mtls_auth", leaf: names(256, 200), newConnection: true, turns: 1},
		{name: "token_numbers_without_certificate", site: "mtls_bearer", authorization: numbers(5000), turns: 5},
		{name: "token_numbers", site: "mtls_bearer", leaf: one, authorization: numbers(5000), turns: 5},
		{name: "token_numbers_in_2_KiB", site: "mtls_bearer", leaf: one, authorization: numbers(700), turns: 5},
		{name: "token_long_signature", site: "mtls_bearer", leaf: one, authorization: longSignature, turns: 5},
		{name: "token_garbage", site: "mtls_bearer", leaf: one, authorization: garbage, turns: 5},
		{name: "token_forged", site: "mtls_bearer", leaf: one, authorization: forged, turns: 5},
		{name: "no_token_256_names", site: "mtls_bearer", leaf: names(256, 200), turns: 5},
		{name: "token_request_without_certificate", site: "mtls_issuer", form: form, turns: 5},
		{name: "token_request", site: "mtls_issuer", leaf: one, form: form, turns: 5},
		{name: "token_request_30_KiB", site: "mtls_issuer", leaf: one, form: longForm, turns: 5},
	}
}

func (s stranger) port(sites strangerSites) string {
	return map[string]string{"mtls_auth": sites.Auth, "mtls_bearer": sites.Bearer, "mtls_issuer": sites.Issuer}[s.site]
}

// ask makes the request, which must be refused.
func (s stranger) ask(transport *http.Transport, port string) error {
	method, address, body := http.MethodGet, "https://localhost:"+port+"/"+s.path, io.Reader(nil)
	if s.form != nil {
		method, address, body = http.MethodPost, "https://localhost:"+port+"/connect/token", strings.NewReader(s.form.Encode())
	}
	request, err := http.NewRequest(method, address, body)
	if err != nil {
		return err
	}
	if s.authorization != "" {
		request.Header.Set("Authorization", s.authorization)
	}
	if s.form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusUnauthorized && (s.form == nil || response.StatusCode != http.StatusBadRequest) {
		return fmt.Errorf("%s answered %d", s.name, response.StatusCode)
	}
	return nil
}

// keyID returns the kid of the issuer's signing key, which everybody knows.
func keyID(b *testing.B, sites strangerSites, roots *x509.CertPool) string {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	response, err := client.Get("https://localhost:" + sites.Issuer + "/.well-known/openid-configuration/jwks")
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	var document struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if err := json.NewDecoder(response.Body).Decode(&document); err != nil || len(document.Keys) == 0 {
		b.Fatalf("no signing key: %v", err)
	}
	return document.Keys[0].ID
}

func logSize(b *testing.B, sites strangerSites, name string) int64 {
	info, err := os.Stat(filepath.Join(sites.Dir, name))
	if err != nil {
		b.Fatal(err)
	}
	return info.Size()
}

// settled makes a turn of requests and returns the server's CPU time for each, with
// what the server does after its answers.
func (s benchProcess) settled(b *testing.B, request func() error) time.Duration {
	start := s.cpu(b)
	s.makeRequests(b, request)
	time.Sleep(50 * time.Millisecond)
	return (s.cpu(b) - start) / turnRequests
}

func startStrangerServer(b *testing.B) (strangerSites, *x509.CertPool, benchProcess) {
	sites := strangerSites{Dir: filepath.ToSlash(b.TempDir())}
	for _, port := range []*string{&sites.Auth, &sites.Bearer, &sites.Issuer, &sites.Plain} {
		*port = rig.FreePort(b)
	}
	serverCA := testpki.MustCA(b)
	server := testpki.MustIssue(b, serverCA, testpki.DNSNames("localhost"), testpki.EKU(x509.ExtKeyUsageServerAuth))
	if _, err := testpki.MustCA(b).WriteFile(sites.Dir, "clients-ca"); err != nil {
		b.Fatal(err)
	}
	if _, _, err := server.WriteFiles(sites.Dir, "server"); err != nil {
		b.Fatal(err)
	}
	var text strings.Builder
	if err := strangerCaddyfile.Execute(&text, sites); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(sites.Dir, "Caddyfile"), []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	process := startBenchProcess(b, "BenchmarkCompareRequest", sites.Dir)
	process.cpu(b) // it serves
	return sites, serverCA.Pool(), process
}
