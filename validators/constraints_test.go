package validators

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// constraint is a name constraints extension with one subtree.
func constraint(t testing.TB, critical, excluded bool, tree generalSubtree) testpki.Option {
	t.Helper()
	var value nameConstraints
	if excluded {
		value.Excluded = []generalSubtree{tree}
	} else {
		value.Permitted = []generalSubtree{tree}
	}
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return testpki.Extension(pkix.Extension{Id: oidNameConstraints, Critical: critical, Value: der})
}

func general(tag int, compound bool, value []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: value}
}

func TestVerifyRefusesDirectoryNameConstraints(t *testing.T) {
	permitted := testpki.MustCA(t, testpki.CommonName("permitted")).Cert.RawSubject
	tree := generalSubtree{Base: general(directoryName, true, permitted), Maximum: -1}
	plain := testpki.MustCA(t)
	for name, opt := range map[string]testpki.Option{
		"critical":              constraint(t, true, false, tree),
		"not critical":          constraint(t, false, false, tree),
		"excluded":              constraint(t, false, true, tree),
		"primitive encoding":    constraint(t, false, false, generalSubtree{Base: general(directoryName, false, permitted), Maximum: -1}),
		"minimum":               constraint(t, false, false, generalSubtree{Base: general(2, false, []byte("example.com")), Minimum: 1, Maximum: -1}),
		"maximum":               constraint(t, false, false, generalSubtree{Base: general(2, false, []byte("example.com")), Maximum: 3}),
		"negative minimum":      testpki.Extension(pkix.Extension{Id: oidNameConstraints, Value: []byte{0x30, 0x0a, 0xa0, 0x08, 0x30, 0x06, 0x82, 0x01, 'a', 0x80, 0x01, 0xff}}),
		"minimum far too large": testpki.Extension(pkix.Extension{Id: oidNameConstraints, Value: append([]byte{0x30, 0x13, 0xa0, 0x11, 0x30, 0x0f, 0x82, 0x01, 'a', 0x80, 0x0a}, 0x7f, 1, 1, 1, 1, 1, 1, 1, 1, 1)}),
	} {
		t.Run(name, func(t *testing.T) {
			sub := testpki.MustIntermediate(t, plain, opt)
			leaf := testpki.MustIssue(t, sub, testpki.CommonName("permitted"), testpki.DNSNames("example.com"))
			pool := NewTrustPool(plain.Pool())
			mustNotVerify(t, pool, leaf, `presented certificate "Test Intermediate CA": its name constraints `, sub.Cert)
			if len(*pool.known.Load()) != 0 {
				t.Error("a refused CA is remembered")
			}

			// As an anchor, over a leaf and over an intermediate.
			anchor := testpki.MustCA(t, opt)
			pool = NewTrustPool(anchor.Pool())
			for _, sub := range []*testpki.CA{anchor, testpki.MustIntermediate(t, anchor)} {
				leaf := testpki.MustIssue(t, sub, testpki.DNSNames("example.com"))
				if _, err := pool.Verify(leaf.Cert, leaf.Chain, now); err == nil {
					t.Error("verified under an anchor with constraints that are not enforced")
				}
			}
		})
	}
}

func TestVerifyTakesAnotherChainThanTheConstrainedOne(t *testing.T) {
	tree := generalSubtree{Base: general(directoryName, true, testpki.MustCA(t).Cert.RawSubject), Maximum: -1}
	root := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, root, testpki.CommonName("Sub"))
	constrained := testpki.MustIntermediate(t, root, testpki.CommonName("Sub"), testpki.Key(sub.Key), constraint(t, false, false, tree))
	leaf := testpki.MustIssue(t, sub)
	for _, presented := range [][]*x509.Certificate{{sub.Cert, constrained.Cert}, {constrained.Cert, sub.Cert}} {
		chains := mustVerify(t, NewTrustPool(root.Pool()), leaf, presented...)
		if len(chains) != 1 || chains[0][1] != sub.Cert {
			t.Errorf("%d chains, want the one without constraints", len(chains))
		}
	}
}

func TestVerifyEnforcesOtherConstraints(t *testing.T) {
	root := testpki.MustCA(t, testpki.Template(func(c *x509.Certificate) {
		c.PermittedDNSDomains = []string{"example.com"}
		c.PermittedEmailAddresses = []string{"example.com"}
	}))
	pool := NewTrustPool(root.Pool())
	email := func(address string) testpki.Option {
		return testpki.Subject(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidEmailAddress, Value: address}}})
	}
	sub := testpki.MustIntermediate(t, root)
	for _, ca := range []*testpki.CA{root, sub} {
		good := testpki.MustIssue(t, ca, testpki.DNSNames("a.example.com"))
		mustVerify(t, pool, good, good.Chain...)
		bad := testpki.MustIssue(t, ca, testpki.DNSNames("a.example.net"))
		mustNotVerify(t, pool, bad, "not permitted", bad.Chain...)

		// Go applies the email constraint only to alternative names.
		inSubject := testpki.MustIssue(t, ca, email("boss@example.net"))
		mustNotVerify(t, pool, inSubject, "emailAddress", inSubject.Chain...)
		inBoth := testpki.MustIssue(t, ca, email("boss@example.com"), testpki.Emails("boss@example.com"))
		mustVerify(t, pool, inBoth, inBoth.Chain...)
	}
	free := testpki.MustCA(t)
	mustVerify(t, NewTrustPool(free.Pool()), testpki.MustIssue(t, free, email("boss@example.net")))
}

func FuzzNameConstraints(f *testing.F) {
	f.Add([]byte{0x30, 0x00})
	f.Add([]byte{0x30, 0x09, 0xa0, 0x07, 0x30, 0x05, 0x82, 0x03, 'a', '.', 'b'})
	f.Add([]byte{0x30, 0x08, 0xa1, 0x06, 0x30, 0x04, 0xa4, 0x02, 0x30, 0x00})
	f.Add([]byte{0x30, 0x0a, 0xa0, 0x08, 0x30, 0x06, 0x82, 0x01, 'a', 0x80, 0x01, 0x01})
	f.Fuzz(func(t *testing.T, der []byte) {
		ca := &x509.Certificate{Extensions: []pkix.Extension{{Id: oidNameConstraints, Value: der}}}
		if checkNameConstraints(ca) != nil {
			return
		}
		// An admitted extension parses and has no directory name.
		var constraints nameConstraints
		if _, err := asn1.Unmarshal(der, &constraints); err != nil {
			t.Fatal(err)
		}
		for _, tree := range append(constraints.Permitted, constraints.Excluded...) {
			if tree.Base.Class == asn1.ClassContextSpecific && tree.Base.Tag == directoryName {
				t.Fatal("a directory name was admitted")
			}
		}
	})
}

// TestVerifyEnforcesConstraintsOfIntermediates tests that an email constraint counts
// in any CA above the leaf, but not for the CA that has it.
func TestVerifyEnforcesConstraintsOfIntermediates(t *testing.T) {
	subject := func(name, address string) testpki.Option {
		return testpki.Subject(pkix.Name{CommonName: name, ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidEmailAddress, Value: address}}})
	}
	constrained := testpki.Template(func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"example.com"} })
	root := testpki.MustCA(t)
	above := testpki.MustIntermediate(t, root, testpki.CommonName("Above"), constrained)
	for name, ca := range map[string]*testpki.CA{
		"the issuer":                        above,
		"above the issuer":                  testpki.MustIntermediate(t, above, testpki.CommonName("Below")),
		"the issuer, below a free CA":       testpki.MustIntermediate(t, testpki.MustIntermediate(t, root, testpki.CommonName("Free")), testpki.CommonName("Sub"), constrained),
		"the issuer, with an address of it": testpki.MustIntermediate(t, root, subject("Sub", "ca@example.net"), constrained),
	} {
		t.Run(name, func(t *testing.T) {
			pool := NewTrustPool(root.Pool())
			good := testpki.MustIssue(t, ca, testpki.CommonName("good"))
			mustVerify(t, pool, good, good.Chain...)
			bad := testpki.MustIssue(t, ca, subject("bad", "boss@example.net"))
			mustNotVerify(t, pool, bad, "emailAddress", bad.Chain...)
			named := testpki.MustIssue(t, ca, subject("named", "boss@example.net"), testpki.Emails("boss@example.com"))
			mustVerify(t, pool, named, named.Chain...)
		})
	}
}
