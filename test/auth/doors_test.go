package auth_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// host sets the Host of the request, so that it differs from the TLS server name.
func host(name string) func(*http.Request) {
	return func(r *http.Request) { r.Host = name }
}

// withSNI sets the server name of the caller's handshakes, so that it differs from
// the URL's host. Go sends no SNI if the name is an IP address.
func withSNI(c *rig.Caller, name string) *rig.Caller {
	c.Tls.ServerName = name
	return c
}

const publicAndGuarded = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
https://public.test:@HTTPS@ {
	import tls_without_client_auth
	respond "public"
}
`

func TestSNIOfOneHostAndNameOfAnother_D1(t *testing.T) {
	hosts := []string{"api.test", "API.TEST", "api.test.", "api.test:443", "aPi.TeSt:1"}
	for mode, options := range map[string]string{"strict": "", "insecure_off": "servers {\nstrict_sni_host insecure_off\n}\n"} {
		r := rig.New(t)
		billing := r.Issue("billing")
		r.SelfSigned("sensor")
		r.Start(options+rig.BillingAndSensor, publicAndGuarded)
		check := func(t *testing.T, got rig.Reply) {
			t.Helper()
			if got.Seen != nil || got.Status == http.StatusOK && got.Body != "public" && got.Body != "" {
				t.Errorf("the request reached the upstream: %d %.200q", got.Status, got.Body)
			}
			if mode == "strict" && got.Status != http.StatusMisdirectedRequest {
				t.Errorf("status %d, want 421", got.Status)
			}
		}
		for _, leaf := range []*testpki.Leaf{billing, nil} {
			for _, name := range hosts {
				for _, protocol := range rig.Protocols {
					t.Run(fmt.Sprint(mode, "/", name, "/", protocol, "/", leaf != nil), func(t *testing.T) {
						c := withSNI(r.Caller(t, protocol, leaf), "public.test")
						got := c.Get("https://public.test/", host(name))
						check(t, got)
						if mode == "insecure_off" && strings.EqualFold(strings.Split(name, ":")[0], "api.test") {
							// the server requested no certificate on this connection
							got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
						}
						// without SNI, Caddy requests no certificate
						got = withSNI(r.Caller(t, protocol, leaf), "127.0.0.1").Get("https://public.test/", host(name))
						check(t, got)
						if mode == "insecure_off" && strings.EqualFold(strings.Split(name, ":")[0], "api.test") {
							got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
						}
						r.Caller(t, protocol, nil).Get("https://public.test/").WantStatus(t, http.StatusOK)
					})
				}
			}
			t.Run(fmt.Sprint(mode, "/absolute form/", leaf != nil), func(t *testing.T) {
				for _, target := range []string{"https://api.test/", "http://api.test/", "https://api.test:443/", "//api.test/"} {
					check(t, r.Raw(t, leaf, "public.test").Send("GET "+target+" HTTP/1.1\nHost: api.test\n\n"))
					got := r.Raw(t, leaf, "public.test").Send("GET " + target + " HTTP/1.1\nHost: public.test\n\n")
					if got.Seen != nil {
						t.Errorf("%s reached the upstream", target)
					}
				}
			})
		}
		// the matching name still works
		r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
}

func TestTLSPolicyLost_D2(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, `
https://*.test:@HTTPS@ {
	import tls_without_client_auth
	mtls_auth
	reverse_proxy @UP@
}
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
https://localhost:@HTTPS@ {
	import tls_without_client_auth
	mtls_auth
	reverse_proxy @UP@
}
`)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, name := range []string{"api.test", "public.test", "localhost"} {
				r.Caller(t, protocol, nil).Get("https://"+name+"/", rig.With("X-Client-Id", "billing.partner")).
					WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			}
			for _, name := range []string{"public.test", "localhost"} { // these sites do not request a certificate
				r.Caller(t, protocol, billing).Get("https://"+name+"/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			}
			// api.test requests a certificate although the wildcard site does not
			r.Caller(t, protocol, billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		})
	}
	r.Reload(rig.BillingAndSensor, `
https://localhost:@HTTPS@ {
	import tls_without_client_auth
	mtls_auth
	reverse_proxy @UP@
}
`)
	r.Logs.Wait(t, "the warning that nobody is asked for a certificate", func(e rig.LogEntry) bool {
		return e.Str("level") == "warn" && e.Str("directive") == "mtls_auth"
	})
}

func TestPathsOfAnOpenListAreExact_D3(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, `
https://api.test:@HTTPS@ {
	import mtls
	@guarded not path /health
	mtls_auth @guarded
	reverse_proxy @UP@
}
`)
	targets := []string{
		"/health/../api", "/health/..%2fapi", "/health%2f..%2fapi", "/health%2F%2E%2E%2Fapi", "/health/%2e%2e/api", "/health/x", "/healthx", "/health;/api",
		"/health;x", "/health%00", "/health%20", "/health/", "/health//", "/api", "//api", "/./api", "/API", "/api/health", "/api?/health", "/api#/health", "/health%3f", "/health\\..\\api",
	}
	for _, target := range targets {
		t.Run(target, func(t *testing.T) {
			got := r.Raw(t, nil, "api.test").Send("GET " + target + " HTTP/1.1\nHost: api.test\nX-Client-ID: billing.partner\n\n")
			if got.Seen == nil {
				if got.Status < 400 {
					t.Errorf("status %d", got.Status)
				}
				return
			}
			got.WantClient(t, "")
			seen, _, _ := strings.Cut(got.Seen.URI, "?")
			if clean := path.Clean(strings.ToLower(seen)); clean != "/health" {
				t.Errorf("%s reached the upstream without an identity as %s", target, got.Seen.URI)
			}
			got = r.Raw(t, billing, "api.test").Send("GET " + target + " HTTP/1.1\nHost: api.test\nX-Client-ID: x\n\n")
			if got.Seen != nil && got.Seen.Header.Get("X-Client-Id") == "x" {
				t.Logf("%s is open, and open paths are not cleaned", target)
			}
		})
	}
}

func TestOtherDoors_D4(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	socket := path.Join(r.Dir, "s")
	bind := "bind unix/" + socket
	if len(socket) > 100 { // too long for the path of a Unix socket
		bind = "import plain"
	}
	r.Start(strings.Replace(rig.BillingAndSensor, "client sensor-7", "issuer https://auth.test\nclient sensor-7", 1), `
# Caddy keeps the first handler of a named route only, unless they are in a route
&(guarded) {
	route {
		mtls_auth
		reverse_proxy @UP@
	}
}
https://api.test:@HTTPS@ {
	import mtls
	handle /rewritten {
		rewrite /inner
		route {
			mtls_auth /inner
			reverse_proxy @UP@
		}
	}
	handle_path /stripped/* {
		mtls_auth
		reverse_proxy @UP@
	}
	handle /invoked {
		invoke guarded
	}
	handle /error {
		error 404
	}
	handle /answer {
		mtls_auth
		respond "answer"
	}
	handle_errors 404 {
		mtls_auth {
			header_up X-Client-ID {http.mtls.client_id}
		}
		reverse_proxy @UP@
	}
}
http://api.test:@HTTP@ {
	import plain
	mtls_issuer
	mtls_auth
	reverse_proxy @UP@
}
http://unix.test {
	`+bind+`
	mtls_issuer
	mtls_auth
	reverse_proxy @UP@
}
`)
	forged := rig.With("X-Client-Id", "billing.partner")
	token := rig.WithBody("application/x-www-form-urlencoded", "grant_type=client_credentials&client_id=billing.partner")
	plain, unix := r.Plain(t), r.Plain(t)
	unix.Network, unix.Address = "unix", socket
	for name, c := range map[string]*rig.Caller{"api.test": plain, "unix.test": unix} {
		t.Run(name, func(t *testing.T) {
			if c == unix && len(socket) > 100 {
				t.Skipf("SKIPPED: the socket path has %d characters, too long for a Unix socket", len(socket))
			}
			c.T = t
			c.Get("http://"+name+"/", forged).WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			for _, endpoint := range []string{"/connect/token", "/connect/mtls/token"} {
				got := c.Do(http.MethodPost, "http://"+name+endpoint, token, forged).WantStatus(t, http.StatusBadRequest)
				if rig.JSON(t, got.Body)["error"] != "invalid_client" || got.Header.Get("WWW-Authenticate") != "" {
					t.Errorf("%s answered %q", endpoint, got.Body)
				}
			}
		})
	}
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, target := range []string{"/rewritten", "/stripped/x", "/invoked", "/error"} {
				got := r.Caller(t, protocol, nil).Get("https://api.test"+target, forged)
				if got.Seen != nil || got.Status < 400 {
					t.Errorf("%s without a certificate: %d %.200q", target, got.Status, got.Body)
				}
				if target != "/error" { // Caddy answers an error inside an error route with 500
					got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
				}
				got = r.Caller(t, protocol, billing).Get("https://api.test"+target, forged)
				if got.Seen == nil || got.Seen.Header.Get("X-Client-Id") != "billing.partner" {
					t.Errorf("%s with a certificate: %d %.200q", target, got.Status, got.Body)
				}
			}
			if got := r.Caller(t, protocol, nil).Get("https://api.test/answer"); got.Body != "" { // because of handle_errors
				t.Errorf("without a certificate, respond answered %q", got.Body)
			}
		})
	}
}

func TestOrderOfDirectives_D7(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	site := `
https://api.test:@HTTPS@ {
	import mtls
	reverse_proxy @UP@
	respond /never "never"
	templates
	request_header X-Client-ID "operator says so"
	basic_auth /never {
		bob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG
	}
	mtls_auth
	mtls_issuer
}
`
	realm := strings.Replace(rig.BillingAndSensor, "client sensor-7", "issuer https://auth.test\nclient sensor-7", 1)
	r.HTTPS, r.HTTP = rig.FreePort(t), rig.FreePort(t)
	config, err := r.Adapt(realm, site)
	if err != nil {
		t.Fatal(err)
	}
	_, handlers, _ := strings.Cut(string(config), `"api.test"`)
	var order []string
	for _, word := range []string{"mtls_issuer", "mtls_auth", "authentication", "templates", "static_response", "reverse_proxy"} {
		order = append(order, fmt.Sprintf("%09d %s", strings.Index(handlers, `"handler":"`+word+`"`), word))
	}
	if !json.Valid(config) || !slices.IsSorted(order) || strings.Contains(strings.Join(order, " "), "-") {
		t.Errorf("wrong handler order %q in %s", order, config)
	}
	// Caddy runs request_header after mtls_auth, so the operator's value wins
	r.Start(realm, site+`
https://public.test:@HTTPS@ {
	import mtls
	route {
		request_header X-Client-ID "operator says so"
		mtls_auth
		reverse_proxy @UP@
	}
}
`)
	for _, protocol := range rig.Protocols {
		r.Caller(t, protocol, billing).Get("https://api.test/").WantClient(t, "operator says so")
		r.Caller(t, protocol, billing).Get("https://public.test/").WantClient(t, "billing.partner")
	}
}

// TestInternationalName_D2 checks that a site with a non-ASCII name requests
// certificates under its ASCII name, which TLS uses.
func TestInternationalName_D2(t *testing.T) {
	for _, site := range []string{"bücher.test", "xn--bcher-kva.test"} {
		r := rig.New(t)
		billing := r.Issue("billing")
		r.SelfSigned("sensor")
		r.Start(rig.BillingAndSensor, `
https://`+site+`:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
`)
		for _, protocol := range []string{"h1", "h2"} {
			anonymous, known := r.Caller(t, protocol, nil), r.Caller(t, protocol, billing)
			anonymous.Tls.InsecureSkipVerify, known.Tls.InsecureSkipVerify = true, true // the rig's server certificate lacks this name
			got, err := anonymous.Try(http.MethodGet, "https://xn--bcher-kva.test/", rig.With("X-Client-Id", "billing.partner"))
			if err != nil || got.Seen != nil || got.Status != http.StatusUnauthorized {
				t.Errorf("%s: without a certificate: got %d %q, %v", site, got.Status, got.Body, err)
			}
			known.Get("https://xn--bcher-kva.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		}
	}
}
