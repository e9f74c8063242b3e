package ops_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// changingRealm has every kind of source that a realm looks at in the background. SERVER
// is that of the URLs.
const changingRealm = `
mtls {
	trust_pool rig @DIR@/clients-ca.pem CLOCK
	shadow_trust_pool file @DIR@/shadow.pem
	fetch {
		trust_pool file @DIR@/fetch.pem
	}
	revocation {
		crl  @DIR@/clients.crl SERVER/clients.crl
		deny @DIR@/deny
	}
	clients_from file @DIR@/clients.json
	clients_from http SERVER/clients.json {
		refresh   1s
		keep_copy @DIR@/copy.jsonl
	}
	clients_from storage
	client by-certificate {
		certificate @DIR@/certificate.pem
	}
	client by-jwks {
		jwks SERVER/jwks.json
	}
	client chained {
		subject CN=chained
	}
	client denied {
		thumbprint @DENIED@
	}
	issuer https://auth.test
}
`

const changingSites = rig.OneSite + rig.IssuerSite + `
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		trust_issuer SERVER {
			audience https://other.test
		}
	}
	reverse_proxy @UP@
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_status
}
`

// changing is a Caddy whose sources change.
type changing struct {
	*rig.Rig
	t      *testing.T
	clock  *rig.Clock
	server *httptest.Server
	// leaves are certificates, and leaves that take their place in the end, by the source
	// that names their client or revokes them.
	leaves, last map[string]*testpki.Leaf

	mu        sync.Mutex
	documents map[string][]byte // of the server
	number    int64             // of the last CRL
}

func startChanging(t *testing.T) *changing {
	c := &changing{
		Rig: rig.New(t), t: t, clock: rig.NewClock(t), leaves: make(map[string]*testpki.Leaf), last: make(map[string]*testpki.Leaf), documents: make(map[string][]byte),
	}
	c.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		document := c.documents[r.URL.Path]
		c.mu.Unlock()
		_, _ = w.Write(document)
	}))
	c.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	c.server.StartTLS()
	t.Cleanup(c.server.Close)
	for _, name := range []string{"file", "http", "storage", "certificate", "jwks", "denied"} {
		c.leaves[name], c.last[name] = c.SelfSigned(name), c.SelfSigned("last-"+name)
	}
	for _, name := range []string{"crl", "crl-url"} {
		c.leaves[name], c.last[name] = c.Issue(name, testpki.CommonName("chained")), c.Issue("last-"+name, testpki.CommonName("chained"))
	}
	c.change(0, c.leaves)
	c.AdminOn = true
	c.Start(c.global(0), c.sites())
	c.store(c.leaves["storage"])
	return c
}

func (c *changing) global(n int) string {
	return strings.NewReplacer("CLOCK", c.t.Name(), "SERVER", c.server.URL, "@DENIED@", testpki.HashOf(c.last["denied"].Cert.Raw)).Replace(changingRealm) + fmt.Sprintf("\n# %d", n)
}

func (c *changing) sites() string { return strings.ReplaceAll(changingSites, "SERVER", c.server.URL) }

func (c *changing) record(id string, leaf *testpki.Leaf) string {
	return fmt.Sprintf(`{"client_id":%q,"x509_thumbprints":%q}`, id, testpki.HashOf(leaf.Cert.Raw))
}

// store creates a client in storage with the certificate, or replaces the one that is there.
func (c *changing) store(leaf *testpki.Leaf) {
	c.t.Helper()
	for _, condition := range []string{"If-None-Match", "If-Match"} {
		request, err := http.NewRequest(http.MethodPut, "http://127.0.0.1:"+c.Admin+"/mtls/realms/default/clients/in-storage", strings.NewReader(c.record("in-storage", leaf)))
		if err != nil {
			c.t.Fatal(err)
		}
		request.Header.Set(condition, "*")
		response, err := rig.AdminClient.Do(request)
		if err != nil {
			c.t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode < http.StatusMultipleChoices {
			return
		}
	}
	c.t.Fatal("the client cannot be stored")
}

// read reads what is told about the sources. Caddy may close its admin endpoint meanwhile.
func (c *changing) read() {
	for _, path := range []string{"/metrics", "/mtls/status", "/mtls/realms/default/keys", "/mtls/realms/default/clients"} {
		if response, err := rig.AdminClient.Get("http://127.0.0.1:" + c.Admin + path); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	}
}

// ask sends a request to every site with each certificate. The server may close the
// connection meanwhile.
func (c *changing) ask() {
	for name, leaf := range c.leaves {
		caller := c.Connect("h1", leaf)
		for _, url := range []string{"https://api.test/", "https://public.test/", "https://other.test/"} {
			_, _ = caller.Try(http.MethodGet, url)
		}
		_, _ = caller.Try(http.MethodPost, "https://auth.test/connect/token", rig.Form("in-"+name))
		caller.Close()
	}
}

// change gives every source a new content, for these certificates.
func (c *changing) change(n int, leaves map[string]*testpki.Leaf) {
	server := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw})
	more := fmt.Sprintf(`{"client_id":"more-%d","x509_thumbprints":"%064x"}`, n, n+1)
	until := c.clock.Now().Add(240 * time.Hour)
	c.number++
	for name, content := range map[string]string{
		"shadow.pem":      string(c.CA.PEM()) + strings.Repeat(string(c.OtherCA.PEM()), n%2),
		"fetch.pem":       string(server) + strings.Repeat(string(c.OtherCA.PEM()), n%2),
		"certificate.pem": string(leaves["certificate"].PEM()),
		"clients.crl":     string(testpki.CRL(c.t, c.CA, c.number, until, leaves["crl"].Cert)),
		"deny":            fmt.Sprintf("# %d\nthumbprint %s\n", n, testpki.HashOf(leaves["denied"].Cert.Raw)),
		"clients.json":    "[" + c.record("in-file", leaves["file"]) + "," + more + "]",
	} {
		c.Write(name, []byte(content))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.documents = map[string][]byte{
		"/clients.crl":                      testpki.CRL(c.t, c.CA, c.number, until, leaves["crl-url"].Cert),
		"/clients.json":                     []byte("[" + c.record("at-url", leaves["http"]) + "," + strings.Replace(more, "more", "moreover", 1) + "]"),
		"/jwks.json":                        testpki.JWKS(c.t, leaves["jwks"]),
		"/.well-known/openid-configuration": fmt.Appendf(nil, `{"issuer":%q,"jwks_uri":"%s/jwks.json"}`, c.server.URL, c.server.URL),
	}
}

// TestNothingIsLostWhenTakenOver checks that a configuration that takes over what the one
// before has of its sources, while those change and are looked at all the time, has in the
// end what they say. The race detector checks that nothing is read while it is changed.
func TestNothingIsLostWhenTakenOver(t *testing.T) {
	c := startChanging(t)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for _, use := range []func(){c.read, c.ask} {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					use()
				}
			}
		})
	}
	for n := range 12 {
		c.change(n, c.leaves)
		c.clock.Advance(20 * time.Minute) // what is behind URLs is due
		if n%3 == 2 {
			// two at once: the second takes over what the first has just begun to look at
			if err := c.Load(c.global(100+n), c.sites()); err != nil {
				t.Fatal(err)
			}
		}
		c.Reload(c.global(n), c.sites())
	}
	close(stop)
	readers.Wait()

	c.change(100, c.last)
	c.store(c.last["storage"])
	c.clock.Advance(time.Hour)
	c.Reload(c.global(100), c.sites())
	for name, id := range map[string]string{"file": "in-file", "http": "at-url", "storage": "in-storage", "certificate": "by-certificate", "jwks": "by-jwks"} {
		c.Caller(t, "h1", c.last[name]).Eventually(t, http.StatusOK).WantClient(t, id)
		c.Caller(t, "h1", c.leaves[name]).Eventually(t, http.StatusUnauthorized)
	}
	for _, name := range []string{"denied", "crl", "crl-url"} {
		c.Caller(t, "h1", c.last[name]).Eventually(t, http.StatusUnauthorized)
	}
	for _, name := range []string{"crl", "crl-url"} {
		c.Caller(t, "h1", c.leaves[name]).Eventually(t, http.StatusOK).WantClient(t, "chained")
	}
}
