package mtlsauth

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// forwarder is a kind of proxy in front: the header it sends, and how it
// writes a certificate there.
type forwarder struct {
	format, header string
	value          func(leaf *testpki.Leaf) string
}

// realm is the name of the realm that expects this kind of proxy.
func (f forwarder) realm() string { return strings.ReplaceAll(f.format, "_", "-") }

// send makes the request one that the proxy forwards for the client.
func (f forwarder) send(leaf *testpki.Leaf) func(*http.Request) { return with(f.header, f.value(leaf)) }

// malformed are values that are near to one that the proxy would send.
func (f forwarder) malformed(leaf *testpki.Leaf) []string {
	value := f.value(leaf)
	values := []string{"garbage", "null", "-", value[:len(value)/2]}
	if f.format == "envoy" { // a list, in which there may be words that are not known
		return append(values, value+",", "Cert="+base64DER(leaf), "Subject=\"CN=billing\"")
	}
	return append(values, value[1:], value+"x", value+",x")
}

func escapedPEM(leaf *testpki.Leaf) string {
	return strings.ReplaceAll(url.QueryEscape(string(leaf.PEM())), "+", "%20")
}

func base64DER(leaf *testpki.Leaf) string { return base64.StdEncoding.EncodeToString(leaf.Cert.Raw) }

var (
	byRFC9440 = forwarder{"rfc9440", "Client-Cert", func(leaf *testpki.Leaf) string { return validators.ClientCert(leaf.Cert) }}
	byNginx   = forwarder{"nginx", "X-SSL-Client-Cert", escapedPEM}
	byHAProxy = forwarder{"haproxy", "X-SSL-Client-Cert", base64DER}
	byEnvoy   = forwarder{"envoy", "X-Forwarded-Client-Cert", func(leaf *testpki.Leaf) string {
		sum := sha256.Sum256(leaf.Cert.Raw)
		return `By=spiffe://mesh.test/caddy;Hash=` + hex.EncodeToString(sum[:]) + `;Cert="` + escapedPEM(leaf) + `";Subject="` + leaf.Cert.Subject.String() + `";URI=`
	}}
	byALB = forwarder{"aws_alb", "X-Amzn-Mtls-Clientcert", func(leaf *testpki.Leaf) string {
		return strings.NewReplacer("%2B", "+", "%3D", "=", "%2F", "/").Replace(escapedPEM(leaf))
	}}

	forwarders = []forwarder{byRFC9440, byNginx, byHAProxy, byEnvoy, byALB}
)

// forwardingRealm has the clients of billingAndSensor, and the proxy itself as
// one more: it must never be taken for the caller.
func forwardingRealm(name, format, options string) string {
	return `
mtls ` + name + ` {
	trust_pool file "@DIR@/clients-ca.pem"
	client billing.partner {
		subject "CN=billing"
		scopes  invoices.read
	}
	client sensor-7 {
		certificate "@DIR@/sensor.pem"
		scopes      telemetry
	}
	client the-proxy {
		certificate "@DIR@/proxy.pem"
		scopes      everything
	}
	forwarded_certificate ` + format + ` {
		` + options + `
	}
	issuer https://auth.test/` + name + `
}
`
}

// forwardingPaths guard /<realm>/guarded, and /<realm>/optional where callers
// may come without a certificate.
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

// forwardingRig has the certificates of forwardingRealm.
type forwardingRig struct {
	*rig
	billing, sensor, stranger, proxy *testpki.Leaf
}

func newForwardingRig(t *testing.T) *forwardingRig {
	r := newRig(t)
	f := &forwardingRig{r, r.issue("billing"), r.selfSigned("sensor"), r.issue("stranger"), r.selfSigned("proxy")}
	// Caddy itself logs the headers of a request as it came, to which the logs
	// of these tests are not to be held
	r.change = func(config map[string]any) {
		member(t, config, "logging", "logs", "default")["exclude"] = []string{"events", "http.log"}
	}
	return f
}

// startForwarding runs a realm for each kind of proxy. trusted_proxies says
// that Caddy itself believes what anybody says of the caller's address.
func startForwarding(t *testing.T, options string) *forwardingRig {
	f := newForwardingRig(t)
	global, realms := "servers {\n\ttrusted_proxies static 127.0.0.0/8\n}\n", []string(nil)
	for _, proxy := range forwarders {
		global += forwardingRealm(proxy.realm(), proxy.format, options)
		realms = append(realms, proxy.realm())
	}
	f.run(global, realms...)
	return f
}

// run starts Caddy and waits for the signing keys, which are made in the
// background.
func (f *forwardingRig) run(global string, realms ...string) {
	f.start(global, forwardingSites(realms...))
	c := f.caller(f.t, "h2", nil)
	for _, realm := range realms {
		c.get("https://auth.test/"+realm+"/.well-known/openid-configuration/jwks").wantStatus(f.t, http.StatusOK)
	}
}

// callerFrom is caller with an address of its own.
func (r *rig) callerFrom(t *testing.T, protocol string, leaf *testpki.Leaf, address string) *caller {
	t.Helper()
	from := net.ParseIP(address)
	probe, err := net.ListenPacket("udp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Skipf("this machine cannot send from %s: %v", address, err)
	}
	c := r.caller(t, protocol, leaf)
	switch transport := c.rt.(type) {
	case *http.Transport:
		_ = probe.Close()
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).DialContext(ctx, c.network, c.address)
		}
	case *http3.Transport:
		quicTransport := &quic.Transport{Conn: probe}
		t.Cleanup(func() { _, _ = quicTransport.Close(), probe.Close() })
		transport.Dial = func(ctx context.Context, _ string, tlsConfig *tls.Config, config *quic.Config) (*quic.Conn, error) {
			to, err := net.ResolveUDPAddr("udp", c.address)
			if err != nil {
				return nil, err
			}
			return quicTransport.DialEarly(ctx, to, tlsConfig, config)
		}
	}
	return c
}

// gatewayHeaders are the headers in which gateways name a client, folded as
// [isNamed] folds them. A trailing * stands for any ending.
var gatewayHeaders = []string{
	"client-cert", "client-cert-chain", "x-forwarded-client-cert", "x-forwarded-tls-client-cert*", "x-ssl-*", "ssl-client-*",
	"x-client-cert*", "x-amzn-mtls-*", "cf-client-cert*", "x-arr-clientcert", "x-consumer-*",
}

// isNamed reports whether a header has one of the names, as a server sees it
// for which case does not matter and every other character is a hyphen.
func isNamed(header string, names ...string) bool {
	folded := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(header))
	return slices.ContainsFunc(names, func(name string) bool {
		prefix, open := strings.CutSuffix(name, "*")
		return folded == name || open && strings.HasPrefix(folded, prefix)
	})
}

// wantGone fails the test if the API behind was sent a certificate.
func (got reply) wantGone(t *testing.T) reply {
	t.Helper()
	if got.seen == nil {
		t.Fatalf("the request did not reach the API: %d %.300q", got.status, got.body)
	}
	for _, header := range []http.Header{got.seen.Header, got.seen.Trailer} {
		for name := range header {
			if isNamed(name, append([]string{"edge-certificate*"}, gatewayHeaders...)...) {
				t.Errorf("the API was sent %s", name)
			}
		}
	}
	return got
}

// wantRefusal fails the test unless mtls_auth refused, with this reason in the
// log.
func (r *rig) wantRefusal(t *testing.T, got reply, realm, reason string) logEntry {
	t.Helper()
	word := rigRefused
	if reason == "certificate_missing" {
		word = reason
	}
	got.wantRefused(t, realm, http.StatusUnauthorized, word)
	entry := r.logs.withErrorID(t, "client refused", got.errorID)
	if entry.str("reason") != reason {
		t.Errorf("the reason is %q (%s), want %q", entry["reason"], entry["detail"], reason)
	}
	return entry
}

func askToken(c *caller, url, clientID string, options ...func(*http.Request)) reply {
	c.t.Helper()
	options = append(options, withBody("application/x-www-form-urlencoded", "grant_type=client_credentials&client_id="+clientID))
	return c.do(http.MethodPost, url+"/connect/token", options...)
}

// wantToken fails the test unless the response is a token of the client, bound
// to the certificate.
func (r *rig) wantToken(t *testing.T, got reply, clientID string, leaf *testpki.Leaf) {
	t.Helper()
	got.wantStatus(t, http.StatusOK)
	token, _ := asJSON(t, got.body)["access_token"].(string)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%.300q is no token", got.body)
	}
	r.secrets = append(r.secrets, parts[2])
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Subject      string `json:"sub"`
		Confirmation struct {
			Thumbprint string `json:"x5t#S256"`
		} `json:"cnf"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.Subject != clientID || claims.Confirmation.Thumbprint != validators.X5tS256(sha256.Sum256(leaf.Cert.Raw)) {
		t.Errorf("the token is %s, want one of %s, bound to %s", payload, clientID, validators.X5tS256(sha256.Sum256(leaf.Cert.Raw)))
	}
}

func (r *rig) wantNoToken(t *testing.T, got reply, reason string) {
	t.Helper()
	got.wantStatus(t, http.StatusUnauthorized)
	if code := asJSON(t, got.body)["error"]; code != "invalid_client" || got.header.Get("WWW-Authenticate") != "" {
		t.Errorf("the token endpoint says %q", got.body)
	}
	if entry := r.logs.withErrorID(t, "client refused", got.errorID); entry.str("reason") != reason {
		t.Errorf("the reason is %q (%s), want %q", entry["reason"], entry["detail"], reason)
	}
}

func TestA9_R21_ForwardedByATrustedProxy(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.1")
	expired := testpki.MustIssue(t, f.ca, testpki.CommonName("billing"), testpki.Validity(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)))
	for _, proxy := range forwarders {
		for _, protocol := range rigProtocols {
			// the proxy itself may have a certificate, even a client's
			for name, own := range map[string]*testpki.Leaf{"hop without a certificate": nil, "hop with one": f.proxy} {
				t.Run(proxy.format+"/"+protocol+"/"+name, func(t *testing.T) {
					hop := f.caller(t, protocol, own)
					guarded, optional := "https://api.test/"+proxy.realm()+"/guarded", "https://api.test/"+proxy.realm()+"/optional"
					auth := "https://auth.test/" + proxy.realm()
					for _, url := range []string{guarded, optional} {
						hop.get(url, proxy.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
						hop.get(url, proxy.send(f.sensor)).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7").wantGone(t)
						if entry := f.wantRefusal(t, hop.get(url, proxy.send(f.stranger)), proxy.realm(), "certificate_unknown"); entry["forwarded"] != true {
							t.Errorf("the log line does not say that the certificate was forwarded: %v", entry)
						}
						f.wantRefusal(t, hop.get(url, proxy.send(expired)), proxy.realm(), "certificate_expired")
						for _, malformed := range proxy.malformed(f.billing) {
							f.wantRefusal(t, hop.get(url, with(proxy.header, malformed)), proxy.realm(), "certificate_unsuitable")
						}
						f.wantRefusal(t, hop.get(url, with(proxy.header, proxy.value(f.billing), proxy.value(f.billing))), proxy.realm(), "certificate_unsuitable")
						f.wantRefusal(t, hop.get(url, with(proxy.header, "", proxy.value(f.billing))), proxy.realm(), "certificate_unsuitable")
					}
					for _, none := range []func(*http.Request){with("X-Other", "1"), with(proxy.header, ""), with(proxy.header, " \t ")} {
						f.wantRefusal(t, hop.get(guarded, none), proxy.realm(), "certificate_missing")
						hop.get(optional, none).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
						f.wantNoToken(t, askToken(hop, auth, "the-proxy", none), "certificate_missing")
					}
					report := "https://api.test/" + proxy.realm() + "/report"
					hop.get(report, with(proxy.header, "garbage")).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
					hop.get(report).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
					hop.get(report, proxy.send(f.sensor)).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7").wantGone(t)

					f.wantToken(t, askToken(hop, auth, "billing.partner", proxy.send(f.billing)), "billing.partner", f.billing)
					f.wantToken(t, askToken(hop, auth, "sensor-7", proxy.send(f.sensor)), "sensor-7", f.sensor)
					f.wantNoToken(t, askToken(hop, auth, "the-proxy", proxy.send(f.sensor)), "client_mismatch")
					f.wantNoToken(t, askToken(hop, auth, "billing.partner", proxy.send(expired)), "certificate_expired")
					f.wantNoToken(t, askToken(hop, auth, "billing.partner", with(proxy.header, "garbage")), "certificate_unsuitable")
				})
			}
		}
	}
}

// spoofedAddresses are what callers may say of where they come from.
var spoofedAddresses = map[string]string{
	"none": "", "X-Forwarded-For": "127.0.0.2", "X-Real-Ip": "127.0.0.2", "Forwarded": "for=127.0.0.2",
	"X-Client-Ip": "127.0.0.2", "Cf-Connecting-Ip": "127.0.0.2", "True-Client-Ip": "127.0.0.2",
}

func TestA9_ForwardedByAnybodyElse(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.2 127.1.0.0/16 ::1")
	for _, proxy := range forwarders {
		for _, protocol := range rigProtocols {
			t.Run(proxy.format+"/"+protocol, func(t *testing.T) {
				guarded, optional := "https://api.test/"+proxy.realm()+"/guarded", "https://api.test/"+proxy.realm()+"/optional"
				auth := "https://auth.test/" + proxy.realm()
				nobody, sensor := f.caller(t, protocol, nil), f.caller(t, protocol, f.sensor)
				for header, address := range spoofedAddresses {
					spoof := with(header, address)
					f.wantRefusal(t, nobody.get(guarded, spoof, proxy.send(f.billing)), proxy.realm(), "certificate_missing")
					nobody.get(optional, spoof, proxy.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
					sensor.get(guarded, spoof, proxy.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7").wantGone(t)
				}
				// of no consequence, however bad it is
				for _, value := range []string{"", "garbage"} {
					sensor.get(guarded, with(proxy.header, value)).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7").wantGone(t)
					nobody.get(optional, with(proxy.header, value)).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
				}
				f.wantNoToken(t, askToken(nobody, auth, "billing.partner", proxy.send(f.billing)), "certificate_missing")
				f.wantNoToken(t, askToken(sensor, auth, "billing.partner", proxy.send(f.billing)), "client_mismatch")
				f.wantToken(t, askToken(sensor, auth, "sensor-7", proxy.send(f.billing)), "sensor-7", f.sensor)
			})
		}
		t.Run(proxy.format+"/plain HTTP", func(t *testing.T) {
			nobody := f.plain(t)
			f.wantRefusal(t, nobody.get("http://api.test/"+proxy.realm()+"/guarded", with("X-Forwarded-For", "127.0.0.2"), with("X-Forwarded-Proto", "https"), proxy.send(f.billing)), proxy.realm(), "certificate_missing")
			nobody.get("http://api.test/"+proxy.realm()+"/optional", proxy.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
			f.wantNoToken(t, askToken(nobody, "http://auth.test/"+proxy.realm(), "billing.partner", proxy.send(f.billing)), "certificate_missing")
		})
	}
}

// TestA9_OneAddressOfTwo: on one listener, what counts is where the connection
// comes from.
func TestA9_OneAddressOfTwo(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.2")
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			hop, direct := f.callerFrom(t, protocol, f.proxy, "127.0.0.2"), f.callerFrom(t, protocol, f.proxy, "127.0.0.3")
			for _, proxy := range forwarders {
				url := "https://api.test/" + proxy.realm() + "/guarded"
				for header := range spoofedAddresses {
					spoof := with(header, "127.0.0.3")
					got := hop.get(url, spoof, proxy.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
					if got.seen.Header.Get("X-Forwarded-For") == "" {
						t.Error("reverse_proxy does not tell where the request comes from")
					}
				}
				f.wantRefusal(t, hop.get(url), proxy.realm(), "certificate_missing")
				direct.get(url, with("X-Forwarded-For", "127.0.0.2"), proxy.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "the-proxy").wantGone(t)
				direct.get(url).wantStatus(t, http.StatusOK).wantClient(t, "the-proxy")
			}
		})
	}
}
