package forwarded_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// TestRealProxies_A9 runs proxies in front of Caddy, where they are installed, with the
// configurations of the guide.
func TestRealProxies_A9(t *testing.T) {
	for _, p := range frontProxies {
		t.Run(p.section, func(t *testing.T) {
			f := rig.NewForwardingRig(t)
			// Caddy recognizes the proxy by its address over plain HTTP and by its key
			// over TLS
			run(f, rig.ForwardingRealm("address", p.forwarder.Format, "from 127.0.0.1")+
				rig.ForwardingRealm("key", p.forwarder.Format, "peer_key "+rig.KeyHash(f.Proxy)), "address", "key")
			plainConfig, tlsConfig := p.configs(t, f)
			plain, overTLS := p.start(t, f, plainConfig), p.start(t, f, tlsConfig)
			t.Run("plain HTTP", func(t *testing.T) { checkThroughProxy(f, t, p, "address", plain) })
			t.Run("TLS", func(t *testing.T) { checkThroughProxy(f, t, p, "key", overTLS) })
			t.Run("a proxy that is not trusted", func(t *testing.T) {
				c := f.Caller(t, "h1", f.Billing)
				c.Address = "127.0.0.1:" + plain
				rig.WantRefusal(f.Rig, t, c.Get("https://api.test/key/guarded"), "key", "certificate_missing")
				rig.WantNoToken(f.Rig, t, rig.AskToken(c, "https://auth.test/key", "billing.partner"), "certificate_missing")
			})
		})
	}
}

func checkThroughProxy(f *rig.ForwardingRig, t *testing.T, p frontProxy, realm, port string) {
	by := p.forwarder
	through := func(leaf *testpki.Leaf) *rig.Caller {
		c := f.Caller(t, "h1", leaf)
		c.Address = "127.0.0.1:" + port
		return c
	}
	guarded, optional, auth := "https://api.test/"+realm+"/guarded", "https://api.test/"+realm+"/optional", "https://auth.test/"+realm
	billing, sensor, stranger, nobody := through(f.Billing), through(f.Sensor), through(f.Stranger), through(nil)

	billing.Get(guarded).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
	sensor.Get(guarded).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
	rig.WantRefusal(f.Rig, t, stranger.Get(guarded), realm, "certificate_unknown")
	rig.WantRefusal(f.Rig, t, nobody.Get(guarded), realm, "certificate_missing")
	nobody.Get(optional).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
	rig.WantToken(f.Rig, t, rig.AskToken(billing, auth, "billing.partner"), "billing.partner", f.Billing)
	rig.WantToken(f.Rig, t, rig.AskToken(sensor, auth, "sensor-7"), "sensor-7", f.Sensor)
	rig.WantNoToken(f.Rig, t, rig.AskToken(nobody, auth, "billing.partner"), "certificate_missing")
	rig.WantNoToken(f.Rig, t, rig.AskToken(sensor, auth, "billing.partner"), "client_mismatch")

	// the proxy replaces the header if the client sends it
	for _, spelling := range []string{by.Header, strings.ToLower(by.Header), strings.ReplaceAll(by.Header, "-", "_"), strings.Replace(by.Header, "-Cert", "_Cert", 1)} {
		for _, values := range [][]string{{by.Value(f.Billing)}, {by.Value(f.Billing), by.Value(f.Billing)}, {""}, {"garbage"}} {
			forged := rig.With(spelling, values...)
			rig.WantRefusal(f.Rig, t, nobody.Get(guarded, forged), realm, "certificate_missing")
			nobody.Get(optional, forged).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
			sensor.Get(guarded, forged).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
			rig.WantRefusal(f.Rig, t, stranger.Get(guarded, forged), realm, "certificate_unknown")
			rig.WantNoToken(f.Rig, t, rig.AskToken(nobody, auth, "billing.partner", forged), "certificate_missing")
		}
	}
	// the client cannot complete its chain with a header, and a long chain gets through
	issuer := testpki.MustIntermediate(t, testpki.MustIntermediate(t, f.CA))
	below := testpki.MustIssue(t, issuer, testpki.CommonName("billing"))
	chain := rig.With("Client-Cert-Chain", forwarded.ClientCertChain(below.Presented()[1:]))
	rig.WantRefusal(f.Rig, t, through(below).Get(guarded, chain), realm, "certificate_untrusted")

	// the client cannot make the proxy drop the header, or at least gains nothing
	forged := func(r *http.Request) {
		r.Header["Connection"] = []string{"close, " + by.Header}
		r.Header[by.Header] = []string{by.Value(f.Billing)}
	}
	if p.dropsNamed {
		rig.WantRefusal(f.Rig, t, through(f.Sensor).Get(guarded, forged), realm, "certificate_missing")
	} else {
		through(f.Sensor).Get(guarded, forged).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
	}
	rig.WantRefusal(f.Rig, t, through(nil).Get(guarded, forged), realm, "certificate_missing")
}

// notWord matches what the name of a folder had better not have.
var notWord = regexp.MustCompile(`[^A-Za-z0-9]+`)

// TestProxiesThatSayItInTheirOwnWay_A9 checks that mistakes in the configuration of a
// proxy are refused, with words that say what to change.
func TestProxiesThatSayItInTheirOwnWay_A9(t *testing.T) {
	for _, test := range []struct{ section, right, wrong, format, with, without string }{
		{"nginx", "$ssl_client_escaped_cert", "$ssl_client_cert", "nginx", "the line breaks of the PEM are lost", ""},
		{"nginx", "$ssl_client_escaped_cert", "$ssl_client_fingerprint", "nginx", "this is a fingerprint", ""},
		{"nginx", "$ssl_client_escaped_cert", "$ssl_client_verify", "nginx", "this is the result of a verification", "this is no certificate"},
		{"nginx", "$ssl_client_escaped_cert", "$ssl_client_s_dn", "nginx", "this is a name", ""},
		{"nginx", "X-SSL-Client-Cert $", "Client-Cert $", "rfc9440", "use format nginx", ""},
		{"HAProxy", "%[ssl_c_der,base64]", "%[ssl_c_der,base64]", "nginx", "use format haproxy", ""},
		{"HAProxy", "%[ssl_c_der,base64]", "%[ssl_c_der,hex]", "haproxy", "this is DER in hex", ""},
		{"HAProxy", "%[ssl_c_der,base64]", "%[ssl_c_sha1,hex]", "haproxy", "this is a fingerprint", ""},
		{"HAProxy", "%[ssl_c_der,base64]", "%[ssl_c_s_dn]", "haproxy", "this is a name", ""},
		{"Apache", "expr=%{escape:%{SSL_CLIENT_CERT}}", "%{SSL_CLIENT_CERT}s", "nginx", "the line breaks of the PEM are lost", "Apache writes (null) for a variable that is not set"},
		{"Apache", "expr=%{escape:%{SSL_CLIENT_CERT}}", "expr=%{base64:%{SSL_CLIENT_CERT}}", "nginx", "this is PEM in base64", ""},
		{"Caddy", ":{http.request.tls.client.certificate_der_base64}:", "{http.request.tls.client.certificate_der_base64}", "rfc9440", "use format haproxy", ""},
		{"Caddy", "certificate_der_base64", "certificate_base64", "rfc9440", "the name of a variable", "the name of a variable"},
	} {
		t.Run(notWord.ReplaceAllString(test.section+"_"+test.wrong, "_"), func(t *testing.T) {
			f := rig.NewForwardingRig(t)
			run(f, rig.ForwardingRealm("edge", test.format, "from 127.0.0.1"), "edge")
			p := frontProxies[slices.IndexFunc(frontProxies, func(p frontProxy) bool { return p.section == test.section })]
			config, _ := p.configs(t, f)
			port := p.start(t, f, strings.Replace(config, test.right, test.wrong, 1))
			for leaf, words := range map[*testpki.Leaf]string{f.Sensor: test.with, nil: test.without} {
				c, reason := f.Caller(t, "h1", leaf), "certificate_unsuitable"
				if c.Address = "127.0.0.1:" + port; words == "" {
					reason, words = "certificate_missing", "the proxy forwarded no certificate in "
				}
				if entry := rig.WantRefusal(f.Rig, t, c.Get("https://api.test/edge/guarded"), "edge", reason); !strings.Contains(entry.Str("detail"), words) {
					t.Errorf("with %v, detail is %q, want %q in it", leaf != nil, entry["detail"], words)
				}
			}
		})
	}
}

// TestConnectThroughProxies_A9_D6 checks that the proxies, configured as documented,
// open no tunnel for CONNECT. Inside a tunnel, the caller could write the next request
// with the trusted header.
func TestConnectThroughProxies_A9_D6(t *testing.T) {
	for _, p := range frontProxies {
		t.Run(p.section, func(t *testing.T) {
			f := rig.NewForwardingRig(t)
			// an unguarded site answers CONNECT like any other request
			f.Start(rig.ForwardingRealm("address", p.forwarder.Format, "from 127.0.0.1")+rig.ForwardingRealm("key", p.forwarder.Format, "peer_key "+rig.KeyHash(f.Proxy)),
				forwardingSites("address", "key")+"https://public.test:@HTTPS@ {\n\timport mtls\n\trespond public\n}\nhttp://public.test:@HTTP@ {\n\timport plain\n\trespond public\n}\n")
			plainConfig, tlsConfig := p.configs(t, f)
			plain, overTLS := p.start(t, f, plainConfig), p.start(t, f, tlsConfig)
			for realm, port := range map[string]string{"address": plain, "key": overTLS} {
				for _, host := range []string{"public.test", "api.test"} {
					for _, protocol := range p.protocols {
						t.Run(realm+"/"+host+"/"+protocol, func(t *testing.T) { smuggleThrough(f, t, p, realm, port, host, protocol) })
					}
					for _, leaf := range []*testpki.Leaf{nil, f.Sensor} {
						t.Run(realm+"/"+host, func(t *testing.T) { connectThrough(f, t, p, realm, port, host, leaf) })
					}
				}
			}
			c := f.Caller(t, "h1", f.Billing)
			c.Address = "127.0.0.1:" + plain
			c.Get("https://api.test/address/guarded").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		})
	}
}

// connectThrough sends a CONNECT and then, on the same connection, a request
// that names another client.
func connectThrough(f *rig.ForwardingRig, t *testing.T, p frontProxy, realm, port, host string, leaf *testpki.Leaf) {
	config := f.TLSConfig(leaf)
	config.ServerName = host
	conn, err := tls.Dial("tcp", "127.0.0.1:"+port, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(rig.Patience))
	in := bufio.NewReader(conn)
	fmt.Fprintf(conn, "CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n", host, host)
	response, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode < 400 && !p.relaysConnect {
		t.Errorf("the response to CONNECT is %s", response.Status)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, p.forged(f, realm, "Connection: close\r\n"))
	answer, err := io.ReadAll(in) // empty if the proxy closed the connection
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the proxy neither responded nor closed the connection: %q", answer)
	}
	if strings.Contains(string(answer), "billing.partner") {
		t.Errorf("the caller was taken for another client: %q", answer)
	}
	wantNotTold(f, t)
}

// smuggleThrough sends such a request as the body of a CONNECT.
func smuggleThrough(f *rig.ForwardingRig, t *testing.T, p frontProxy, realm, port, host, protocol string) {
	c := f.Caller(t, protocol, f.Sensor)
	c.Address = "127.0.0.1:" + port
	for _, tunnel := range []string{"", "h2c", "websocket"} {
		if _, err := c.Try(http.MethodConnect, "https://"+host+"/", func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(p.forged(f, realm, ""))), -1
			if tunnel != "" && protocol == "h3" {
				r.Proto = tunnel
			}
		}); err != nil {
			t.Fatal(err)
		}
		c.Get("https://api.test/"+realm+"/guarded").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
	}
	wantNotTold(f, t)
}

// forged returns a request that passes for billing.partner if it comes from the proxy.
func (p frontProxy) forged(f *rig.ForwardingRig, realm, more string) string {
	return fmt.Sprintf("GET /%s/guarded HTTP/1.1\r\nHost: api.test\r\n%s%s: %s\r\n\r\n", realm, more, p.forwarder.Header, p.forwarder.Value(f.Billing))
}

// TestRefusedTunnelEndsTheConnection_A9_D6 checks that what a proxy wrote behind the
// CONNECT of its caller is not read as the next request.
func TestRefusedTunnelEndsTheConnection_A9_D6(t *testing.T) {
	f := rig.NewForwardingRig(t)
	f.Start(rig.ForwardingRealm("edge", "rfc9440", "from 127.0.0.1"), `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		realm edge
	}
	reverse_proxy @UP@
}
`)
	conn := f.Raw(t, nil, "api.test")
	request := "Host: api.test\nClient-Cert: " + rig.ByRFC9440.Value(f.Billing) + "\n\n"
	conn.Write("CONNECT api.test:443 HTTP/1.1\n" + request + "GET / HTTP/1.1\n" + request)
	answers, err := io.ReadAll(conn.In)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the connection was not closed")
	}
	if text := string(answers); !strings.HasPrefix(text, "HTTP/1.1 405 ") || strings.Count(text, "HTTP/1.1 ") != 1 {
		t.Errorf("the answers are %q", text)
	}
	wantNotTold(f, t)
}

// wantNotTold fails the test if the upstream was told that the caller is billing.partner.
func wantNotTold(f *rig.ForwardingRig, t *testing.T) {
	t.Helper()
	f.Upstream.Mu.Lock()
	defer f.Upstream.Mu.Unlock()
	if slices.Contains(f.Upstream.Told, "billing.partner") {
		t.Error("the upstream received another client's name")
	}
}
