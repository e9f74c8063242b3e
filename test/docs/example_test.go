package docs_test

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestExampleConfig runs Caddyfile.example as its comments tell, on other ports
// and with storage of its own.
func TestExampleConfig(t *testing.T) {
	text := read(t, "Caddyfile.example")
	if string(caddyfile.Format([]byte(text))) != text {
		t.Error("Caddyfile.example is not formatted; run 'caddy fmt --overwrite Caddyfile.example'")
	}
	sensor := testpki.MustSelfSigned(t, testpki.CommonName("sensor 7"), testpki.IsCA(true), testpki.NoEKU())
	sum := sha256.Sum256(sensor.Cert.Raw)
	storage := t.TempDir()
	ports := []string{"8443", rig.FreePort(t), "8444", rig.FreePort(t), "8445", rig.FreePort(t), "8446", rig.FreePort(t)}
	config := strings.NewReplacer(ports...).Replace(text)
	config = regexp.MustCompile(`(?m)^(\s*)thumbprint .*$`).ReplaceAllString(config, "${1}thumbprint "+hex.EncodeToString(sum[:]))
	config = strings.Replace(config, "\n{\n", fmt.Sprintf("\n{\n\tadmin off\n\tpersist_config off\n\tstorage file_system %q\n", storage), 1)

	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	if err := caddy.Load(adapted, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })

	authorities := filepath.Join(storage, "pki", "authorities", "local")
	root := readCA(t, filepath.Join(authorities, "root.crt"), filepath.Join(authorities, "root.key"))
	named := testpki.MustIssue(t, root, testpki.Subject(pkix.Name{
		CommonName: "client", OrganizationalUnit: []string{"production"}, Organization: []string{"company"},
	}))
	issuer, api := "https://localhost:"+ports[1], "https://localhost:"+ports[3]
	for id, client := range map[string]struct {
		leaf  *testpki.Leaf
		scope string
	}{
		"sensor-7":    {sensor, "telemetry"},
		"mtls.client": {named, "api1"},
	} {
		roots := x509.NewCertPool()
		roots.AddCert(root.Cert)
		caller := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{client.leaf.TLS()}}}}
		body := fetchBody(t, caller, func() (*http.Response, error) { return caller.Get(api) })
		if !strings.HasPrefix(body, "hello "+id+", your scopes are: ") {
			t.Errorf("%s: the API said %q", id, body)
		}
		body = fetchBody(t, caller, func() (*http.Response, error) {
			return caller.PostForm(issuer+"/connect/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {id}})
		})
		var token struct {
			AccessToken string `json:"access_token"`
			Scope       string `json:"scope"`
		}
		if err := json.Unmarshal([]byte(body), &token); err != nil || token.AccessToken == "" || token.Scope != client.scope {
			t.Errorf("%s: the issuer said %q", id, body)
		}
		request, err := http.NewRequest(http.MethodGet, "https://localhost:"+ports[7], nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token.AccessToken)
		body = fetchBody(t, caller, func() (*http.Response, error) { return caller.Do(request) })
		if want := "hello " + id + ", your scopes are: " + client.scope + "\n"; body != want {
			t.Errorf("%s: the API for tokens said %q, want %q", id, body, want)
		}
	}
}

func fetchBody(t *testing.T, client *http.Client, fetch func() (*http.Response, error)) string {
	t.Helper()
	defer client.CloseIdleConnections()
	response, err := fetch()
	// Caddy makes the sites' own certificates in the background
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
		response, err = fetch()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func readCA(t *testing.T, certFile, keyFile string) *testpki.CA {
	t.Helper()
	der := func(file string) []byte {
		block, _ := pem.Decode([]byte(read(t, file)))
		return block.Bytes
	}
	cert, err := x509.ParseCertificate(der(certFile))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParseECPrivateKey(der(keyFile))
	if err != nil {
		t.Fatal(err)
	}
	return &testpki.CA{Cert: cert, Key: crypto.Signer(key)}
}
