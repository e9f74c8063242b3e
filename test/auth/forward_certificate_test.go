package auth_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// apiBehind starts an upstream with the given handler and returns its address.
func apiBehind(t *testing.T, api http.HandlerFunc) string {
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func wantHeader(t *testing.T, got rig.Reply, name string, want ...string) {
	t.Helper()
	if got.Seen == nil {
		t.Fatalf("the request did not reach the upstream: %d %.300q", got.Status, got.Body)
	}
	if values := got.Seen.Header[name]; strings.Join(values, "|") != strings.Join(want, "|") || len(values) != len(want) {
		t.Errorf("the upstream got %s: %.300q, want %.300q", name, values, want)
	}
}

const forwardCertificateSites = `
https://api.test:@HTTPS@ {
	import mtls
	log
	mtls_auth {
		forward_certificate
	}
	reverse_proxy @UP@
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
		forward_certificate
	}
	reverse_proxy @UP@
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_auth {
		report_only
		allow billing.partner
		forward_certificate
	}
	reverse_proxy @UP@
}
https://alias.test:@HTTPS@ {
	import mtls
	route {
		mtls_auth {
			forward_certificate
		}
		mtls_auth {
			report_only
			allow nobody-else
			header_up X-Second {http.mtls.client_id}
			forward_certificate
		}
		reverse_proxy @UP@
	}
}
`

// TestForwardCertificate checks that the upstream gets the certificate of an
// admitted client and its verified chain, whatever headers and chain the client
// sent.
func TestForwardCertificate(t *testing.T) {
	r := rig.New(t)
	sub := testpki.MustIntermediate(t, r.CA, testpki.CommonName("Sub CA"))
	billing, sensor, stranger := r.IssueBy(sub, "billing"), r.SelfSigned("sensor"), r.IssueBy(r.OtherCA, "billing")
	// present an unordered chain with unrelated certificates and without the root
	billing = testpki.Presenting(billing, r.OtherCA.Cert, sensor.Cert, sub.Cert)
	rig.WithoutProxyLog(r)
	r.Start(rig.BillingAndSensor, forwardCertificateSites)

	clientCert, chain := forwarded.ClientCert(billing.Cert), forwarded.ClientCert(sub.Cert)+", "+forwarded.ClientCert(r.CA.Cert)
	forged := []func(*http.Request){
		rig.With("Client-Cert", ":Zm9yZ2Vk:", ":YWdhaW4=:"), rig.With("Client-Cert-Chain", ":Zm9yZ2Vk:"), rig.With("client_cert", ":Zm9yZ2Vk:"), rig.With("Client_Cert_Chain", ":Zm9yZ2Vk:"),
	}
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			asBilling, asSensor, asStranger, asNobody := r.Caller(t, protocol, billing), r.Caller(t, protocol, sensor), r.Caller(t, protocol, stranger), r.Caller(t, protocol, nil)
			for _, host := range []string{"api.test", "public.test", "other.test"} {
				for range 2 { // the first request, then one served from memory
					got := asBilling.Get("https://"+host+"/", forged...).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
					wantHeader(t, got, "Client-Cert", clientCert)
					wantHeader(t, got, "Client-Cert-Chain", chain)
				}
			}
			for _, host := range []string{"api.test", "public.test"} {
				got := asSensor.Get("https://"+host+"/", forged...).WantClient(t, "sensor-7")
				wantHeader(t, got, "Client-Cert", forwarded.ClientCert(sensor.Cert))
				wantHeader(t, got, "Client-Cert-Chain")
				asStranger.Get("https://"+host+"/", forged...).WantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
			}
			asNobody.Get("https://api.test/", forged...).WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			// the certificate of a client that was not admitted is not forwarded
			for _, got := range []rig.Reply{
				asNobody.Get("https://public.test/", forged...), asNobody.Get("https://other.test/", forged...),
				asStranger.Get("https://other.test/", forged...), asSensor.Get("https://other.test/", forged...),
				asBilling.Get("https://alias.test/", forged...), // the second directive would refuse it
			} {
				got.WantStatus(t, http.StatusOK)
				wantHeader(t, got, "Client-Cert")
				wantHeader(t, got, "Client-Cert-Chain")
			}
		})
	}
	// in HTTP/1.1, Connection can ask the proxy to drop headers
	got := r.Raw(t, billing, "api.test").Send("GET / HTTP/1.1\nHost: api.test\nConnection: close, Client-Cert, client-cert-chain\n\n")
	wantHeader(t, got, "Client-Cert", clientCert)
	wantHeader(t, got, "Client-Cert-Chain", chain)
}

// TestForwardCertificateBehindAProxy checks that the upstream gets the certificate
// that a proxy forwarded, in the format of RFC 9440, with the chain that the realm
// verified.
func TestForwardCertificateBehindAProxy(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	rig.WithoutProxyLog(r)
	realm := strings.Replace(rig.BillingAndSensor, "client billing.partner", "forwarded_certificate FORMAT {\nfrom 127.0.0.1\n}\nclient billing.partner", 1)
	sites := strings.Replace(rig.OneSite, "mtls_auth", "mtls_auth {\nforward_certificate\n}", 1)
	for _, by := range []rig.Forwarder{rig.ByRFC9440, rig.ByNginx} {
		global := strings.Replace(realm, "FORMAT", by.Format, 1)
		if r.Caddyfile == "" {
			r.Start(global, sites)
		} else {
			r.Reload(global, sites)
		}
		got := r.Caller(t, "h2", nil).Get("https://api.test/", by.Send(billing), rig.With("Client-Cert-Chain", forwarded.ClientCert(r.OtherCA.Cert))).WantClient(t, "billing.partner")
		wantHeader(t, got, "Client-Cert", forwarded.ClientCert(billing.Cert))
		wantHeader(t, got, "Client-Cert-Chain", forwarded.ClientCert(r.CA.Cert))
		wantHeader(t, got, "X-Ssl-Client-Cert")
	}
}

// TestVaryOnWhatCachesCannotSee_E4 checks that Vary becomes * when it lists a
// header that Caddy sets, because caches in front of Caddy do not see that header
// (RFC 9440 §2.4).
func TestVaryOnWhatCachesCannotSee_E4(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	rig.WithoutProxyLog(r)
	api := apiBehind(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Vary"] = r.URL.Query()["vary"]
		w.Header().Set("Cache-Control", "public, max-age=60")
		switch r.URL.Path {
		case "/304":
			w.WriteHeader(http.StatusNotModified)
		case "/empty":
		default:
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, "hello")
		}
	})
	site := func(host, options string) string {
		return fmt.Sprintf("https://%s:@HTTPS@ {\n\timport mtls\n\tmtls_auth {\n%s\n\t}\n\thandle /own {\n\t\theader Vary Client-Cert\n\t\trespond \"own\"\n\t}\n"+
			"\thandle /fails {\n\t\theader Vary Client-Cert\n\t\terror 418\n\t}\n\treverse_proxy %s\n}\n", host, options, api)
	}
	token := "optional\nforward_token {\naudience urn:api\n}\nheader_up X-Tenant {http.mtls.claim.tenant}"
	r.Start(rig.IssuerRealm(""), site("api.test", "optional\nforward_certificate")+site("public.test", token)+site("other.test", "optional"))
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, c := range []*rig.Caller{r.Caller(t, protocol, billing), r.Caller(t, protocol, nil)} {
				for _, tc := range []struct {
					host, path, query, want string
				}{
					{"api.test", "/", "vary=Client-Cert", "*"},
					{"api.test", "/", "vary=client-cert-chain", "*"},
					{"api.test", "/", "vary=Accept-Encoding,%20CLIENT-CERT%20", "*"},
					{"api.test", "/", "vary=Accept-Encoding&vary=Client-Cert", "*"},
					{"api.test", "/", "vary=X-Client-ID", "*"},
					{"api.test", "/", "vary=Accept-Encoding,Client-Certainly", "Accept-Encoding,Client-Certainly"},
					{"api.test", "/", "vary=Accept-Encoding&vary=Origin", "Accept-Encoding|Origin"},
					{"api.test", "/", "vary=Authorization", "Authorization"},
					{"api.test", "/", "", ""},
					{"api.test", "/304", "vary=Client-Cert", "*"},
					{"api.test", "/empty", "vary=Client-Cert", "*"},
					{"api.test", "/own", "", "*"},
					{"api.test", "/fails", "", "*"},
					{"public.test", "/", "vary=Authorization", "*"},
					{"public.test", "/", "vary=X-Tenant", "*"},
					{"public.test", "/", "vary=Accept", "Accept"},
					{"other.test", "/", "vary=Client-Cert", "Client-Cert"}, // this site does not set the header
				} {
					for _, method := range []string{http.MethodGet, http.MethodHead} {
						got := c.Do(method, "https://"+tc.host+tc.path+"?"+tc.query)
						if vary := strings.Join(got.Header["Vary"], "|"); vary != tc.want {
							t.Errorf("%s %s%s?%s: Vary is %q, want %q", method, tc.host, tc.path, tc.query, vary, tc.want)
						}
					}
				}
			}
		})
	}
}

// TestErrorRoutesAreNotTold_E4 checks that upstreams of error routes get neither
// the certificate nor a token, because mtls_auth cannot adjust the Vary of their
// responses.
func TestErrorRoutesAreNotTold_E4(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	rig.WithoutProxyLog(r)
	site := func(host, options string) string {
		return fmt.Sprintf("https://%s:@HTTPS@ {\n\timport mtls\n\tmtls_auth {\n%s\n\t}\n\thandle /fails {\n\t\terror 418\n\t}\n"+
			"\treverse_proxy @UP@\n\thandle_errors {\n\t\treverse_proxy @UP@\n\t}\n}\n", host, options)
	}
	r.Start(rig.IssuerRealm(""), site("api.test", "forward_certificate")+site("public.test", "forward_token {\naudience urn:api\n}\nheader_up X-Who {http.mtls.client_id}"))
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, billing)
		for url, names := range map[string][]string{
			"https://api.test/":    {"Client-Cert", "Client-Cert-Chain"},
			"https://public.test/": {"Authorization"},
		} {
			told := c.Get(url).WantStatus(t, http.StatusOK).Seen.Header
			after := c.Get(url + "fails").Seen.Header
			for _, name := range names {
				if told.Get(name) == "" || after.Get(name) != "" {
					t.Errorf("%s %s: %s is %q, and %q in the error route", protocol, url, name, told.Get(name), after.Get(name))
				}
			}
			if id := told.Get("X-Who") + told.Get("X-Client-ID"); id == "" || after.Get("X-Who")+after.Get("X-Client-ID") != id {
				t.Errorf("%s %s: the client is %q in the error route, want %q", protocol, url, after.Get("X-Client-ID"), id)
			}
		}
	}
}

// TestForwardedResponsesStream checks that responses are streamed and that
// upgrades work.
func TestForwardedResponsesStream(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	rig.WithoutProxyLog(r)
	next := make(chan struct{})
	api := apiBehind(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Client-Cert")
		w.Header().Set("Trailer", "X-End")
		w.WriteHeader(http.StatusEarlyHints)
		for i := range 3 {
			fmt.Fprintf(w, "line %d\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
		w.Header().Set("X-End", "yes")
	})
	r.Start(rig.IssuerRealm(""), `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		forward_certificate
		forward_token {
			audience urn:api
		}
	}
	handle /upgrade {
		reverse_proxy @UP@
	}
	reverse_proxy `+api+` {
		flush_interval -1
	}
}
`)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), rig.Patience)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.test/", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := r.Caller(t, protocol, billing).Rt.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if vary := response.Header["Vary"]; len(vary) != 1 || vary[0] != "*" {
				t.Errorf("Vary is %q", vary)
			}
			body := bufio.NewReader(response.Body)
			for i := range 3 { // the upstream waits until each line has arrived
				if line := readLine(t, body); line != fmt.Sprintf("line %d", i) {
					t.Errorf("line %d is %q", i, line)
				}
				next <- struct{}{}
			}
			if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
				t.Errorf("after the last line: %q, %v", rest, err)
			}
			if end := response.Trailer.Get("X-End"); end != "yes" {
				t.Errorf("the trailer is %q", end)
			}
		})
	}
	conn := r.Raw(t, billing, "api.test")
	conn.Write("GET /upgrade HTTP/1.1\nHost: api.test\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n")
	response, err := http.ReadResponse(conn.In, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the upgrade failed: %v %v", response, err)
	}
	if line := readLine(t, conn.In); line != `hello ["billing.partner"]` {
		t.Errorf("the upstream sent %q", line)
	}
	conn.Write("ping\n")
	if line := readLine(t, conn.In); line != "echo ping" {
		t.Errorf("the upgraded connection returned %q", line)
	}
}
