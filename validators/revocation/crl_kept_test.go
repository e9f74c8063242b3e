package revocation

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// A CRL counts for the CA whose name it has in another spelling (RFC 5280 §7.1).
func TestCRLIssuerIsComparedAsAName(t *testing.T) {
	ca := testpki.MustCA(t, testpki.CommonName("Clients CA*")) // UTF8String, because of the asterisk
	leaf, good := testpki.MustIssue(t, ca).Cert, testpki.MustIssue(t, ca).Cert
	for title, test := range map[string]struct {
		der   []byte
		known bool
	}{
		"T61String":                        {marshal(t, asn1.RawValue{Tag: asn1.TagT61String, Bytes: []byte("Clients CA*")}), true},
		"BMPString":                        {marshal(t, asn1.RawValue{Tag: asn1.TagBMPString, Bytes: []byte("\x00C\x00l\x00i\x00e\x00n\x00t\x00s\x00 \x00C\x00A\x00*")}), true},
		"case":                             {marshal(t, asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("CLIENTS ca*")}), true},
		"spaces":                           {marshal(t, asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(" Clients  CA* ")}), true},
		"PrintableString with an asterisk": {marshal(t, asn1.RawValue{Tag: asn1.TagPrintableString, Bytes: []byte("Clients CA*")}), true},
		"another":                          {marshal(t, asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("Clients CB*")}), false},
	} {
		t.Run(title, func(t *testing.T) {
			attribute := sequence(t, marshal(t, asn1.ObjectIdentifier{2, 5, 4, 3}), test.der)
			name := sequence(t, marshal(t, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: attribute}))
			raw := rawCRL{ThisUpdate: now.UTC(), NextUpdate: now.UTC().Add(time.Hour), Revoked: []rawCRLEntry{{Serial: leaf.SerialNumber, Date: now.UTC()}}}
			other := *ca
			other.Cert = new(*ca.Cert)
			other.Cert.RawSubject = name
			crl, err := parseCRL(raw.sign(t, &other, false))
			if err != nil {
				t.Fatal(err)
			}
			set := crlSetOf(crl)
			if status, err := set.statusOf(leaf, ca.Cert, now); status.Revoked != test.known {
				t.Errorf("listed: %+v, %v", status, err)
			}
			if status, err := set.statusOf(good, ca.Cert, now); status.Until.IsZero() == test.known {
				t.Errorf("not listed: %+v, %v", status, err)
			}
		})
	}
}

// A CRL that is signed with another key of the CA counts if that key is trusted.
func TestCRLOfAnotherKeyOfTheCA(t *testing.T) {
	old, renewed := testpki.MustCA(t), testpki.MustCA(t) // of one name
	stranger := testpki.MustCA(t, testpki.CommonName("Stranger"))
	noCRLs := testpki.MustCA(t, testpki.Key(renewed.Key), testpki.KeyUsage(x509.KeyUsageCertSign))
	leaf, good := testpki.MustIssue(t, old).Cert, testpki.MustIssue(t, old).Cert
	crls := crlSetOf(mustCRL(t, renewed, now, crlRevokes(1, leaf)))
	denied := mustDeny(t, "public_key "+digest(renewed.Cert.RawSubjectPublicKeyInfo))
	for title, test := range map[string]struct {
		trusted []*x509.Certificate
		above   []*x509.Certificate
		deny    *DenyList
		counts  bool
	}{
		"not trusted":             {[]*x509.Certificate{old.Cert, stranger.Cert}, nil, nil, false},
		"in the pool":             {[]*x509.Certificate{old.Cert, renewed.Cert}, nil, nil, true},
		"in the chain":            {nil, []*x509.Certificate{renewed.Cert}, nil, true},
		"without cRLSign":         {[]*x509.Certificate{noCRLs.Cert}, nil, nil, false},
		"in the pool, but denied": {[]*x509.Certificate{renewed.Cert}, nil, denied, false},
	} {
		t.Run(title, func(t *testing.T) {
			c := NewChecker(Config{CRLs: true, CAs: func() []*x509.Certificate { return test.trusted }})
			c.SetCRLs(crls)
			c.SetDenyList(test.deny)
			chain := append([]*x509.Certificate{leaf, old.Cert}, test.above...)
			status, _ := c.crlStatus(leaf, old.Cert, chain, now)
			if status.Revoked != test.counts {
				t.Errorf("listed: %+v", status)
			}
			chain[0] = good
			if status, err := c.crlStatus(good, old.Cert, chain, now); status.Until.IsZero() == test.counts {
				t.Errorf("not listed: %+v, %v", status, err)
			}
		})
	}
}

// Entries of an indirect CRL count for the issuer that they name, which is that of the
// entry before if they name none (RFC 5280 §5.3.3), and for no other.
func TestEntriesOfAnotherIssuerDoNotCount(t *testing.T) {
	ca, other := testpki.MustCA(t), testpki.MustCA(t, testpki.CommonName("Other"))
	names := func(certs ...*x509.Certificate) []pkix.Extension {
		var all [][]byte
		for _, cert := range certs {
			all = append(all, contextual(t, 4, true, cert.RawSubject))
		}
		return []pkix.Extension{{Id: oidCertificateIssuer, Critical: true, Value: sequence(t, all...)}}
	}
	var entries []rawCRLEntry
	wants := map[int64]bool{1: true, 2: false, 3: false, 4: true, 5: true, 6: true, 7: false}
	for serial := int64(1); serial <= 7; serial++ {
		entry := rawCRLEntry{Serial: big.NewInt(serial), Date: now.UTC()}
		switch serial {
		case 2, 7:
			entry.Extensions = names(other.Cert)
		case 4:
			entry.Extensions = names(ca.Cert)
		case 6:
			entry.Extensions = names(other.Cert, ca.Cert)
		}
		entries = append(entries, entry)
	}
	indirect := pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: sequence(t, contextual(t, 4, false, []byte{0xff}))}
	crl, err := parseCRL(rawCRL{ThisUpdate: now.UTC(), NextUpdate: now.UTC().Add(time.Hour), Revoked: entries, Extensions: []pkix.Extension{indirect}}.sign(t, ca, false))
	if err != nil {
		t.Fatal(err)
	}
	for serial, want := range wants {
		cert := testpki.MustIssue(t, ca, testpki.Serial(big.NewInt(serial))).Cert
		if status, err := crlSetOf(crl).statusOf(cert, ca.Cert, now); status.Revoked != want || err != nil {
			t.Errorf("%d: %+v, %v, want %v", serial, status, err, want)
		}
	}
}

// A delta CRL revokes, but neither vouches for certificates nor takes one off hold that
// the complete CRL lists.
func TestDeltaCRLs(t *testing.T) {
	ca := testpki.MustCA(t)
	held, stolen, released := testpki.MustIssue(t, ca).Cert, testpki.MustIssue(t, ca).Cert, testpki.MustIssue(t, ca).Cert
	delta := crlExtension(oidDeltaCRLIndicator, true, []byte{2, 1, 1})
	w := newCRLWorld(t, nil, "complete.crl", "delta.crl")
	w.write("complete.crl", makeCRL(t, ca, now, crlNumber(1), crlRevokes(6, held)))
	w.write("delta.crl", makeCRL(t, ca, now, crlNumber(2), delta, crlRevokes(removeFromCRL, held), crlRevokes(1, stolen), crlRevokes(6, released)))
	w.refresh(0, "<nil>")
	w.expect(held, ca.Cert, true, true)
	w.expect(stolen, ca.Cert, true, true)
	w.expect(released, ca.Cert, true, true)
	w.write("delta.crl", makeCRL(t, ca, now, crlNumber(3), delta, crlRevokes(1, stolen), crlRevokes(removeFromCRL, released)))
	w.refresh(0, "delta.crl: <nil>")
	w.expect(held, ca.Cert, true, true)
	w.expect(stolen, ca.Cert, true, true)
	w.expect(released, ca.Cert, false, true)
	w.write("complete.crl", makeCRL(t, ca, now, crlNumber(4), crlRevokes(1, stolen)))
	w.refresh(0, "complete.crl: <nil>")
	w.expect(held, ca.Cert, false, true)
}

// CRLs for some reasons vouch for a certificate if they cover all reasons together.
func TestCRLsForSomeReasonsCoverAllTogether(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	some := func(flags ...byte) *parsedCRL {
		return mustCRL(t, ca, now, crlExtension(oidIssuingDistributionPoint, true, sequence(t, contextual(t, 3, false, append([]byte{0}, flags...)))))
	}
	compromise, others := some(0x60), some(0x1f, 0x80)
	if status, err := crlSetOf(compromise, others).statusOf(leaf, ca.Cert, now); err != nil || status.Until.IsZero() {
		t.Errorf("together: %+v, %v", status, err)
	}
	for _, crl := range []*parsedCRL{compromise, others} {
		_, err := crlSetOf(crl).statusOf(leaf, ca.Cert, now)
		wantError(t, err, "only some reasons")
	}
}

// Names of distribution points that are not URIs are compared too.
func TestDistributionPointThatIsADirectoryName(t *testing.T) {
	ca := testpki.MustCA(t)
	name := contextual(t, 0, true, contextual(t, 0, true, contextual(t, 4, true, ca.Cert.RawSubject)))
	leaf := testpki.MustIssue(t, ca, testpki.Extension(pkix.Extension{Id: oidCRLDistributionPoints, Value: sequence(t, sequence(t, name))})).Cert
	crl := mustCRL(t, ca, now, crlExtension(oidIssuingDistributionPoint, true, sequence(t, name)))
	if status, err := crlSetOf(crl).statusOf(leaf, ca.Cert, now); err != nil || status.Until.IsZero() {
		t.Errorf("%+v, %v", status, err)
	}
	_, err := crlSetOf(crl).statusOf(testpki.MustIssue(t, ca).Cert, ca.Cert, now)
	wantError(t, err, "distribution point")
}

// pemOf returns CRLs in one PEM file.
func pemOf(ders ...[]byte) (text []byte) {
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	return text
}

// CRLs of several issuers and scopes in one file count side by side, and each replaces
// only its like.
func TestSeveralCRLsInOneFile(t *testing.T) {
	one, two := testpki.MustCA(t, testpki.CommonName("One")), testpki.MustCA(t, testpki.CommonName("Two"))
	ofOne, ofTwo, user := testpki.MustIssue(t, one).Cert, testpki.MustIssue(t, two).Cert, testpki.MustIssue(t, one).Cert
	users := crlExtension(oidIssuingDistributionPoint, true, sequence(t, contextual(t, 1, false, []byte{0xff})))
	for _, used := range []bool{true, false} {
		for _, place := range []string{"a.crl", crlURL} {
			w := newCRLWorld(t, func(c *CRLConfig) { c.Refresh = time.Minute }, place)
			put := func(text []byte, want string) {
				t.Helper()
				w.write("a.crl", text)
				w.web[crlURL] = text
				w.refresh(time.Minute, want)
			}
			put(pemOf(
				makeCRL(t, one, now, crlNumber(5), crlRevokes(1, ofOne)),
				makeCRL(t, one, now, crlNumber(9), users, crlRevokes(1, user)),
				makeCRL(t, two, now, crlNumber(1), crlRevokes(1, ofTwo)),
			), "<nil>")
			if n := w.States()[0].Entries; n != 3 {
				t.Errorf("%d entries", n)
			}
			if used {
				w.expect(ofOne, one.Cert, true, true)
				w.expect(user, one.Cert, true, true)
				w.expect(ofTwo, two.Cert, true, true)
			}
			// one is older, one is broken, one is newer
			put(append(pemOf(
				makeCRL(t, one, now, crlNumber(4)),
				makeCRL(t, two, now, crlNumber(2)),
			), "-----BEGIN X509 CRL-----\nZm9v\n-----END X509 CRL-----\n"...), "")
			if err := w.States()[0].Failure; err == nil || !strings.Contains(err.Error(), "line ") {
				t.Errorf("failure: %v", err)
			}
			w.expect(ofOne, one.Cert, true, true)
			w.expect(user, one.Cert, true, true)
			w.expect(ofTwo, two.Cert, false, true)
			put(pemOf(
				makeCRL(t, one, now, crlNumber(6)),
				makeCRL(t, one, now, crlNumber(10), users, crlRevokes(1, ofOne)),
				makeCRL(t, two, now, crlNumber(3)),
			), "<nil>")
			w.expect(ofOne, one.Cert, true, true)
			w.expect(user, one.Cert, false, true)
		}
	}
}

// A CRL that vouches for nobody does not take the place of one that does.
func TestUnusableCRLReplacesOnlyItsLike(t *testing.T) {
	ca := testpki.MustCA(t)
	one, two := testpki.MustIssue(t, ca).Cert, testpki.MustIssue(t, ca).Cert
	unknown := crlExtension(unknownExtension, true, []byte{5, 0})
	w := newCRLWorld(t, nil, "a.crl")
	put := func(opts ...crlOption) {
		t.Helper()
		w.write("a.crl", makeCRL(t, ca, now, opts...))
		w.refresh(time.Second, "<nil>")
	}
	put(crlNumber(1), crlRevokes(1, one))
	w.expect(one, ca.Cert, true, true)
	put(crlNumber(2), unknown, crlRevokes(1, two))
	w.expect(one, ca.Cert, true, true)
	w.expect(two, ca.Cert, true, true)
	put(crlNumber(3))
	w.expect(one, ca.Cert, false, true)
	w.expect(two, ca.Cert, false, true)
}

// A CRL that is loaded before anybody needed it is not lost to a forgery that comes
// after it.
func TestForgeryDisplacesNoCRLThatWasNeverUsed(t *testing.T) {
	ca, forger := testpki.MustCA(t), testpki.MustCA(t) // of one name
	leaf := testpki.MustIssue(t, ca).Cert
	w := newCRLWorld(t, nil, crlURL)
	get := func(content []byte) {
		t.Helper()
		w.web[crlURL] = content
		w.refresh(time.Hour, "<nil>")
	}
	get(makeCRL(t, ca, now, crlNumber(5), crlRevokes(1, leaf), crlDates(now, now.Add(24*time.Hour))))
	for i := range int64(5) {
		get(makeCRL(t, forger, now, crlNumber(9+i)))
	}
	if n := len(w.locations[0].unverified); n > 3 {
		t.Errorf("%d CRLs are kept", n)
	}
	w.expect(leaf, ca.Cert, true, true)
}

// What is no CRL in a file keeps no CRL behind it from counting.
func TestCRLsBehindAnotherPEMBlockCount(t *testing.T) {
	one, two := testpki.MustCA(t, testpki.CommonName("One")), testpki.MustCA(t, testpki.CommonName("Two"))
	ofOne, ofTwo := testpki.MustIssue(t, one).Cert, testpki.MustIssue(t, two).Cert
	w := newCRLWorld(t, nil, "a.crl")
	w.write("a.crl", pemOf(makeCRL(t, one, now), makeCRL(t, two, now)))
	w.refresh(0, "<nil>")
	text := pemOf(makeCRL(t, one, now, crlNumber(2), crlRevokes(1, ofOne)))
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: []byte("bundle")})...)
	w.write("a.crl", append(text, pemOf(makeCRL(t, two, now, crlNumber(2), crlRevokes(1, ofTwo)))...))
	w.refresh(0, silence)
	wantError(t, w.States()[0].Failure, "PEM block 'PKCS7' is not a CRL")
	w.expect(ofOne, one.Cert, true, true)
	w.expect(ofTwo, two.Cert, true, true)
}

// A CA cannot vouch for itself by a CA that it has issued with the name of its own
// issuer.
func TestCAsBelowDoNotVouch(t *testing.T) {
	root := testpki.MustCA(t, testpki.CommonName("Root"))
	sub := testpki.MustIntermediate(t, root, testpki.CommonName("Sub"))
	namesake := testpki.MustIntermediate(t, sub, testpki.CommonName("Root"))
	chain := []*x509.Certificate{testpki.MustIssue(t, namesake).Cert, namesake.Cert, sub.Cert, root.Cert}
	check := func(crls ...*parsedCRL) *validators.Refusal {
		c := NewChecker(Config{CRLs: true, CAs: func() []*x509.Certificate { return chain[3:] }})
		c.SetCRLs(crlSetOf(crls...))
		refusal, _ := c.Check(t.Context(), chain, now)
		return refusal
	}
	ofSub, ofNamesake := mustCRL(t, sub, now), mustCRL(t, namesake, now)
	wantRefusal(t, check(ofSub, ofNamesake), validators.RevocationUnavailable, "not signed with the key")
	wantRefusal(t, check(ofSub, ofNamesake, mustCRL(t, root, now)), "", "")
	wantRefusal(t, check(ofSub, ofNamesake, mustCRL(t, root, now, crlRevokes(1, sub.Cert))), validators.CertificateRevoked, "revoked since")
}

// What a CRL remembers about CAs is bounded, although a CA may issue ever more CAs of
// its own name.
func TestCRLRemembersFewCAs(t *testing.T) {
	ca := testpki.MustCA(t)
	crl, key := mustCRL(t, ca, now), testpki.MustKey(t, testpki.P256)
	for range 2 * maxOutcomes {
		wantError(t, crl.checkSignedBy(testpki.MustIntermediate(t, ca, testpki.RawSubject(ca.Cert.RawSubject), testpki.Key(key)).Cert), "not signed with the key")
	}
	if n := len(crl.outcomes); n > maxOutcomes {
		t.Errorf("%d outcomes are remembered, want at most %d", n, maxOutcomes)
	}
	wantError(t, crl.checkSignedBy(ca.Cert), "")
}
