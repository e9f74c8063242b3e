package mtlsauth

import (
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

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

// TestVerifierRefusesStrangersInTheHandshake: a stranger gets no byte of HTTP,
// a registered client gets through, and who has no certificate gets the answer
// of mtls_auth.
func TestVerifierRefusesStrangersInTheHandshake(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	strangers := map[string]*testpki.Leaf{
		"certificate_untrusted":  r.selfSigned("stranger"),
		"certificate_unknown":    r.issue("unregistered"),
		"certificate_unsuitable": r.issue("no-client", testpki.EKU(x509.ExtKeyUsageServerAuth)),
	}
	r.start(billingAndSensor, verifierSite)
	r.reload(strings.Replace(billingAndSensor, "client ", "forwarded_certificate nginx {\nfrom 192.0.2.1\n}\nclient ", 1), verifierSite)
	r.logs.wait(t, "the warning", func(entry logEntry) bool {
		return entry.str("level") == "warn" && strings.HasPrefix(entry.str("msg"), "a verifier sees no addresses")
	})
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			r.caller(t, protocol, billing).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
			r.caller(t, protocol, sensor).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
			r.caller(t, protocol, nil).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			for reason, stranger := range strangers {
				if got, err := r.caller(t, protocol, stranger).try(http.MethodGet, "https://api.test/"); err == nil {
					t.Errorf("%s: answered with %d", reason, got.status)
				}
			}
		})
	}
	for reason := range strangers {
		r.logs.wait(t, reason, func(entry logEntry) bool {
			return entry.str("msg") == "client refused in the handshake" && entry.str("reason") == reason && entry.str("thumbprint") != ""
		})
	}
}

// TestA9_VerifierAndProxies: a proxy that is known by its key gets through the
// handshake, and still is nobody itself.
func TestA9_VerifierAndProxies(t *testing.T) {
	f := newForwardingRig(t)
	f.start(strings.Replace(forwardingRealm("default", "rfc9440", "peer_key "+keyHash(f.stranger)), "mtls default", "mtls", 1), verifierSite)
	for _, protocol := range rigProtocols {
		hop := f.caller(t, protocol, f.stranger)
		hop.get("https://api.test/", byRFC9440.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
		f.wantRefusal(t, hop.get("https://api.test/"), "default", "certificate_missing")
		if got, err := f.caller(t, protocol, testpki.Presenting(f.selfSigned("other"), f.stranger.Cert)).try(http.MethodGet, "https://api.test/"); err == nil {
			t.Errorf("the proxy's certificate without its key is answered with %d", got.status)
		}
	}
}

func TestVerifierWords(t *testing.T) {
	r := newRig(t)
	r.issue("billing")
	r.selfSigned("sensor")
	r.start(billingAndSensor, verifierSite)
	for text, want := range map[string]string{
		"verifier mtls default": "",
		"verifier mtls other":   "unknown realm 'other'",
		"verifier mtls a b":     "wrong argument count",
		"verifier mtls Upper":   `realm name "Upper" holds 'U'`,
		"verifier mtls {\nx\n}": "unrecognized subdirective 'x'",
	} {
		err := r.load(billingAndSensor, strings.Replace(verifierSite, "verifier mtls", text, 1))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}
