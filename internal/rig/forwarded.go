package rig

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

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// KeyHash returns the SHA-256 hash of the leaf's public key in hex.
func KeyHash(leaf *testpki.Leaf) string {
	sum := sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Forwarder is a kind of proxy in front of Caddy. Value writes a certificate as
// the proxy does in its header.
type Forwarder struct {
	Format, Header string
	Value          func(leaf *testpki.Leaf) string
}

// Send adds the header with which the proxy forwards the client's certificate.
func (f Forwarder) Send(leaf *testpki.Leaf) func(*http.Request) { return With(f.Header, f.Value(leaf)) }

// EscapedPEM returns a certificate as nginx writes it.
func EscapedPEM(leaf *testpki.Leaf) string {
	return strings.ReplaceAll(url.QueryEscape(string(leaf.PEM())), "+", "%20")
}

// Base64DER returns a certificate as HAProxy writes it.
func Base64DER(leaf *testpki.Leaf) string { return base64.StdEncoding.EncodeToString(leaf.Cert.Raw) }

// The kinds of proxies that the plugin knows.
var (
	// ByRFC9440 writes the header of RFC 9440.
	ByRFC9440 = Forwarder{"rfc9440", "Client-Cert", func(leaf *testpki.Leaf) string { return forwarded.ClientCert(leaf.Cert) }}
	// ByNginx writes escaped PEM, as nginx does.
	ByNginx = Forwarder{"nginx", "X-SSL-Client-Cert", EscapedPEM}
	// ByHAProxy writes DER in base64, as HAProxy does.
	ByHAProxy = Forwarder{"haproxy", "X-SSL-Client-Cert", Base64DER}
	// ByEnvoy writes escaped PEM among other fields, as Envoy does.
	ByEnvoy = Forwarder{"envoy", "X-Forwarded-Client-Cert", func(leaf *testpki.Leaf) string {
		sum := sha256.Sum256(leaf.Cert.Raw)
		return `By=spiffe://mesh.test/caddy;Hash=` + hex.EncodeToString(sum[:]) + `;Cert="` + EscapedPEM(leaf) + `";Subject="` + leaf.Cert.Subject.String() + `";URI=`
	}}
	// ByALB writes PEM with fewer characters escaped, as AWS's ALB does.
	ByALB = Forwarder{"aws_alb", "X-Amzn-Mtls-Clientcert", func(leaf *testpki.Leaf) string {
		return strings.NewReplacer("%2B", "+", "%3D", "=", "%2F", "/").Replace(EscapedPEM(leaf))
	}}

	// ByTraefik writes DER in base64, as Traefik does for a chain of one.
	ByTraefik = Forwarder{"traefik", "X-Forwarded-Tls-Client-Cert", Base64DER}

	// Forwarders are all of these proxies.
	Forwarders = []Forwarder{ByRFC9440, ByNginx, ByHAProxy, ByEnvoy, ByALB, ByTraefik}
)

// ForwardingRealm returns a realm with the clients of [BillingAndSensor] and the
// proxy itself, which must never be taken for the caller.
func ForwardingRealm(name, format, options string) string {
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

// ForwardingRig is a rig with the certificates of [ForwardingRealm].
type ForwardingRig struct {
	*Rig
	Billing, Sensor, Stranger, Proxy *testpki.Leaf
}

// NewForwardingRig returns a rig with certificates of clients and of a proxy.
// Caddy is not running yet.
func NewForwardingRig(t *testing.T) *ForwardingRig {
	r := New(t)
	f := &ForwardingRig{r, r.Issue("billing"), r.SelfSigned("sensor"), r.Issue("stranger"), r.SelfSigned("proxy")}
	// Caddy itself logs the request headers as received, including certificates
	// that checkSecrets would report
	r.Change = func(config map[string]any) {
		Member(t, config, "logging", "logs", "default")["exclude"] = []string{"events", "http.log"}
	}
	return f
}

// CallerFrom is like [Rig.Caller], but connects from this address.
func CallerFrom(r *Rig, t *testing.T, protocol string, leaf *testpki.Leaf, address string) *Caller {
	t.Helper()
	from := net.ParseIP(address)
	probe, err := net.ListenPacket("udp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Skipf("this machine cannot send from %s: %v", address, err)
	}
	c := r.Caller(t, protocol, leaf)
	switch transport := c.Rt.(type) {
	case *http.Transport:
		_ = probe.Close()
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).DialContext(ctx, c.Network, c.Address)
		}
	case *http3.Transport:
		quicTransport := &quic.Transport{Conn: probe}
		t.Cleanup(func() { _, _ = quicTransport.Close(), probe.Close() })
		transport.Dial = func(ctx context.Context, _ string, tlsConfig *tls.Config, config *quic.Config) (*quic.Conn, error) {
			to, err := net.ResolveUDPAddr("udp", c.Address)
			if err != nil {
				return nil, err
			}
			return quicTransport.DialEarly(ctx, to, tlsConfig, config)
		}
	}
	return c
}

// GatewayHeaders are the headers in which gateways name a client, folded as
// [IsNamed] folds them. A trailing * matches any ending.
var GatewayHeaders = []string{
	"client-cert", "client-cert-chain", "x-forwarded-client-cert", "x-forwarded-tls-client-cert*", "x-ssl-*", "ssl-client-*",
	"x-client-cert*", "x-client-dn", "x-client-s-dn", "x-client-i-dn", "x-client-verify", "x-amzn-mtls-*", "cf-client-cert*", "cf-cert-*",
	"x-arr-clientcert", "x-consumer-*",
}

// IsNamed reports whether a header has one of the names for a server that ignores
// case and reads every character but letters and digits as a hyphen.
func IsNamed(header string, names ...string) bool {
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

// WantGone fails the test if the upstream was sent a certificate.
func (got Reply) WantGone(t *testing.T) Reply {
	t.Helper()
	if got.Seen == nil {
		t.Fatalf("the request did not reach the upstream: %d %.300q", got.Status, got.Body)
	}
	for _, header := range []http.Header{got.Seen.Header, got.Seen.Trailer} {
		for name := range header {
			if IsNamed(name, append([]string{"edge-certificate*"}, GatewayHeaders...)...) {
				t.Errorf("the upstream was sent %s", name)
			}
		}
	}
	return got
}

// WantRefusal fails the test unless mtls_auth refused the request and logged this
// reason. It returns the log entry.
func WantRefusal(r *Rig, t *testing.T, got Reply, realm, reason string) LogEntry {
	t.Helper()
	word := Refused
	if reason == "certificate_missing" {
		word = reason
	}
	got.WantRefused(t, realm, http.StatusUnauthorized, word)
	entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID)
	if entry.Str("reason") != reason {
		t.Errorf("the reason is %q (%s), want %q", entry["reason"], entry["detail"], reason)
	}
	return entry
}

// AskToken requests an access token as the client.
func AskToken(c *Caller, url, clientID string, options ...func(*http.Request)) Reply {
	c.T.Helper()
	options = append(options, WithBody("application/x-www-form-urlencoded", "grant_type=client_credentials&client_id="+clientID))
	return c.Do(http.MethodPost, url+"/connect/token", options...)
}

// WantToken fails the test unless the response has a token of the client that is
// bound to the certificate.
func WantToken(r *Rig, t *testing.T, got Reply, clientID string, leaf *testpki.Leaf) {
	t.Helper()
	got.WantStatus(t, http.StatusOK)
	token, _ := JSON(t, got.Body)["access_token"].(string)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%.300q is not a token", got.Body)
	}
	r.Secrets = append(r.Secrets, parts[2])
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
		t.Errorf("the token has claims %s, want client %s, bound to %s", payload, clientID, validators.X5tS256(sha256.Sum256(leaf.Cert.Raw)))
	}
}

// WantNoToken fails the test unless the token endpoint refused the client and
// logged this reason.
func WantNoToken(r *Rig, t *testing.T, got Reply, reason string) {
	t.Helper()
	got.WantStatus(t, http.StatusBadRequest)
	if code := JSON(t, got.Body)["error"]; code != "invalid_client" || got.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("the token endpoint answered %q", got.Body)
	}
	if entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID); entry.Str("reason") != reason {
		t.Errorf("the reason is %q (%s), want %q", entry["reason"], entry["detail"], reason)
	}
}
