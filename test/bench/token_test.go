//go:build unix

package bench_test

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
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

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// benchIssuer is a site with an issuer, and with a fixed answer as long as a token.
type benchIssuer struct {
	Dir, Port string
	Clients   []benchClient
	Answer    string
}

type benchClient struct{ ID, Thumbprint string }

var benchIssuerCaddyfile = template.Must(template.New("Caddyfile").Parse(`{
	admin off
	persist_config off
	auto_https off
	storage file_system "{{.Dir}}/storage"
	log {
		level ERROR
	}
	servers {
		protocols h1
	}
	mtls {
		trust_pool file "{{.Dir}}/clients-ca.pem"
		client billing {
			subject "CN=billing"
			scopes  api1
		}
{{range .Clients}}		client {{.ID}} {
			thumbprint {{.Thumbprint}}
			scopes     api1
		}
{{end}}		issuer https://localhost:{{.Port}}
	}
}

https://localhost:{{.Port}} {
	bind 127.0.0.1
	tls "{{.Dir}}/server.pem" "{{.Dir}}/server.key" {
		client_auth {
			mode request
		}
	}
	mtls_issuer
	route /fixed {
		bench_signature
		respond "{{.Answer}}" 200
	}
}
`))

// benchSignature makes one bare signature for each request, with the caches and the
// garbage collector of a busy server.
type benchSignature struct{ private crypto.Signer }

func init() {
	caddy.RegisterModule(new(benchSignature))
	httpcaddyfile.RegisterHandlerDirective("bench_signature", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(benchSignature), nil
	})
	httpcaddyfile.RegisterDirectiveOrder("bench_signature", httpcaddyfile.Before, "respond")
}

func (*benchSignature) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bench_signature", New: func() caddy.Module { return new(benchSignature) }}
}

func (s *benchSignature) Provision(caddy.Context) (err error) {
	s.private, err = keyring.Generate(keyring.ES256)
	return err
}

func (s *benchSignature) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	// the input is as long as the header and claims of these tokens
	if err := bareSignature(s.private, keyring.ES256, benchTokenInput); err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

var benchTokenInput = strings.Repeat("x", 520)

// BenchmarkCompareTokenRequest compares the CPU time of a token request with that
// of a request for a fixed answer of the same site that costs one bare signature,
// in realms of several sizes.
func BenchmarkCompareTokenRequest(b *testing.B) {
	if dir := os.Getenv(benchServerEnv); dir != "" {
		serveBench(b, dir)
		return
	}
	for _, size := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("clients=%d", size), func(b *testing.B) {
			client, base, server := startBenchIssuer(b, size)
			defer client.CloseIdleConnections()
			turn := func(path, want string) func() time.Duration {
				return func() time.Duration {
					return server.requests(b, func() error { return post(client, base+path, want) })
				}
			}
			token, fixed := turn("/connect/token", `"access_token":`), turn("/fixed", "xxx")
			token() // opens the connections
			testtool.Compare(b, 20,
				testtool.Contender{Name: "token", Turn: token},
				testtool.Contender{Name: "fixed_answer_and_signature", Turn: fixed},
			)
		})
	}
}

func post(client *http.Client, address, want string) error {
	response, err := client.PostForm(address, url.Values{"grant_type": {"client_credentials"}, "client_id": {"billing"}})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
		return fmt.Errorf("%s answered %d %q, want %q", address, response.StatusCode, body, want)
	}
	return nil
}

// startBenchIssuer starts a server with the given number of clients, and returns an
// HTTP client with the certificate of one of them.
func startBenchIssuer(b *testing.B, size int) (*http.Client, string, benchProcess) {
	port := rig.FreePort(b)
	site := benchIssuer{Dir: filepath.ToSlash(b.TempDir()), Port: port, Answer: strings.Repeat("x", 760)}
	for i := range size - 1 {
		var sum [32]byte
		_, _ = rand.Read(sum[:])
		site.Clients = append(site.Clients, benchClient{fmt.Sprintf("client-%d", i), hex.EncodeToString(sum[:])})
	}
	root, serverCA := testpki.MustCA(b), testpki.MustCA(b)
	leaf := testpki.MustIssue(b, root, testpki.CommonName("billing"))
	server := testpki.MustIssue(b, serverCA, testpki.DNSNames("localhost"), testpki.EKU(x509.ExtKeyUsageServerAuth))
	if _, err := root.WriteFile(site.Dir, "clients-ca"); err != nil {
		b.Fatal(err)
	}
	if _, _, err := server.WriteFiles(site.Dir, "server"); err != nil {
		b.Fatal(err)
	}
	var text strings.Builder
	if err := benchIssuerCaddyfile.Execute(&text, site); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(site.Dir, "Caddyfile"), []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: serverCA.Pool(), Certificates: []tls.Certificate{leaf.TLS()}, MinVersion: tls.VersionTLS13},
		MaxIdleConnsPerHost: benchConnections,
	}}
	return client, "https://localhost:" + port, startBenchProcess(b, "BenchmarkCompareTokenRequest", site.Dir)
}
