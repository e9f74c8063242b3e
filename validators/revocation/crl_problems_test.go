package revocation

import (
	"crypto/sha256"
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

func TestReportProblems(t *testing.T) {
	ca, renewed := testpki.MustCA(t), testpki.MustCA(t) // of one name
	noCRLs := testpki.MustCA(t, testpki.CommonName("No CRLs"), testpki.KeyUsage(x509.KeyUsageCertSign))
	hostile := testpki.MustCA(t, testpki.CommonName("a\n\u202e"+strings.Repeat("x", 5000)))
	var warnings []string
	w := newCRLWorld(t, func(c *CRLConfig) {
		c.ReportStale = func(place string, err error) { warnings = append(warnings, filepath.Base(place)+": "+err.Error()) }
		c.ReportForeign = func(place string, err error) {
			warnings = append(warnings, filepath.Base(place)+": foreign: "+err.Error())
		}
	}, "a.crl", crlURL)
	// watch expects one warning, or none.
	watch := func(want string, cas ...*testpki.CA) {
		t.Helper()
		var certs []*x509.Certificate
		for _, ca := range cas {
			certs = append(certs, ca.Cert)
		}
		warnings = nil
		w.ReportProblems(certs)
		if n := len(warnings); want == "" && n > 0 || want != "" && n != 1 {
			t.Fatalf("warned %q, want %q", warnings, want)
		}
		for _, warning := range warnings {
			if !strings.Contains(warning, want) || !testtool.Printable(warning) || len(warning) > 1000 {
				t.Errorf("warned %q, want %q", warning, want)
			}
		}
	}
	watch("", ca) // there is nothing yet
	w.write("a.crl", makeCRL(t, ca, w.now))
	w.web[crlURL] = makeCRL(t, ca, w.now, crlNumber(2), crlDates(w.now, w.now.Add(48*time.Hour)))
	w.refresh(0, "<nil>")
	watch("", ca)
	watch("")
	w.now = w.now.Add(time.Hour - time.Nanosecond)
	watch("", ca)
	w.now = w.now.Add(time.Nanosecond)
	watch("a.crl: it is stale since "+timeText(w.now), ca)
	watch("", ca) // once
	w.write("a.crl", makeCRL(t, ca, w.now, crlNumber(3), crlDates(w.now.Add(-2*time.Hour), w.now.Add(-time.Hour))))
	w.refresh(0, "<nil>")
	watch("a.crl: it is stale since ", ca) // another one
	w.write("a.crl", makeCRL(t, ca, w.now, crlNumber(4), crlDates(w.now, w.now.Add(1000*time.Hour))))
	w.refresh(0, "<nil>")
	watch("", ca)

	const foreign = "crl: foreign: "
	w.web[crlURL] = makeCRL(t, renewed, w.now, crlNumber(5), crlDates(w.now, w.now.Add(1000*time.Hour)))
	w.refresh(2*time.Hour, "<nil>")
	watch(foreign+"CN=Test Root CA: it is not signed with the key", ca)
	watch("", ca)                      // once
	watch("", ca, noCRLs)              // with other CAs too
	watch("", ca, renewed)             // a CA that has two keys
	watch(foreign, ca)                 // and one no more
	watch("a.crl: foreign: ", renewed) // now it is the other one
	watch("", noCRLs)

	// It is not refused.
	w.expect(testpki.MustIssue(t, renewed).Cert, renewed.Cert, false, true)
	w.expect(testpki.MustIssue(t, ca).Cert, ca.Cert, false, true)

	w.web[crlURL] = makeCRL(t, noCRLs, w.now, crlDates(w.now, w.now.Add(1000*time.Hour)))
	w.refresh(2*time.Hour, "<nil>")
	watch(foreign+"CN=No CRLs: the CA's key usage lacks cRLSign", ca, noCRLs)
	w.web[crlURL] = makeCRL(t, &testpki.CA{Cert: hostile.Cert, Key: ca.Key}, w.now, crlDates(w.now, w.now.Add(1000*time.Hour)))
	w.refresh(2*time.Hour, "<nil>")
	watch("crl: ", ca, hostile)
}

// CAs without a CRL are reported when they come into the pool, and once.
func TestReportUncovered(t *testing.T) {
	one, two := testpki.MustCA(t, testpki.CommonName("One")), testpki.MustCA(t, testpki.CommonName("Two"))
	silent := testpki.MustCA(t, testpki.CommonName("Silent"))
	var reported []string
	w := newCRLWorld(t, func(c *CRLConfig) {
		c.ReportUncovered = func(ca *x509.Certificate) { reported = append(reported, ca.Subject.CommonName) }
		c.Exempt = Exempt{sha256.Sum256(silent.Cert.Raw)}
	}, "a.crl", crlURL)
	watch := func(want string, cas ...*testpki.CA) {
		t.Helper()
		var certs []*x509.Certificate
		for _, ca := range cas {
			certs = append(certs, ca.Cert)
		}
		reported = nil
		if w.ReportProblems(certs); strings.Join(reported, " ") != want {
			t.Errorf("reported %q, want %q", reported, want)
		}
	}
	w.write("a.crl", makeCRL(t, one, now))
	w.PollFiles()
	watch("", one, two, silent) // the URL may have the CRL
	w.refresh(0, "404")
	watch("Two", one, two, silent)
	watch("", one, two, silent)
	watch("", one, silent)
	watch("Two", one, two)
	w.web[crlURL] = makeCRL(t, two, now)
	w.refresh(time.Minute, "crl: <nil>")
	watch("", one, two)
	watch("Silent", one, two, testpki.MustCA(t, testpki.CommonName("Silent")))
	w.web[crlURL] = makeCRL(t, two, now, crlNumber(2), crlExtension(oidDeltaCRLIndicator, true, []byte{2, 1, 1}))
	w.refresh(time.Hour, "crl: <nil>")
	watch("", one, two) // the complete CRL stays
}
