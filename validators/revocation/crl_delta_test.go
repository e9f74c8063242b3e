package revocation

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

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
// one before.
func TestNextDeltaCRLOfTheSameCompleteOne(t *testing.T) {
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
		})
	}
}

// What a location no longer provides is kept, but not without limit: a CA may give each
// CRL another scope.
func TestFewCRLsAreKeptThatAreNoLongerProvided(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf, first := testpki.MustIssue(t, ca).Cert, testpki.MustIssue(t, ca).Cert
	w := newCRLWorld(t, nil, "a.crl")
	l := w.locations[0]
	put := func(i int, cert *x509.Certificate) {
		t.Helper()
		name := contextual(t, 0, true, contextual(t, 0, true, contextual(t, 6, false, fmt.Append(nil, i))))
		crl := mustCRL(t, ca, now.Add(time.Duration(i)*time.Second), crlNumber(1), crlRevokes(1, cert), crlExtension(oidIssuingDistributionPoint, true, sequence(t, name)))
		if err := crl.checkSignedBy(ca.Cert); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.add([]*parsedCRL{crl}, true); err != nil {
			t.Fatal(err)
		}
	}
	revoked := func(cert *x509.Certificate) bool {
		status, _ := w.CRLs().statusOf(cert, ca.Cert, w.now)
		return status.Revoked
	}
	put(0, first)
	for i := range maxCRLs {
		put(1+i, leaf)
	}
	if n := len(l.inForce()); n != maxCRLs+1 || !revoked(first) || !revoked(leaf) {
		t.Errorf("%d are kept, revoked: %v, %v", n, revoked(first), revoked(leaf))
	}
	put(maxCRLs+1, leaf)
	put(maxCRLs+2, leaf)
	if n := len(l.inForce()); n != maxCRLs+1 || revoked(first) || !revoked(leaf) {
		t.Errorf("%d are kept then, revoked: %v, %v", n, revoked(first), revoked(leaf))
	}
	l.dropOldest(maxCRLs, 3*len(l.current[0].list.Raw)+20) // signatures differ in length
	if n := len(l.verified); n != 3 || !revoked(leaf) {
		t.Errorf("%d are kept of those that may have the size of three, revoked: %v", n, revoked(leaf))
	}
}
