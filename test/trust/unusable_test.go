package trust_test

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const poolUnusable = "no client can verify under CA of trust pool"

// TestUnusableCAIsReported checks that a CA under which no client can verify has a
// warning at the start and when it is added, that the refusal of what it issued names
// it, and that the metric shows when each CA expires.
func TestUnusableCAIsReported(t *testing.T) {
	r := rig.New(t)
	web := testpki.MustCA(t, testpki.CommonName("Web CA"), testpki.EKU(x509.ExtKeyUsageServerAuth))
	signless := testpki.MustCA(t, testpki.CommonName("Signless CA"), testpki.KeyUsage(x509.KeyUsageCRLSign))
	r.Write("pool.pem", web.PEM())
	r.AdminOn = true
	r.Start(poolRealm("trust_pool file @DIR@/pool.pem"), rig.OneSite)
	want := func(n int, subject, cause string) {
		t.Helper()
		said := r.Logs.Said(poolUnusable)
		if len(said) != n || said[n-1].Str("subject") != subject || said[n-1].Str("pool") != "trust_pool" || !strings.Contains(said[n-1].Str("error"), cause) {
			t.Fatalf("logged %v, want %d, the last about %s", said, n, subject)
		}
	}
	want(1, "CN=Web CA", "its extended key usages are serverAuth and not clientAuth")
	refused := r.Caller(t, "h2", r.IssueBy(web, "billing")).Get("https://api.test/")
	r.WantReason(t, refused, "certificate_untrusted")
	if detail := r.Logs.WithErrorID(t, "client refused", refused.ErrorID).Str("detail"); !strings.HasPrefix(detail, `CA "Web CA" of the trust pool: its extended key usages are serverAuth and not clientAuth; `) {
		t.Errorf("the refusal says %s", detail)
	}

	r.Write("pool.pem", append(web.PEM(), signless.PEM()...))
	r.Logs.Wait(t, "the warning", func(e rig.LogEntry) bool { return e.Str("msg") == poolUnusable && e.Str("subject") == "CN=Signless CA" })
	want(2, "CN=Signless CA", "its key usage lacks keyCertSign")

	series := rig.Series(t, rig.Metrics(r, t), "default")
	for _, ca := range []*testpki.CA{web, signless} {
		key := fmt.Sprintf(`ca_certificate_expiry_timestamp_seconds{source="trust_pool",subject="CN=%s",thumbprint="%s"}`, ca.Cert.Subject.CommonName, testpki.HashOf(ca.Cert.Raw))
		if got := series[key]; got != float64(ca.Cert.NotAfter.Unix()) {
			t.Errorf("%s is %v", key, got)
		}
	}
}
