package deploy_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// mountFiles writes files as the kubelet mounts a ConfigMap or a Secret: each is a link
// to its place in ..data, a link that a newer version replaces.
func mountFiles(t *testing.T, dir, version string, files map[string][]byte) {
	t.Helper()
	var steps []error
	for name, content := range files {
		testtool.WriteTemp(t, filepath.Join(dir, ".."+version), name, content)
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			steps = append(steps, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
		}
	}
	next := filepath.Join(dir, "..next")
	steps = append(steps, os.Symlink(".."+version, next), os.Rename(next, filepath.Join(dir, "..data")))
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
}

// TestCaddyInAPod runs the Caddyfile of the ConfigMap with the files that cert-manager
// writes. Clients change when the kubelet replaces their volume, and a Caddy that ends
// is no longer ready before it stops.
func TestCaddyInAPod(t *testing.T) {
	all := manifests(t, "base")
	pod := find(t, all, "Deployment", "caddy").Spec.Template
	var caddyfile, clients string
	for _, o := range all {
		if o.Kind == "ConfigMap" {
			caddyfile, clients = caddyfile+o.Data["Caddyfile"], clients+o.Data["clients.yaml"]
		}
	}

	r := rig.New(t)
	clientsCA, serverCA := testpki.MustCA(t), testpki.MustCA(t)
	issuing := testpki.MustIntermediate(t, serverCA)
	server := testpki.MustIssue(t, issuing, testpki.DNSNames("api.example.com", "auth.example.com"), testpki.EKU(x509.ExtKeyUsageServerAuth))
	partner := func(name string) *testpki.Leaf {
		return testpki.MustIssue(t, clientsCA, testpki.Subject(pkix.Name{CommonName: name, Organization: []string{"Partner"}}))
	}
	billing, orders := partner("billing"), partner("orders")
	etc := filepath.Join(r.Dir, "etc/caddy")
	mountFiles(t, filepath.Join(etc, "tls"), "1", map[string][]byte{"tls.crt": server.ChainPEM(), "tls.key": server.KeyPEM()})
	mountFiles(t, filepath.Join(etc, "clients-ca"), "1", map[string][]byte{"ca.crt": clientsCA.PEM()})
	mountFiles(t, filepath.Join(etc, "clients"), "1", map[string][]byte{"clients.yaml": []byte(clients)})

	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.Header.Get("X-Client-ID"))
	}))
	t.Cleanup(api.Close)
	https, probes := rig.FreePort(t), rig.FreePort(t)
	here := strings.NewReplacer("/etc/caddy/", etc+"/", "/data", filepath.Join(r.Dir, "data"), "api:8080", api.Listener.Addr().String(),
		"8443", https, "8080", probes, "localhost:2019", "127.0.0.1:"+rig.FreePort(t), "\tpersist_config off\n", "\tpersist_config off\n\tdefault_bind 127.0.0.1\n")
	config := r.Write("pod.caddyfile", []byte(here.Replace(caddyfile)))
	caddy := startCaddy(t, "run", "--config", config, "--adapter", "caddyfile")

	probed := "http://127.0.0.1:" + probes + pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Path
	ready := func() int {
		response, err := http.Get(probed)
		if err != nil {
			return 0
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	rig.Await(r, t, "the pod is ready", func() bool { return ready() == http.StatusOK })

	caller := func(leaf *testpki.Leaf) *rig.Caller {
		c := r.Caller(t, "h2", leaf)
		c.Address, c.Tls.RootCAs = net.JoinHostPort("127.0.0.1", https), serverCA.Pool()
		return c
	}
	const issuer = "https://auth.example.com"
	works := func(c *rig.Caller, clientID string) bool {
		var answer struct {
			Token string `json:"access_token"`
		}
		if got := rig.AskToken(c, issuer, clientID); got.Status != http.StatusOK || json.Unmarshal([]byte(got.Body), &answer) != nil {
			return false
		}
		return c.Get("https://api.example.com/", rig.With("Authorization", "Bearer "+answer.Token)).Body == "hello "+clientID
	}
	known, added := caller(billing), caller(orders)
	if !works(known, "billing") {
		t.Error("the client of the ConfigMap gets no answer")
	}
	known.Get("https://api.example.com/").WantStatus(t, http.StatusUnauthorized) // without a token
	if works(added, "orders") {
		t.Error("a client that nobody has registered gets an answer")
	}
	clients += "- client_id: orders\n  scope: invoices.read\n  tls_client_auth_subject_dn: CN=orders,O=Partner\n"
	mountFiles(t, filepath.Join(etc, "clients"), "2", map[string][]byte{"clients.yaml": []byte(clients)})
	rig.Await(r, t, "the new client gets an answer", func() bool { return works(added, "orders") })

	if err := caddy.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rig.Await(r, t, "the pod is not ready any more", func() bool { return ready() == http.StatusServiceUnavailable })
}
