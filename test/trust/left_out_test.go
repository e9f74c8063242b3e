package trust_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestBundleWithAnUnreadableCA checks that a certificate that Go cannot read costs the
// others of a trust pool nothing: clients of the others are admitted, at the start and
// after changes, and a CA that is taken out is no longer trusted.
func TestBundleWithAnUnreadableCA_C2(t *testing.T) {
	for name, fault := range map[string]testpki.Fault{
		"negative serial": testpki.NegativeSerial, "critical subjectKeyIdentifier": testpki.CriticalSKI, "unsupported curve": testpki.UnsupportedCurve,
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t)
			unreadable := testpki.UnreadablePEM(t, fault, "Old CA")
			bundle := func(parts ...[]byte) []byte { return bytes.Join(append(parts, unreadable), nil) }
			r.Write("pool.pem", bundle(r.CA.PEM()))
			old, fresh := r.Issue("billing"), r.IssueBy(r.OtherCA, "fresh", testpki.CommonName("billing"))
			r.Start(poolRealm("trust_pool file @DIR@/pool.pem\nshadow_trust_pool file @DIR@/pool.pem"), rig.OneSite)
			for _, pool := range []string{"trust_pool", "shadow_trust_pool"} {
				r.Logs.Wait(t, "what is left out of "+pool, func(entry rig.LogEntry) bool {
					return entry.Str("msg") == "certificate left out of trust pool" && entry.Str("level") == "warn" && entry.Str("pool") == pool && entry["certificate"] == float64(2)
				})
			}
			was, is := r.Caller(t, "h2", old), r.Caller(t, "h2", fresh)
			was.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			is.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
			replace(r, "pool.pem", bundle(r.CA.PEM(), r.OtherCA.PEM()))
			is.Eventually(t, http.StatusOK)
			was.Get("https://api.test/").WantStatus(t, http.StatusOK)
			replace(r, "pool.pem", bundle(r.OtherCA.PEM()))
			was.Eventually(t, http.StatusUnauthorized)
			is.Get("https://api.test/").WantStatus(t, http.StatusOK)
			r.WantReason(t, was.Get("https://api.test/"), "certificate_untrusted")
		})
	}
}
