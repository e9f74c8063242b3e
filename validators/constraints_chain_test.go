package validators

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

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
