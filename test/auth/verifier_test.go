package auth_test

import (
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// verifierSite refuses strangers in the handshake.
const verifierSite = `
https://api.test:@HTTPS@ {
	bind 127.0.0.1
	tls "@DIR@/server.pem" "@DIR@/server.key" {
		client_auth {
			mode request
			verifier mtls
		}
	}
	mtls_auth
	reverse_proxy @UP@
}
`

// TestVerifierRefusesStrangersInTheHandshake checks that a stranger fails in the
// handshake and a registered client is admitted. mtls_auth answers callers
// without a certificate.
func TestVerifierRefusesStrangersInTheHandshake(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	strangers := map[string]*testpki.Leaf{
		"certificate_untrusted":  r.SelfSigned("stranger"),
		"certificate_unknown":    r.Issue("unregistered"),
		"certificate_unsuitable": r.Issue("no-client", testpki.EKU(x509.ExtKeyUsageServerAuth)),
	}
	r.Start(rig.BillingAndSensor, verifierSite)
	r.Reload(strings.Replace(rig.BillingAndSensor, "client ", "forwarded_certificate nginx {\nfrom 192.0.2.1\n}\nclient ", 1), verifierSite)
	r.Logs.Wait(t, "the warning", func(entry rig.LogEntry) bool {
		return entry.Str("level") == "warn" && strings.HasPrefix(entry.Str("msg"), "the verifier refuses certificates of proxies")
	})
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			r.Caller(t, protocol, billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			r.Caller(t, protocol, sensor).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
			r.Caller(t, protocol, nil).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			for reason, stranger := range strangers {
				if got, err := r.Caller(t, protocol, stranger).Try(http.MethodGet, "https://api.test/"); err == nil {
					t.Errorf("%s: answered with %d", reason, got.Status)
				}
			}
		})
	}
	for reason := range strangers {
		r.Logs.Wait(t, reason, func(entry rig.LogEntry) bool {
			return entry.Str("msg") == "client refused in the handshake" && entry.Str("reason") == reason && entry.Str("thumbprint") != "" && entry.Str("error_id") != ""
		})
	}
}

// TestVerifierAndProxies_A9 checks that a proxy known by its key passes the
// handshake but has no identity of its own.
func TestVerifierAndProxies_A9(t *testing.T) {
	f := rig.NewForwardingRig(t)
	f.Start(strings.Replace(rig.ForwardingRealm("default", "rfc9440", "peer_key "+rig.KeyHash(f.Stranger)), "mtls default", "mtls", 1), verifierSite)
	for _, protocol := range rig.Protocols {
		hop := f.Caller(t, protocol, f.Stranger)
		hop.Get("https://api.test/", rig.ByRFC9440.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
		rig.WantRefusal(f.Rig, t, hop.Get("https://api.test/"), "default", "certificate_missing")
		if got, err := f.Caller(t, protocol, testpki.Presenting(f.SelfSigned("other"), f.Stranger.Cert)).Try(http.MethodGet, "https://api.test/"); err == nil {
			t.Errorf("the response to the proxy's certificate without its key is %d", got.Status)
		}
	}
}

func TestVerifierWords(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, verifierSite)
	for text, want := range map[string]string{
		"verifier mtls default": "",
		"verifier mtls other":   `unknown realm "other"`,
		"verifier mtls a b":     "mtls: unexpected 'b'; write 'mtls [<realm>]'",
		"verifier mtls Upper":   `realm name "Upper" contains 'U'`,
		"verifier mtls {\nx\n}": "mtls: it takes no block; remove the braces",
	} {
		err := r.Load(rig.BillingAndSensor, strings.Replace(verifierSite, "verifier mtls", text, 1))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}
