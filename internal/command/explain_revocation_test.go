package command_test

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// with adds a revocation block to the configuration.
func (x *explaining) with(lines string) {
	x.t.Helper()
	pool := `trust_pool file "` + x.dir + `/ca.pem"`
	text := strings.Replace(readFile(x.t, x.config), pool, pool+"\nrevocation {\n"+lines+"\n}", 1)
	x.config = writeFile(x.t, x.dir, "Caddyfile.revocation", []byte(text))
}

// TestExplainMentionsExemptCAs checks that the explanation says that a certificate is
// from a CA that publishes no revocations.
func TestExplainMentionsExemptCAs(t *testing.T) {
	x := newExplaining(t)
	x.write("billing", testpki.MustIssue(t, x.ca, partner("billing")))
	other := testpki.MustCA(t, testpki.CommonName("Other"))
	writeFile(t, x.dir, "other.crl", testpki.CRL(t, other, 1, time.Now().Add(time.Hour)))
	x.with("crl " + x.dir + "/other.crl\nexempt " + testpki.HashOf(x.ca.Cert.Raw))
	got, err := x.ask("billing", "--adapter", "caddyfile")
	if want := "\nexempt            " + x.ca.Cert.Subject.String(); err != nil || !strings.Contains(got, want) {
		t.Errorf("%v\n%s\nwant %q", err, got, want)
	}
}

// TestExplainMentionsUnfetchedCRLs checks that the explanation mentions the CRLs that the
// server would have fetched, wherever they could change the decision.
func TestExplainMentionsUnfetchedCRLs(t *testing.T) {
	const want = "\nnot known         the CRLs behind URLs (2), which are not fetched here\n"
	const urls = "crl http://crl.test/a http://crl.test/b"
	for name, test := range map[string]struct {
		lines, certificate string
		admitted, told     bool
	}{
		"refused":             {urls, "billing", false, true},
		"allowed":             {urls + "\non_unavailable allow", "billing", true, true},
		"admitted by its pin": {urls, "sensor", true, false},
		"no revocation":       {"", "billing", true, false},
		"a file":              {"crl DIR/ca.crl", "billing", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			x := newExplaining(t)
			x.write("billing", testpki.MustIssue(t, x.ca, partner("billing")))
			crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}, x.ca.Cert, x.ca.Key)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, x.dir, "ca.crl", crl)
			if test.lines != "" {
				x.with(strings.ReplaceAll(test.lines, "DIR", x.dir))
			}
			got, err := x.ask(test.certificate, "--adapter", "caddyfile")
			if (err == nil) != test.admitted || strings.Contains(got, want) != test.told {
				t.Errorf("%v\n%s", err, got)
			}
		})
	}
}

// TestExplainQueriesOCSP checks that responders are queried, as the help says.
func TestExplainQueriesOCSP(t *testing.T) {
	x := newExplaining(t)
	leaf := testpki.MustIssue(t, x.ca, partner("billing"))
	x.write("billing", leaf)
	var asked atomic.Int64
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		der, err := ocsp.CreateResponse(x.ca.Cert, x.ca.Cert, ocsp.Response{
			Status: ocsp.Revoked, SerialNumber: leaf.Cert.SerialNumber, RevokedAt: time.Now().Add(-time.Hour),
			ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		}, x.ca.Key)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(der)
	}))
	defer responder.Close()
	x.with("ocsp " + responder.URL)
	got, err := x.ask("billing", "--adapter", "caddyfile")
	if err == nil || !strings.Contains(got, "\nrefused           certificate_revoked\n") || asked.Load() != 1 {
		t.Errorf("%d questions, %v\n%s", asked.Load(), err, got)
	}
	if help := mustRun(t, "explain", "--help"); !strings.Contains(help, "OCSP responders are queried") {
		t.Error(help)
	}
}
