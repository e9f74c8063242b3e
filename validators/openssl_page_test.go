package validators

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestOpenSSLPage checks that the page about what OpenSSL accepts names what is said in
// the log, and that it has a row for each rule of the comparison with OpenSSL.
func TestOpenSSLPage(t *testing.T) {
	page, err := os.ReadFile("../docs/what-openssl-accepts.md")
	if err != nil {
		t.Fatal(err)
	}
	page, _, _ = bytes.Cut(page, []byte("## What is accepted here"))
	for _, rule := range onlyOpenSSL {
		words := strings.TrimSuffix(rule.words, " SHA1")
		if i := bytes.Index(page, []byte(words)); i < 0 {
			t.Errorf("the page has no row with %q", words)
		}
	}
	said := refusalsOnPage(t)
	maker := newChainMaker(t, 11)
	for range 400 {
		if err := maker.chain().ours(); err != nil {
			said = append(said, err.Error())
		}
	}
	row := regexp.MustCompile("(?m)^\\| (`.*?`) \\|")
	sign := regexp.MustCompile("`[^`]+`")
	for _, cell := range row.FindAllSubmatch(page, -1) {
		for _, quoted := range sign.FindAll(cell[1], -1) {
			text := strings.Trim(string(quoted), "`")
			if !slices.ContainsFunc(said, func(said string) bool { return strings.Contains(said, text) }) {
				t.Errorf("nothing says %q", text)
			}
		}
	}
}

// refusalsOnPage are the refusals that random chains do not have.
func refusalsOnPage(t *testing.T) (said []string) {
	add := func(err error) {
		if err == nil {
			t.Error("not refused")
			return
		}
		said = append(said, err.Error())
	}
	root := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, root)
	pool := NewTrustPool(root.Pool(), root.Cert)
	for _, copied := range testpki.Reencoded(t, leaf.Cert) {
		if !copied.Equal(leaf.Cert) {
			add(CheckLeaf(copied))
		}
	}
	add(CheckLeaf(testpki.MustIssue(t, root, testpki.DNSNames(slices.Repeat([]string{"a"}, maxSANs+1)...)).Cert))
	stranger := testpki.MustSelfSigned(t)
	_, err := pool.Verify(stranger.Cert, slices.Repeat([]*x509.Certificate{stranger.Cert}, MaxIntermediates+1), now)
	add(err)

	_, err = pool.Verify(stranger.Cert, []*x509.Certificate{testpki.MustHugeRSA(t, maxRSABits+8)}, now)
	add(err)

	odd := *leaf.Cert
	odd.SignatureAlgorithm = x509.UnknownSignatureAlgorithm
	f := failure{pool: pool, leaf: &odd, now: now}
	said = append(said, f.why(&odd, x509.UnknownAuthorityError{Cert: &odd}))
	ca := *root.Cert
	ca.PublicKey, ca.PublicKeyAlgorithm = nil, x509.DSA
	add(CheckCA(&ca, now))
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak.N.Rsh(weak.N, 1100)
	ca.PublicKey = &weak.PublicKey
	add(CheckCA(&ca, now))

	for _, uri := range []string{"urn:uuid:1", "https://10.0.0.1/"} {
		constrained := testpki.MustCA(t, constraintsOf(t, trees(dNSName, "example.com"), nil))
		_, err := NewTrustPool(constrained.Pool(), constrained.Cert).Verify(testpki.MustIssue(t, constrained, testpki.URIs(uri)).Cert, nil, now)
		add(err)
	}
	constrained := testpki.MustCA(t, constraintsOf(t, trees(rfc822Name, "example.com"), nil))
	_, err = NewTrustPool(constrained.Pool(), constrained.Cert).Verify(testpki.MustIssue(t, constrained, testpki.Subject(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidEmailAddress, Value: "a@example.com"}}})).Cert, nil, now)
	add(err)
	registered := testpki.MustCA(t, constraintsOf(t, nil, trees(registeredID, "*")))
	_, err = NewTrustPool(registered.Pool(), registered.Cert).Verify(testpki.MustIssue(t, registered, testpki.GeneralNames(general(registeredID, false, []byte("*")))).Cert, nil, now)
	add(err)
	large, many := manyConstraints(t, 300, 300)
	_, err = NewTrustPool(large.Pool(), large.Cert).Verify(many.Cert, nil, now)
	add(err)
	add(CheckLeaf(testpki.MustSelfSigned(t, testpki.NoEKU(), testpki.Extension(pkix.Extension{Id: oidExtKeyUsage, Value: []byte{0x30, 0}})).Cert))
	return said
}
