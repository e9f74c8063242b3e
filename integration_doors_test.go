package mtlsauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// host sends the request to a host that is not the one of the TLS handshake.
func host(name string) func(*http.Request) {
	return func(r *http.Request) { r.Host = name }
}

// withSNI makes the caller's handshakes name another host than the URL's. An
// address is not sent as SNI at all.
func (c *caller) withSNI(name string) *caller {
	c.tls.ServerName = name
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

func TestD1_SNIOfOneHostAndNameOfAnother(t *testing.T) {
	hosts := []string{"api.test", "API.TEST", "api.test.", "api.test:443", "aPi.TeSt:1"}
	for mode, options := range map[string]string{"strict": "", "insecure_off": "servers {\nstrict_sni_host insecure_off\n}\n"} {
		r := newRig(t)
		billing := r.issue("billing")
		r.selfSigned("sensor")
		r.start(options+billingAndSensor, publicAndGuarded)
		check := func(t *testing.T, got reply) {
			t.Helper()
			if got.seen != nil || got.status == http.StatusOK && got.body != "public" && got.body != "" {
				t.Errorf("the request reached the API: %d %.200q", got.status, got.body)
			}
			if mode == "strict" && got.status != http.StatusMisdirectedRequest {
				t.Errorf("status %d, want 421", got.status)
			}
		}
		for _, leaf := range []*testpki.Leaf{billing, nil} {
			for _, name := range hosts {
				for _, protocol := range rigProtocols {
					t.Run(fmt.Sprint(mode, "/", name, "/", protocol, "/", leaf != nil), func(t *testing.T) {
						c := r.caller(t, protocol, leaf).withSNI("public.test")
						got := c.get("https://public.test/", host(name))
						check(t, got)
						if mode == "insecure_off" && strings.EqualFold(strings.Split(name, ":")[0], "api.test") {
							// this connection asked for no certificate
							got.wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
						}
						// no SNI: Caddy asks for no certificate then
						got = r.caller(t, protocol, leaf).withSNI("127.0.0.1").get("https://public.test/", host(name))
						check(t, got)
						if mode == "insecure_off" && strings.EqualFold(strings.Split(name, ":")[0], "api.test") {
							got.wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
						}
						r.caller(t, protocol, nil).get("https://public.test/").wantStatus(t, http.StatusOK)
					})
				}
			}
			t.Run(fmt.Sprint(mode, "/absolute form/", leaf != nil), func(t *testing.T) {
				for _, target := range []string{"https://api.test/", "http://api.test/", "https://api.test:443/", "//api.test/"} {
					check(t, r.raw(t, leaf, "public.test").send("GET "+target+" HTTP/1.1\nHost: api.test\n\n"))
					got := r.raw(t, leaf, "public.test").send("GET " + target + " HTTP/1.1\nHost: public.test\n\n")
					if got.seen != nil {
						t.Errorf("%s reached the API", target)
					}
				}
			})
		}
		// the right name still works
		r.caller(t, "h2", billing).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	}
}

func TestD2_TLSPolicyLost(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(billingAndSensor, `
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
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			for _, name := range []string{"api.test", "public.test", "localhost"} {
				r.caller(t, protocol, nil).get("https://"+name+"/", with("X-Client-Id", "billing.partner")).
					wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			}
			for _, name := range []string{"public.test", "localhost"} { // nobody asks for the certificate
				r.caller(t, protocol, billing).get("https://"+name+"/").wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			}
			// the site of its own asks, beside the wildcard that does not
			r.caller(t, protocol, billing).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		})
	}
	r.reload(billingAndSensor, `
https://localhost:@HTTPS@ {
	import tls_without_client_auth
	mtls_auth
	reverse_proxy @UP@
}
`)
	r.logs.wait(t, "the warning that nobody is asked for a certificate", func(e logEntry) bool {
		return e.str("level") == "warn" && e.str("directive") == "mtls_auth"
	})
}

func TestD3_PathsOfAnOpenListAreExact(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(billingAndSensor, `
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
			got := r.raw(t, nil, "api.test").send("GET " + target + " HTTP/1.1\nHost: api.test\nX-Client-ID: billing.partner\n\n")
			if got.seen == nil {
				if got.status < 400 {
					t.Errorf("status %d", got.status)
				}
				return
			}
			got.wantClient(t, "")
			seen, _, _ := strings.Cut(got.seen.URI, "?")
			if clean := path.Clean(strings.ToLower(seen)); clean != "/health" {
				t.Errorf("%s reached the API without an identity as %s", target, got.seen.URI)
			}
			got = r.raw(t, billing, "api.test").send("GET " + target + " HTTP/1.1\nHost: api.test\nX-Client-ID: x\n\n")
			if got.seen != nil && got.seen.Header.Get("X-Client-Id") == "x" {
				t.Logf("%s is open, and open paths are not cleaned", target)
			}
		})
	}
}

func TestD4_OtherDoors(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	socket := path.Join(r.dir, "s")
	bind := "bind unix/" + socket
	if len(socket) > 100 { // more than the path of a socket may have
		bind = "import plain"
	}
	r.start(strings.Replace(billingAndSensor, "client sensor-7", "issuer https://auth.test\nclient sensor-7", 1), `
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
	forged := with("X-Client-Id", "billing.partner")
	token := withBody("application/x-www-form-urlencoded", "grant_type=client_credentials&client_id=billing.partner")
	plain, unix := r.plain(t), r.plain(t)
	unix.network, unix.address = "unix", socket
	for name, c := range map[string]*caller{"api.test": plain, "unix.test": unix} {
		t.Run(name, func(t *testing.T) {
			if c == unix && len(socket) > 100 {
				t.Skipf("SKIPPED: the path of the socket has %d characters, more than a socket may have", len(socket))
			}
			c.t = t
			c.get("http://"+name+"/", forged).wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			for _, endpoint := range []string{"/connect/token", "/connect/mtls/token"} {
				got := c.do(http.MethodPost, "http://"+name+endpoint, token, forged).wantStatus(t, http.StatusUnauthorized)
				if asJSON(t, got.body)["error"] != "invalid_client" || got.header.Get("WWW-Authenticate") != "" {
					t.Errorf("%s answers %q", endpoint, got.body)
				}
			}
		})
	}
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			for _, target := range []string{"/rewritten", "/stripped/x", "/invoked", "/error"} {
				got := r.caller(t, protocol, nil).get("https://api.test"+target, forged)
				if got.seen != nil || got.status < 400 {
					t.Errorf("%s without a certificate: %d %.200q", target, got.status, got.body)
				}
				if target != "/error" { // an error inside an error route is Caddy's own 500
					got.wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
				}
				got = r.caller(t, protocol, billing).get("https://api.test"+target, forged)
				if got.seen == nil || got.seen.Header.Get("X-Client-Id") != "billing.partner" {
					t.Errorf("%s with a certificate: %d %.200q", target, got.status, got.body)
				}
			}
			if got := r.caller(t, protocol, nil).get("https://api.test/answer"); got.body != "" {
				t.Errorf("respond answers nobody with %q", got.body)
			}
		})
	}
}

func TestD7_OrderOfDirectives(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
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
	realm := strings.Replace(billingAndSensor, "client sensor-7", "issuer https://auth.test\nclient sensor-7", 1)
	r.https, r.http = rigPort(t), rigPort(t)
	config, err := r.adapt(realm, site)
	if err != nil {
		t.Fatal(err)
	}
	_, handlers, _ := strings.Cut(string(config), `"api.test"`)
	var order []string
	for _, word := range []string{"mtls_issuer", "mtls_auth", "authentication", "templates", "static_response", "reverse_proxy"} {
		order = append(order, fmt.Sprintf("%09d %s", strings.Index(handlers, `"handler":"`+word+`"`), word))
	}
	if !json.Valid(config) || !slices.IsSorted(order) || strings.Contains(strings.Join(order, " "), "-") {
		t.Errorf("the handlers stand at %q in %s", order, config)
	}
	// request_header comes later by itself: what it does is the operator's own will
	r.start(realm, site+`
https://public.test:@HTTPS@ {
	import mtls
	route {
		request_header X-Client-ID "operator says so"
		mtls_auth
		reverse_proxy @UP@
	}
}
`)
	for _, protocol := range rigProtocols {
		r.caller(t, protocol, billing).get("https://api.test/").wantClient(t, "operator says so")
		r.caller(t, protocol, billing).get("https://public.test/").wantClient(t, "billing.partner")
	}
}

// TestD2_InternationalName: a site whose name is not ASCII asks for certificates
// under the name that TLS has for it.
func TestD2_InternationalName(t *testing.T) {
	for _, site := range []string{"bücher.test", "xn--bcher-kva.test"} {
		r := newRig(t)
		billing := r.issue("billing")
		r.selfSigned("sensor")
		r.start(billingAndSensor, `
https://`+site+`:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
`)
		for _, protocol := range []string{"h1", "h2"} {
			anonymous, known := r.caller(t, protocol, nil), r.caller(t, protocol, billing)
			anonymous.tls.InsecureSkipVerify, known.tls.InsecureSkipVerify = true, true // the rig's server has a name in ASCII
			got, err := anonymous.try(http.MethodGet, "https://xn--bcher-kva.test/", with("X-Client-Id", "billing.partner"))
			if err != nil || got.seen != nil || got.status != http.StatusUnauthorized {
				t.Errorf("%s: without a certificate the answer is %d %q, %v", site, got.status, got.body, err)
			}
			known.get("https://xn--bcher-kva.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		}
	}
}
