package revocation

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// A CRL that leaves its file or URL without a successor stays in force, which is reported
// once, and is not said to be there.
func TestCRLThatLeavesItsSource(t *testing.T) {
	root := testpki.MustCA(t, testpki.CommonName("Root"))
	inter, renewed := testpki.MustIntermediate(t, root, testpki.CommonName("Inter")), testpki.MustIntermediate(t, root, testpki.CommonName("Inter"))
	revoked, good := testpki.MustIssue(t, inter).Cert, testpki.MustIssue(t, inter).Cert
	delta := crlExtension(oidDeltaCRLIndicator, true, []byte{2, 1, 1})
	ofRoot, ofInter, ofRenewed := makeCRL(t, root, now), makeCRL(t, inter, now, crlRevokes(1, revoked)), makeCRL(t, renewed, now, crlNumber(5))
	broken := []byte("-----BEGIN X509 CRL-----\nZm9v\n-----END X509 CRL-----\n")
	for _, place := range []string{"crls.pem", crlURL} {
		var gone []string
		w := newCRLWorld(t, func(c *CRLConfig) {
			c.Refresh = time.Minute
			c.ReportGone = func(location, issuer string) { gone = append(gone, filepath.Base(location)+": "+issuer) }
		}, place)
		put := func(text []byte, want ...string) {
			t.Helper()
			gone = nil
			w.write("crls.pem", text)
			w.web[crlURL] = text
			w.refresh(time.Minute, "")
			if !slices.Equal(gone, want) {
				t.Errorf("reported %q, want %q", gone, want)
			}
		}
		name := filepath.Base(place)
		put(pemOf(ofRoot, ofInter, makeCRL(t, root, now, delta)))
		w.expect(revoked, inter.Cert, true, true)
		put(append(pemOf(ofRoot), broken...)) // the broken one may be that of Inter
		put(pemOf(ofRoot), name+": CN=Inter")
		put(pemOf(makeCRL(t, root, now, crlNumber(2)))) // once
		w.expect(revoked, inter.Cert, true, true)
		w.expect(good, inter.Cert, false, true)
		_, err := w.CRLs().statusOf(good, inter.Cert, w.now.Add(2*time.Hour))
		wantError(t, err, name+" is stale since ")
		wantError(t, err, "the CRL that is no longer at ")

		put(pemOf(ofRoot, ofInter)) // it is back
		_, err = w.CRLs().statusOf(good, inter.Cert, w.now.Add(2*time.Hour))
		wantError(t, err, "the CRL at ")
		put(pemOf(ofRoot, ofRenewed), name+": CN=Inter") // of another key
		w.expect(revoked, inter.Cert, true, true)
		put(pemOf(ofRoot, ofRenewed, makeCRL(t, inter, now, crlNumber(2))))
		w.expect(revoked, inter.Cert, false, true)
	}
}
