package revocation

import (
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// deltaFrom makes a CRL a delta CRL that adds to the complete one with a number.
func deltaFrom(base byte) crlOption {
	return crlExtension(oidDeltaCRLIndicator, true, []byte{2, 1, base})
}

// When a CA publishes the next complete CRL, the delta CRL that belongs to that one no
// longer lists what the complete one does. It may be fetched first.
func TestNextDeltaCRLBeforeItsCompleteOne(t *testing.T) {
	ca := testpki.MustCA(t)
	stolen, held := testpki.MustIssue(t, ca).Cert, testpki.MustIssue(t, ca).Cert
	w := newCRLWorld(t, nil, "complete.crl", "delta.crl")
	both := func(revoked bool) {
		t.Helper()
		w.expect(stolen, ca.Cert, true, true)
		w.expect(held, ca.Cert, revoked, true)
	}
	put := func(name string, der []byte) {
		t.Helper()
		w.write(name, der)
		w.refresh(0, "<nil>")
	}
	w.write("complete.crl", makeCRL(t, ca, now, crlNumber(1)))
	put("delta.crl", makeCRL(t, ca, now, crlNumber(2), deltaFrom(1), crlRevokes(1, stolen), crlRevokes(6, held)))
	both(true)
	put("delta.crl", makeCRL(t, ca, now, crlNumber(3), deltaFrom(3)))
	both(true)
	put("delta.crl", makeCRL(t, ca, now, crlNumber(4), deltaFrom(3)))
	both(true)
	put("complete.crl", makeCRL(t, ca, now, crlNumber(3), crlRevokes(1, stolen)))
	both(false)
	put("delta.crl", makeCRL(t, ca, now, crlNumber(5), deltaFrom(1), crlRevokes(1, stolen)))
	both(false)
}

// A newer delta CRL that adds to the same complete one, or to an older one, replaces the
// one before, and only few are kept.
func TestFewDeltaCRLsAreKept(t *testing.T) {
	ca := testpki.MustCA(t)
	held := testpki.MustIssue(t, ca).Cert
	for name, base := range map[string]byte{"the same": 5, "an older one": 4} {
		t.Run(name, func(t *testing.T) {
			w := newCRLWorld(t, nil, "complete.crl", "delta.crl")
			w.write("complete.crl", makeCRL(t, ca, now, crlNumber(1)))
			w.write("delta.crl", makeCRL(t, ca, now, crlNumber(6), deltaFrom(5), crlRevokes(6, held)))
			w.refresh(0, "<nil>")
			w.expect(held, ca.Cert, true, true)
			w.write("delta.crl", makeCRL(t, ca, now, crlNumber(7), deltaFrom(base)))
			w.refresh(0, "<nil>")
			w.expect(held, ca.Cert, false, true)
			for i := range int64(2 * maxDeltas) {
				w.write("delta.crl", makeCRL(t, ca, now, crlNumber(10+i), deltaFrom(byte(10+i)), crlRevokes(1, held)))
				w.refresh(0, "<nil>")
				w.expect(held, ca.Cert, true, true)
			}
			if n := len(w.locations[1].inForce()); n > maxDeltas+1 {
				t.Errorf("%d delta CRLs are kept", n)
			}
		})
	}
}
