package validators

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"slices"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// trees are the subtrees of a name constraints extension, each a tag and the octets.
func trees(tag int, values ...string) (subtrees []generalSubtree) {
	for _, value := range values {
		subtrees = append(subtrees, generalSubtree{Base: general(tag, tag == 0 || tag == directoryName, []byte(value)), Maximum: -1})
	}
	return subtrees
}

func constraintsOf(t testing.TB, permitted, excluded []generalSubtree) testpki.Option {
	t.Helper()
	der, err := asn1.Marshal(nameConstraints{Permitted: permitted, Excluded: excluded})
	if err != nil {
		t.Fatal(err)
	}
	return testpki.Extension(pkix.Extension{Id: oidNameConstraints, Value: der})
}

// TestConstraintsThatGoReadsWidely_P1 tests that no name is admitted which a constraint
// withholds although [x509.Certificate.Verify] lets it pass.
func TestConstraintsThatGoReadsWidely_P1(t *testing.T) {
	type option = testpki.Option
	network := func(octets ...byte) string { return string(octets) }
	sixteen := func(ip string, mask int) string {
		return string(net.ParseIP(ip).To16()) + string(net.CIDRMask(mask, 128))
	}
	ip := func(ip string) option {
		if four := net.ParseIP(ip).To4(); four != nil {
			return testpki.IPs(four)
		}
		return testpki.IPs(net.ParseIP(ip))
	}
	// CreateCertificate shortens a mapped address.
	mapped := func(ip string) option {
		return testpki.GeneralNames(general(iPAddress, false, net.ParseIP(ip).To16()))
	}
	otherName := general(0, true, append([]byte{6, 3, 42, 3, 4}, 0xa0, 3, 12, 1, 'x'))
	ten, nine := network(10, 0, 0, 0, 255, 0, 0, 0), network(9, 0, 0, 0, 255, 0, 0, 0)
	for name, test := range map[string]struct {
		permitted, excluded []generalSubtree
		leaf                option
		why                 string // of the refusal, if it is one
	}{
		"two excluded networks with host bits":    {nil, trees(iPAddress, nine, network(10, 0, 0, 200, 255, 0, 0, 0)), ip("10.0.0.1"), "use a CA with 10.0.0.0/8"},
		"one excluded network with host bits":     {nil, trees(iPAddress, network(10, 0, 0, 200, 255, 0, 0, 0)), ip("11.0.0.1"), "10.0.0.200/8"},
		"a permitted network with host bits":      {trees(iPAddress, network(10, 0, 0, 1, 255, 0, 0, 0)), nil, ip("10.0.0.1"), "bits outside its mask"},
		"IPv6 with host bits":                     {nil, trees(iPAddress, sixteen("fd00::1", 8)), ip("fe00::2"), "bits outside its mask"},
		"two excluded networks":                   {nil, trees(iPAddress, nine, ten), ip("11.0.0.1"), ""},
		"two excluded networks, inside":           {nil, trees(iPAddress, nine, ten), ip("10.9.0.1"), "excluded"},
		"a permitted network":                     {trees(iPAddress, ten), nil, ip("10.1.2.3"), ""},
		"no network":                              {trees(iPAddress, network(0, 0, 0, 0, 255, 255, 255, 255)), nil, ip("10.0.0.1"), "not permitted"},
		"mapped, all of IPv6 is excluded":         {nil, trees(iPAddress, sixteen("::", 0)), mapped("::ffff:10.0.0.1"), "exclude the IP address"},
		"IPv6, a mapped network is excluded too":  {nil, trees(iPAddress, sixteen("::", 0), sixteen("::ffff:10.0.0.0", 104)), ip("2001:db8::1"), "exclude"},
		"mapped, IPv4 is excluded":                {nil, trees(iPAddress, ten), mapped("::ffff:10.0.0.1"), ""}, // another name, to declared ones too
		"e-mail host":                             {trees(rfc822Name, "example.com"), nil, testpki.Emails("joe@Example.com"), ""},
		"e-mail below the host":                   {trees(rfc822Name, "example.com"), nil, testpki.Emails("joe@a.example.com"), "joe@a.example.com"},
		"e-mail below the domain":                 {trees(rfc822Name, ".example.com"), nil, testpki.Emails("joe@a.b.example.com"), ""},
		"e-mail at the domain":                    {trees(rfc822Name, ".example.com"), nil, testpki.Emails("joe@example.com"), "not permitted"},
		"e-mail address":                          {trees(rfc822Name, "joe@example.com"), nil, testpki.Emails("joe@EXAMPLE.com"), ""},
		"another e-mail address":                  {trees(rfc822Name, "joe@example.com"), nil, testpki.Emails("jim@example.com"), "not permitted"},
		"one of several e-mail hosts":             {trees(rfc822Name, "example.net", "example.com"), nil, testpki.Emails("joe@example.com"), ""},
		"one of two e-mail addresses":             {trees(rfc822Name, "example.com"), nil, testpki.Emails("joe@example.com", "joe@a.example.com"), "joe@a.example.com"},
		"excluded e-mail host, below":             {nil, trees(rfc822Name, "example.com"), testpki.Emails("joe@a.example.com"), "excluded"}, // stricter than RFC 5280
		"URI host":                                {trees(uniformResourceIdentifier, "example.com"), nil, testpki.URIs("spiffe://example.com/ns/x"), ""},
		"URI host with a port":                    {trees(uniformResourceIdentifier, "example.com"), nil, testpki.URIs("https://Example.com:443/ns/x"), ""},
		"URI below the host":                      {trees(uniformResourceIdentifier, "example.com"), nil, testpki.URIs("spiffe://a.example.com/ns/x"), "a.example.com"},
		"URI below the domain":                    {trees(uniformResourceIdentifier, ".example.com"), nil, testpki.URIs("spiffe://a.example.com/ns/x"), ""},
		"URI at the domain":                       {trees(uniformResourceIdentifier, ".example.com"), nil, testpki.URIs("spiffe://example.com/ns/x"), "not permitted"},
		"DNS below the host, which RFC 5280 does": {trees(dNSName, "example.com"), nil, testpki.DNSNames("a.example.com"), ""},
		"an other name, permitted":                {[]generalSubtree{{Base: otherName, Maximum: -1}}, nil, testpki.GeneralNames(otherName), "otherName"},
		"an other name, excluded":                 {nil, []generalSubtree{{Base: otherName, Maximum: -1}}, testpki.GeneralNames(otherName), "otherName"},
		"no other name":                           {nil, []generalSubtree{{Base: otherName, Maximum: -1}}, testpki.DNSNames("a.example.com"), ""},
		"a registered id":                         {nil, trees(registeredID, "\x2a\x03"), testpki.GeneralNames(general(registeredID, false, []byte{0x2a, 4})), "registeredID"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, cas := range map[string]func() (pool, issuer *testpki.CA){
				"anchor": func() (*testpki.CA, *testpki.CA) {
					ca := testpki.MustCA(t, constraintsOf(t, test.permitted, test.excluded))
					return ca, ca
				},
				"intermediate": func() (*testpki.CA, *testpki.CA) {
					root := testpki.MustCA(t)
					return root, testpki.MustIntermediate(t, root, constraintsOf(t, test.permitted, test.excluded))
				},
				"above the issuer": func() (*testpki.CA, *testpki.CA) {
					root := testpki.MustCA(t)
					return root, testpki.MustIntermediate(t, testpki.MustIntermediate(t, root, constraintsOf(t, test.permitted, test.excluded)), testpki.CommonName("Below"))
				},
			} {
				root, issuer := cas()
				leaf := testpki.MustIssue(t, issuer, test.leaf)
				if pool := NewTrustPool(root.Pool(), root.Cert); test.why == "" {
					mustVerify(t, pool, leaf, leaf.Chain...)
				} else {
					mustNotVerify(t, pool, leaf, test.why, leaf.Chain...)
				}
			}
		})
	}
}

// TestNamesOfIntermediatesAreConstrained_P1 tests that a path is refused whose
// intermediate has a name that a CA above withholds, when that intermediate verified by
// another path.
func TestNamesOfIntermediatesAreConstrained_P1(t *testing.T) {
	free := testpki.MustCA(t, testpki.CommonName("Root"))
	constrained := testpki.MustCA(t, testpki.RawSubject(free.Cert.RawSubject), testpki.Key(free.Key), constraintsOf(t, trees(rfc822Name, "example.com"), nil))
	sub := testpki.MustIntermediate(t, free, testpki.Emails("ca@a.example.com"))
	leaf := testpki.MustIssue(t, sub)
	both := free.Pool()
	both.AddCert(constrained.Cert)
	if chains := mustVerify(t, NewTrustPool(both), leaf, sub.Cert); len(chains) != 1 || chains[0][2] != free.Cert {
		t.Errorf("%d chains, want the one to the unconstrained anchor", len(chains))
	}
}

// TestUsagesThatGoTakesForMissing_P1 tests extensions without a value, in every
// certificate of a chain.
func TestUsagesThatGoTakesForMissing_P1(t *testing.T) {
	noKeyUsage := []testpki.Option{testpki.KeyUsage(0), testpki.Extension(pkix.Extension{Id: oidKeyUsage, Critical: true, Value: []byte{3, 1, 0}})}
	noEKU := []testpki.Option{testpki.NoEKU(), testpki.Extension(pkix.Extension{Id: oidExtKeyUsage, Value: []byte{0x30, 0}})}
	policy := func(last byte, value ...byte) []testpki.Option {
		return []testpki.Option{testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, int(last)}, Critical: true, Value: value})}
	}
	for name, test := range map[string]struct {
		opts []testpki.Option
		why  string
	}{
		"key usage":                 {noKeyUsage, "keyCertSign"},
		"zero bits of key usage":    {[]testpki.Option{testpki.KeyUsage(0), testpki.Extension(pkix.Extension{Id: oidKeyUsage, Value: []byte{3, 2, 0, 0}})}, "keyCertSign"},
		"extended key usage":        {noEKU, "extended key usage is empty"},
		"negative explicit policy":  {policy(36, 0x30, 3, 0x80, 1, 0xff), "negative"},
		"negative policy mapping":   {policy(36, 0x30, 3, 0x81, 1, 0xff), "negative"},
		"negative inhibitAnyPolicy": {policy(54, 2, 1, 0xff), "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			root := testpki.MustCA(t)
			sub := testpki.MustIntermediate(t, root, test.opts...)
			leaf := testpki.MustIssue(t, sub)
			mustNotVerify(t, NewTrustPool(root.Pool(), root.Cert), leaf, test.why, sub.Cert)
			below := testpki.MustIssue(t, testpki.MustIntermediate(t, sub, testpki.CommonName("Below")))
			mustNotVerify(t, NewTrustPool(root.Pool(), root.Cert), below, test.why, below.Chain...)
			anchor := testpki.MustCA(t, test.opts...)
			mustNotVerify(t, NewTrustPool(anchor.Pool(), anchor.Cert), testpki.MustIssue(t, anchor), test.why)
		})
	}
	leaf := testpki.MustSelfSigned(t, noEKU...).Cert
	wantRefusal(t, CheckLeaf(leaf), CertificateUnsuitable, "extended key usage is empty")
	leaf = testpki.MustSelfSigned(t, noKeyUsage...).Cert
	wantRefusal(t, CheckPKILeaf(leaf), CertificateUnsuitable, "digitalSignature")
}

// manyConstraints returns a CA with that many constraints, of which the last permits the
// names, and a leaf below it with that many names.
func manyConstraints(t *testing.T, constraints, names int) (*testpki.CA, *testpki.Leaf) {
	permitted := slices.Repeat([]string{"other.example"}, constraints-1)
	ca := testpki.MustCA(t, testpki.Template(func(c *x509.Certificate) { c.PermittedEmailAddresses = append(permitted, "example.com") }))
	return ca, testpki.MustIssue(t, ca, testpki.Emails(slices.Repeat([]string{"joe@example.com"}, names)...))
}

// TestVerifyComparesFewNames tests that whoever operates a CA below an anchor cannot make
// comparing names expensive.
func TestVerifyComparesFewNames(t *testing.T) {
	ca, leaf := manyConstraints(t, 256, 256)
	mustVerify(t, NewTrustPool(ca.Pool()), leaf)
	ca, leaf = manyConstraints(t, 256, 257)
	mustNotVerify(t, NewTrustPool(ca.Pool()), leaf, "too many to compare")
}
