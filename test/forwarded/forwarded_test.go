package forwarded_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// realm returns the name of the realm that expects this kind of proxy.
func realm(f rig.Forwarder) string { return strings.ReplaceAll(f.Format, "_", "-") }

// malformed returns values that resemble what the proxy would send.
func malformed(f rig.Forwarder, leaf *testpki.Leaf) []string {
	value := f.Value(leaf)
	values := []string{"garbage", "null", "-", value[:len(value)/2]}
	if f.Format == "envoy" { // envoy's list may contain unknown elements
		return append(values, value+",", "Cert="+rig.Base64DER(leaf), "Subject=\"CN=billing\"")
	}
	return append(values, value[1:], value+"x", value+",x")
}

// forwardingPaths returns routes that guard /<realm>/guarded, and /<realm>/optional,
// where a certificate is optional.
func forwardingPaths(realms ...string) string {
	var text strings.Builder
	for _, realm := range realms {
		text.WriteString(`
	handle /` + realm + `/guarded {
		mtls_auth {
			realm ` + realm + `
		}
		reverse_proxy @UP@
	}
	handle /` + realm + `/optional {
		mtls_auth {
			realm ` + realm + `
			optional
		}
		reverse_proxy @UP@
	}
	handle /` + realm + `/report {
		mtls_auth {
			realm ` + realm + `
			report_only
		}
		reverse_proxy @UP@
	}
	mtls_issuer {
		realm ` + realm + `
	}
`)
	}
	return text.String()
}

func forwardingSites(realms ...string) string {
	paths := forwardingPaths(realms...)
	return "https://api.test:@HTTPS@, https://auth.test:@HTTPS@ {\n\timport mtls\n" + paths + "}\n" +
		"http://api.test:@HTTP@, http://auth.test:@HTTP@ {\n\timport plain\n" + paths + "}\n"
}

// startForwarding starts a realm for each kind of proxy. Its trusted_proxies option
// makes Caddy believe any claim about the caller's address.
func startForwarding(t *testing.T, options string) *rig.ForwardingRig {
	f := rig.NewForwardingRig(t)
	global, realms := "servers {\n\ttrusted_proxies static 127.0.0.0/8\n}\n", []string(nil)
	for _, proxy := range rig.Forwarders {
		global += rig.ForwardingRealm(realm(proxy), proxy.Format, options)
		realms = append(realms, realm(proxy))
	}
	run(f, global, realms...)
	return f
}

// run starts Caddy and waits for the signing keys, which are generated in the
// background.
func run(f *rig.ForwardingRig, global string, realms ...string) {
	f.Start(global, forwardingSites(realms...))
	c := f.Caller(f.T, "h2", nil)
	for _, realm := range realms {
		c.Get("https://auth.test/"+realm+"/.well-known/openid-configuration/jwks").WantStatus(f.T, http.StatusOK)
	}
}

// TestForwardedCertificateExpiring checks that the days that are left are those of the
// forwarded certificate, and not of the proxy's own.
func TestForwardedCertificateExpiring(t *testing.T) {
	f := rig.NewForwardingRig(t)
	lasting := func(left time.Duration) testpki.Option {
		return testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(left))
	}
	const day, header = 24 * time.Hour, "Client-Cert-Days-Left"
	soon := testpki.MustIssue(t, f.CA, testpki.CommonName("billing"), lasting(10*day+time.Hour))
	later := testpki.MustIssue(t, f.CA, testpki.CommonName("billing"), lasting(90*day))
	hops := map[string]*testpki.Leaf{"without one": nil, "expiring first": testpki.MustIssue(t, f.CA, testpki.CommonName("billing"), lasting(2*day))}
	proxy := rig.Forwarders[0]
	global := rig.ForwardingRealm(realm(proxy), proxy.Format, "from 127.0.0.1")
	run(f, strings.Replace(global, "\tforwarded_certificate", "\tcertificate_expiring {\n\t\tresponse_header\n\t}\n\tforwarded_certificate", 1), realm(proxy))
	url := "https://api.test/" + realm(proxy) + "/guarded"
	for name, own := range hops {
		hop := f.Caller(t, "h2", own)
		for want, leaf := range map[string]*testpki.Leaf{"10": soon, "": later} {
			if got := hop.Get(url, proxy.Send(leaf)).WantStatus(t, http.StatusOK).Header.Get(header); got != want {
				t.Errorf("hop %s: %q days left, want %q", name, got, want)
			}
		}
		if got := hop.Get(url).WantStatus(t, http.StatusUnauthorized).Header.Get(header); got != "" {
			t.Errorf("hop %s: %q days left for nobody", name, got)
		}
	}
}

func TestForwardedByATrustedProxy_A9_R21(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.1")
	expired := testpki.MustIssue(t, f.CA, testpki.CommonName("billing"), testpki.Validity(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)))
	for _, proxy := range rig.Forwarders {
		for _, protocol := range rig.Protocols {
			// the proxy may present a certificate itself, even that of a client
			for name, own := range map[string]*testpki.Leaf{"hop without a certificate": nil, "hop with one": f.Proxy} {
				t.Run(proxy.Format+"/"+protocol+"/"+name, func(t *testing.T) {
					hop := f.Caller(t, protocol, own)
					guarded, optional := "https://api.test/"+realm(proxy)+"/guarded", "https://api.test/"+realm(proxy)+"/optional"
					auth := "https://auth.test/" + realm(proxy)
					for _, url := range []string{guarded, optional} {
						hop.Get(url, proxy.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
						hop.Get(url, proxy.Send(f.Sensor)).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
						if entry := rig.WantRefusal(f.Rig, t, hop.Get(url, proxy.Send(f.Stranger)), realm(proxy), "certificate_unknown"); entry["forwarded"] != true {
							t.Errorf("the log line does not mark the certificate as forwarded: %v", entry)
						}
						rig.WantRefusal(f.Rig, t, hop.Get(url, proxy.Send(expired)), realm(proxy), "certificate_expired")
						for _, malformed := range malformed(proxy, f.Billing) {
							rig.WantRefusal(f.Rig, t, hop.Get(url, rig.With(proxy.Header, malformed)), realm(proxy), "certificate_unsuitable")
						}
						rig.WantRefusal(f.Rig, t, hop.Get(url, rig.With(proxy.Header, proxy.Value(f.Billing), proxy.Value(f.Billing))), realm(proxy), "certificate_unsuitable")
						rig.WantRefusal(f.Rig, t, hop.Get(url, rig.With(proxy.Header, "", proxy.Value(f.Billing))), realm(proxy), "certificate_unsuitable")
					}
					for _, none := range []func(*http.Request){rig.With("X-Other", "1"), rig.With(proxy.Header, ""), rig.With(proxy.Header, " \t ")} {
						rig.WantRefusal(f.Rig, t, hop.Get(guarded, none), realm(proxy), "certificate_missing")
						hop.Get(optional, none).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
						rig.WantNoToken(f.Rig, t, rig.AskToken(hop, auth, "the-proxy", none), "certificate_missing")
					}
					report := "https://api.test/" + realm(proxy) + "/report"
					hop.Get(report, rig.With(proxy.Header, "garbage")).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
					hop.Get(report).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
					hop.Get(report, proxy.Send(f.Sensor)).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)

					rig.WantToken(f.Rig, t, rig.AskToken(hop, auth, "billing.partner", proxy.Send(f.Billing)), "billing.partner", f.Billing)
					rig.WantToken(f.Rig, t, rig.AskToken(hop, auth, "sensor-7", proxy.Send(f.Sensor)), "sensor-7", f.Sensor)
					rig.WantNoToken(f.Rig, t, rig.AskToken(hop, auth, "the-proxy", proxy.Send(f.Sensor)), "client_mismatch")
					rig.WantNoToken(f.Rig, t, rig.AskToken(hop, auth, "billing.partner", proxy.Send(expired)), "certificate_expired")
					rig.WantNoToken(f.Rig, t, rig.AskToken(hop, auth, "billing.partner", rig.With(proxy.Header, "garbage")), "certificate_unsuitable")
				})
			}
		}
	}
}

// spoofedAddresses lists headers with which callers may claim another address.
var spoofedAddresses = map[string]string{
	"none": "", "X-Forwarded-For": "127.0.0.2", "X-Real-Ip": "127.0.0.2", "Forwarded": "for=127.0.0.2",
	"X-Client-Ip": "127.0.0.2", "Cf-Connecting-Ip": "127.0.0.2", "True-Client-Ip": "127.0.0.2",
}

func TestForwardedByAnybodyElse_A9(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.2 127.1.0.0/16 ::1")
	for _, proxy := range rig.Forwarders {
		for _, protocol := range rig.Protocols {
			t.Run(proxy.Format+"/"+protocol, func(t *testing.T) {
				guarded, optional := "https://api.test/"+realm(proxy)+"/guarded", "https://api.test/"+realm(proxy)+"/optional"
				auth := "https://auth.test/" + realm(proxy)
				nobody, sensor := f.Caller(t, protocol, nil), f.Caller(t, protocol, f.Sensor)
				for header, address := range spoofedAddresses {
					spoof := rig.With(header, address)
					rig.WantRefusal(f.Rig, t, nobody.Get(guarded, spoof, proxy.Send(f.Billing)), realm(proxy), "certificate_missing")
					nobody.Get(optional, spoof, proxy.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
					sensor.Get(guarded, spoof, proxy.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
				}
				// the header is ignored even if malformed
				for _, value := range []string{"", "garbage"} {
					sensor.Get(guarded, rig.With(proxy.Header, value)).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
					nobody.Get(optional, rig.With(proxy.Header, value)).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
				}
				rig.WantNoToken(f.Rig, t, rig.AskToken(nobody, auth, "billing.partner", proxy.Send(f.Billing)), "certificate_missing")
				rig.WantNoToken(f.Rig, t, rig.AskToken(sensor, auth, "billing.partner", proxy.Send(f.Billing)), "client_mismatch")
				rig.WantToken(f.Rig, t, rig.AskToken(sensor, auth, "sensor-7", proxy.Send(f.Billing)), "sensor-7", f.Sensor)
			})
		}
		t.Run(proxy.Format+"/plain HTTP", func(t *testing.T) {
			nobody := f.Plain(t)
			rig.WantRefusal(f.Rig, t, nobody.Get("http://api.test/"+realm(proxy)+"/guarded", rig.With("X-Forwarded-For", "127.0.0.2"), rig.With("X-Forwarded-Proto", "https"), proxy.Send(f.Billing)), realm(proxy), "certificate_missing")
			nobody.Get("http://api.test/"+realm(proxy)+"/optional", proxy.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
			rig.WantNoToken(f.Rig, t, rig.AskToken(nobody, "http://auth.test/"+realm(proxy), "billing.partner", proxy.Send(f.Billing)), "certificate_missing")
		})
	}
}

// TestIgnoredHeaderIsLogged checks that the log line, and it alone, says that a header
// did not count and why.
func TestIgnoredHeaderIsLogged(t *testing.T) {
	f := rig.NewForwardingRig(t)
	options := map[string]string{
		"address": "from 127.0.0.2",
		"key":     "peer_key " + rig.KeyHash(f.Proxy),
		"both":    "from 127.0.0.2\n\t\tpeer_key " + rig.KeyHash(f.Proxy),
	}
	global, realms := "", []string(nil)
	for name, option := range options {
		global += rig.ForwardingRealm(name, "rfc9440", option)
		realms = append(realms, name)
	}
	run(f, global, realms...)
	const address, key = "'from' does not have this address", "'peer_key' does not have the key of its certificate"
	for name, because := range map[string]string{"address": address, "key": key, "both": address + " and " + key} {
		guarded, auth := "https://api.test/"+name+"/guarded", "https://auth.test/"+name
		ignored := "; header Client-Cert from 127.0.0.1 was ignored because " + because + "; if this is your proxy, name it in forwarded_certificate"
		for leaf, detail := range map[*testpki.Leaf]string{nil: "no certificate was presented", f.Stranger: "no client "} {
			c := f.Caller(t, "h2", leaf)
			for _, got := range []rig.Reply{
				c.Get(guarded, rig.ByRFC9440.Send(f.Billing)),
				c.Get(guarded, rig.With("Client-Cert", "garbage")),
				rig.AskToken(c, auth, "billing.partner", rig.ByRFC9440.Send(f.Billing)),
			} {
				entry := f.Logs.WithErrorID(t, "client refused", got.ErrorID)
				if text := entry.Str("detail"); !strings.HasPrefix(text, detail) || !strings.HasSuffix(text, ignored) {
					t.Errorf("%s: detail is %q, want %q and %q", name, text, detail, ignored)
				}
				if strings.Contains(got.Body+got.Header.Get("WWW-Authenticate"), "ignored") {
					t.Errorf("%s: the caller is told: %q", name, got.Body)
				}
			}
			for _, none := range []func(*http.Request){rig.With("X-Other", "1"), rig.With("Client-Cert", " ")} {
				if text := f.Logs.WithErrorID(t, "client refused", c.Get(guarded, none).ErrorID).Str("detail"); strings.Contains(text, "ignored") {
					t.Errorf("%s: without the header, detail is %q", name, text)
				}
			}
		}
		if name != "key" {
			proxy := rig.CallerFrom(f.Rig, t, "h2", f.Stranger, "127.0.0.2")
			entry := rig.WantRefusal(f.Rig, t, proxy.Get(guarded), name, "certificate_missing")
			if text := entry.Str("detail"); text != "the proxy forwarded no certificate in Client-Cert" {
				t.Errorf("%s: detail is %q", name, text)
			}
		}
	}
}

// TestHeaderWithoutForwardedCertificateIsLogged checks that the log line of a caller
// without a certificate, and it alone, says that the header of a proxy did not count
// because the realm takes certificates from no proxy.
func TestHeaderWithoutForwardedCertificateIsLogged(t *testing.T) {
	f := rig.NewForwardingRig(t)
	none := strings.ReplaceAll(rig.ForwardingRealm("none", "rfc9440", "from 127.0.0.1"), "\tforwarded_certificate rfc9440 {\n\t\tfrom 127.0.0.1\n\t}\n", "")
	run(f, none, "none")
	const guarded, auth = "https://api.test/none/guarded", "https://auth.test/none"
	nobody, stranger := f.Caller(t, "h2", nil), f.Caller(t, "h2", f.Stranger)
	detail := func(got rig.Reply) string {
		if strings.Contains(got.Body+got.Header.Get("WWW-Authenticate"), "ignored") {
			t.Errorf("the caller is told: %q", got.Body)
		}
		return f.Logs.WithErrorID(t, "client refused", got.ErrorID).Str("detail")
	}
	for _, header := range []string{
		"Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Client-Cert",
		"X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Leaf", "X-ARR-ClientCert", "Cf-Client-Cert-Der-Base64",
	} {
		ignored := "; header " + http.CanonicalHeaderKey(header) + " from 127.0.0.1 was ignored because the realm has no forwarded_certificate; if this is your proxy, add one that names it"
		for _, got := range []rig.Reply{
			nobody.Get(guarded, rig.With(header, "garbage")),
			f.Plain(t).Get("http://api.test/none/guarded", rig.With(header, "garbage")),
			rig.AskToken(nobody, auth, "billing.partner", rig.With(header, "garbage")),
		} {
			if text := detail(got); !strings.HasPrefix(text, "no certificate was presented") || !strings.HasSuffix(text, ignored) {
				t.Errorf("%s: detail is %q, want it to end in %q", header, text, ignored)
			}
		}
		for _, got := range []rig.Reply{nobody.Get(guarded, rig.With(header, " ")), stranger.Get(guarded, rig.With(header, "garbage"))} {
			if text := detail(got); strings.Contains(text, "ignored") {
				t.Errorf("%s: detail is %q", header, text)
			}
		}
	}
}

// TestOneAddressOfTwo_A9 checks that, on one listener, only the connection's source
// address counts.
func TestOneAddressOfTwo_A9(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.2")
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			hop, direct := rig.CallerFrom(f.Rig, t, protocol, f.Proxy, "127.0.0.2"), rig.CallerFrom(f.Rig, t, protocol, f.Proxy, "127.0.0.3")
			for _, proxy := range rig.Forwarders {
				url := "https://api.test/" + realm(proxy) + "/guarded"
				for header := range spoofedAddresses {
					spoof := rig.With(header, "127.0.0.3")
					got := hop.Get(url, spoof, proxy.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
					if got.Seen.Header.Get("X-Forwarded-For") == "" {
						t.Error("reverse_proxy does not send the caller's address")
					}
				}
				rig.WantRefusal(f.Rig, t, hop.Get(url), realm(proxy), "certificate_missing")
				direct.Get(url, rig.With("X-Forwarded-For", "127.0.0.2"), proxy.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "the-proxy").WantGone(t)
				direct.Get(url).WantStatus(t, http.StatusOK).WantClient(t, "the-proxy")
			}
		})
	}
}
