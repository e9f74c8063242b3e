package trustpool

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestUnusableCAsAreReportedOnce checks that each CA of a pool under which no client can
// verify has a warning with its name and the cause, at the start and when it is added.
func TestUnusableCAsAreReportedOnce(t *testing.T) {
	now := time.Now()
	named := func(name string, opts ...testpki.Option) *x509.Certificate {
		return testpki.MustCA(t, append([]testpki.Option{testpki.CommonName(name)}, opts...)...).Cert
	}
	good := named("Good")
	web := named("Web", testpki.EKU(x509.ExtKeyUsageServerAuth))
	soon := named("Soon", testpki.Validity(now.Add(time.Minute), now.Add(time.Hour)))
	core, logs := observer.New(zap.InfoLevel)
	reporter := NewUnusableReporter(zap.New(core), "trust_pool")
	for i, step := range []struct {
		certs []*x509.Certificate
		after time.Duration
		want  []string
	}{
		{[]*x509.Certificate{good}, 0, nil},
		{[]*x509.Certificate{good, web}, 0, []string{"CN=Web: its extended key usages are serverAuth"}},
		{[]*x509.Certificate{good, web, soon}, 0, []string{"CN=Soon: it is not valid before"}},
		{[]*x509.Certificate{good, web, soon}, 0, nil},
		{[]*x509.Certificate{good, web, soon}, 2 * time.Minute, nil},
		{[]*x509.Certificate{good, web, soon}, 2 * time.Hour, []string{"CN=Soon: it expired at"}},
		{[]*x509.Certificate{good}, 0, nil},
		{[]*x509.Certificate{web, web}, 0, []string{"CN=Web: "}},
		{[]*x509.Certificate{good, testpki.MustIssue(t, testpki.MustCA(t)).Cert}, 0, []string{"CN=client: it is not a CA"}},
	} {
		reporter.Report(&Trust{all: step.certs}, now.Add(step.after))
		entries := logs.TakeAll()
		if len(entries) != len(step.want) {
			t.Fatalf("step %d: logged %v, want %d", i, entries, len(step.want))
		}
		for j, entry := range entries {
			fields := entry.ContextMap()
			text := fmt.Sprint(fields["subject"], ": ", fields["error"])
			if entry.Level != zap.WarnLevel || fields["pool"] != "trust_pool" || fields["thumbprint"] == "" || !strings.HasPrefix(text, step.want[j]) {
				t.Errorf("step %d: logged %v, want %s", i, entry, step.want[j])
			}
		}
	}

	many := &Trust{all: []*x509.Certificate{good}}
	for i := range maxReported + 3 {
		many.all = append(many.all, named(fmt.Sprint("old ", i), testpki.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour))))
	}
	reporter.Report(many, now)
	entries := logs.TakeAll()
	if len(entries) != maxReported+1 || entries[maxReported].ContextMap()["cas"] != int64(3) {
		t.Errorf("logged %d lines, the last is %v", len(entries), entries[len(entries)-1])
	}
}

// TestExpiringFirst checks that the CAs which are shown are those that expire first.
func TestExpiringFirst(t *testing.T) {
	now, trust := time.Now(), new(Trust)
	for i := range maxExpiries + 2 {
		trust.Certificates = append(trust.Certificates, &x509.Certificate{Raw: []byte{byte(i)}, NotAfter: now.Add(-time.Duration(i) * time.Hour)})
	}
	shown := trust.ExpiringFirst()
	if len(shown) != maxExpiries || !shown[0].NotAfter.Before(shown[1].NotAfter) || shown[0] != trust.Certificates[maxExpiries+1] {
		t.Errorf("%d are shown, the first expires at %s", len(shown), shown[0].NotAfter)
	}
	if shown := new(Trust).ExpiringFirst(); len(shown) != 0 {
		t.Errorf("%d of none", len(shown))
	}
}
