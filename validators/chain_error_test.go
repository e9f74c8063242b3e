package validators

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestErrorsNameCertificateCauseAndRemedy tests what is said of a CA that lets nothing
// verify: as the only CA of a pool, as one that a client sent, and as one above that.
func TestErrorsNameCertificateCauseAndRemedy(t *testing.T) {
	hour := func(from, until int) testpki.Option {
		return testpki.Validity(now.Add(time.Duration(from)*time.Hour), now.Add(time.Duration(until)*time.Hour))
	}
	critical := func(oid asn1.ObjectIdentifier, value ...byte) testpki.Option {
		return testpki.Extension(pkix.Extension{Id: oid, Critical: true, Value: value})
	}
	rsa1024, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	name := testpki.MustCA(t).Cert.RawSubject
	for what, test := range map[string]struct {
		opt testpki.Option
		// why is what CheckCA says; words, what is said of the chain, if not the same.
		why   string
		words string
	}{
		"expired":                   {hour(-2, -1), "it expired at ", ""},
		"not yet valid":             {hour(1, 2), "it is not valid before ", ""},
		"no keyCertSign":            {testpki.KeyUsage(x509.KeyUsageCRLSign), "its key usage lacks keyCertSign, so it must not issue certificates; use ", ""},
		"serverAuth alone":          {testpki.EKU(x509.ExtKeyUsageServerAuth), "its extended key usages are serverAuth and not clientAuth; use ", ""},
		"unknown usage alone":       {testpki.Template(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }), "its extended key usages are 1.2.3 and not clientAuth; use ", ""},
		"critical directory names":  {constraint(t, true, false, generalSubtree{Base: general(directoryName, true, name), Maximum: -1}), "its name constraints restrict directory names, which cannot be enforced; use ", ""},
		"directory names":           {constraint(t, false, true, generalSubtree{Base: general(directoryName, true, name), Maximum: -1}), "its name constraints restrict directory names, which cannot be enforced; use ", ""},
		"critical other names":      {constraint(t, true, false, trees(registeredID, "*")[0]), "its critical name constraints restrict forms of names ", ""},
		"IP network with host bits": {constraint(t, true, false, trees(iPAddress, "\x0a\x00\x00\x01\xff\x00\x00\x00")[0]), "10.0.0.1/8", ""},
		"critical unknown":          {critical(unknownExtension, 5, 0), "it has the critical extension 1.3.6.1.4.1.99999.1, which is unknown; use ", ""},
		"weak RSA key":              {testpki.Key(rsa1024), "", ""},
		"path length":               {testpki.MaxPathLen(0), "", "its path length constraint allows 0 CAs below it, and there are more; have"},
		"explicit policy":           {critical(asn1.ObjectIdentifier{2, 5, 29, 36}, 0x30, 3, 0x80, 1, 0), "", "the certificate policies do not satisfy the policy constraints of the CAs above"},
		"name constraints":          {constraint(t, true, false, trees(dNSName, "example.com")[0]), "", `do not allow one of its names: DNS name "a.example.net" is not permitted`},
	} {
		t.Run(what, func(t *testing.T) {
			opts := []testpki.Option{testpki.CommonName("Odd"), test.opt}
			anchor := testpki.MustCA(t, opts...)
			wantWhy(t, CheckCA(anchor.Cert, now), test.why)
			words := test.why
			if test.words != "" {
				words = test.words
			}
			if words == "" {
				return
			}
			named := testpki.DNSNames("a.example.net")
			if what != "path length" && what != "explicit policy" { // RFC 5280 does not look at the anchor's policies
				mustNotVerify(t, NewTrustPool(anchor.Pool(), anchor.Cert), testpki.MustIssue(t, anchor, named), words)
			}
			free := testpki.MustCA(t, testpki.CommonName("Root"))
			sub := testpki.MustIntermediate(t, free, opts...)
			below := testpki.MustIssue(t, testpki.MustIntermediate(t, sub, testpki.CommonName("Below")), named)
			mustNotVerify(t, NewTrustPool(free.Pool(), free.Cert), below, `"Odd"`, below.Chain...)
			mustNotVerify(t, NewTrustPool(free.Pool(), free.Cert), below, words, below.Chain...)
			// What a pool holds without disclosing it is not named, but is explained.
			mustNotVerify(t, NewTrustPool(anchor.Pool()), testpki.MustIssue(t, testpki.MustIntermediate(t, anchor), named), "")
		})
	}
	plain := testpki.MustCA(t)
	wantWhy(t, CheckCA(plain.Cert, now), "")
	wantWhy(t, CheckCA(testpki.MustIntermediate(t, plain, testpki.EKU(x509.ExtKeyUsageAny)).Cert, now), "")
	wantWhy(t, CheckCA(testpki.MustIssue(t, plain).Cert, now), "it is not a CA")
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak.N.Rsh(weak.N, 1100)
	odd := *plain.Cert
	odd.PublicKey = &weak.PublicKey
	wantWhy(t, CheckCA(&odd, now), "its RSA key has 948 bits, which is too weak; use ")
	odd.PublicKey, odd.PublicKeyAlgorithm = nil, x509.UnknownPublicKeyAlgorithm
	wantWhy(t, CheckCA(&odd, now), "a key of an unsupported kind")
}

func wantWhy(t *testing.T, err error, why string) {
	t.Helper()
	switch {
	case why == "" && err != nil:
		t.Errorf("refused: %v", err)
	case why != "":
		wantRefusal(t, &Refusal{Reason: CertificateUntrusted, Detail: errText(err)}, CertificateUntrusted, why)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestErrorsAboutTheIssuer tests what is said when no CA has issued a certificate.
func TestErrorsAboutTheIssuer(t *testing.T) {
	root := testpki.MustCA(t, testpki.CommonName("Root"))
	sub := testpki.MustIntermediate(t, root, testpki.CommonName("Sub"))
	namesake := testpki.MustCA(t, testpki.CommonName("Root"))
	rsaRoot := testpki.MustCA(t, testpki.CommonName("Root"), testpki.WithKeyType(testpki.RSA2048))
	sha1 := testpki.Template(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	printable := testpki.MustCA(t, testpki.RawSubject(oneName(t, asn1.TagPrintableString, "Company CA")))
	utf8 := testpki.MustCA(t, testpki.RawSubject(oneName(t, asn1.TagUTF8String, "Company CA")), testpki.Key(printable.Key))
	utf8Sub := testpki.MustIntermediate(t, root, testpki.RawSubject(utf8.Cert.RawSubject), testpki.Key(printable.Key))
	selfSigned := testpki.MustSelfSigned(t)
	for name, test := range map[string]struct {
		anchor    *testpki.CA
		leaf      *testpki.Leaf
		presented []*x509.Certificate
		why       string
	}{
		"unknown issuer":             {root, testpki.MustIssue(t, testpki.MustCA(t, testpki.CommonName("Other"))), nil, `its issuer is not in the trust pool, nor among the 0 certificates that were sent after it: "CN=Other"; have the client send it`},
		"intermediate not sent":      {root, testpki.MustIssue(t, sub), nil, `nor among the 0 certificates that were sent after it: "CN=Sub"`},
		"issuer of the sent one":     {namesake, testpki.MustIssue(t, sub), []*x509.Certificate{sub.Cert}, `presented certificate "Sub": certificate signed by unknown authority; it names "CN=Root" as its issuer, but was not signed with the key of that CA`},
		"another key":                {root, testpki.MustIssue(t, namesake), nil, `it names "CN=Root" as its issuer, but was not signed with the key of that CA; if the CA has another key, add its certificate too`},
		"self-signed":                {root, selfSigned, nil, "it is self-signed and not in the trust pool"},
		"SHA-1":                      {rsaRoot, testpki.MustIssue(t, rsaRoot, sha1), nil, "it is signed with the insecure algorithm SHA1-RSA; have it reissued with SHA-256"},
		"SHA-1 of the sent one":      {rsaRoot, testpki.MustIssue(t, testpki.MustIntermediate(t, rsaRoot, sha1)), []*x509.Certificate{testpki.MustIntermediate(t, rsaRoot, sha1).Cert}, `presented certificate "Test Intermediate CA": certificate signed by unknown authority; it is signed with the insecure algorithm`},
		"string type":                {printable, testpki.MustIssue(t, utf8), nil, `its issuer "CN=Company CA" is in the trust pool, but its name is written there with other ASN.1 string types`},
		"string type, the other way": {utf8, testpki.MustIssue(t, printable), nil, "other ASN.1 string types"},
		"string type of one sent":    {root, testpki.MustIssue(t, printable), []*x509.Certificate{utf8Sub.Cert}, `its issuer "CN=Company CA" was sent, but its name is written there with other ASN.1 string types`},
		"string type, CA sent too":   {printable, testpki.MustIssue(t, utf8), []*x509.Certificate{utf8.Cert}, `presented certificate "Company CA": certificate signed by unknown authority; its issuer "CN=Company CA" is in the trust pool, but`},
		"string type, not the name":  {printable, testpki.MustIssue(t, testpki.MustCA(t, testpki.CommonName("Company"))), nil, "its issuer is not in the trust pool, nor among"},
		"a URI without a host":       {testpki.MustCA(t, constraint(t, true, false, trees(dNSName, "example.com")[0])), nil, nil, `it has a URI with no host, as in urn:, which cannot be compared with name constraints, of whatever kind, such as those above (CA "Test Root CA" of the trust pool); have it issued without that URI`},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := test.leaf
			if leaf == nil {
				leaf = testpki.MustIssue(t, test.anchor, testpki.URIs("urn:uuid:1"), testpki.DNSNames("a.example.com"))
			}
			mustNotVerify(t, NewTrustPool(test.anchor.Pool(), test.anchor.Cert), leaf, test.why, test.presented...)
			mustNotVerify(t, NewTrustPool(test.anchor.Pool()), leaf, "", test.presented...)
		})
	}
}

// TestErrorOfRememberedCAWithoutItsIssuer tests that the certificate is named whose
// issuer is missing, which need not be the leaf.
func TestErrorOfRememberedCAWithoutItsIssuer(t *testing.T) {
	root := testpki.MustCA(t)
	above := testpki.MustIntermediate(t, root, testpki.CommonName("Above"))
	sub := testpki.MustIntermediate(t, above, testpki.CommonName("Sub"))
	leaf := testpki.MustIssue(t, sub)
	pool := NewTrustPool(root.Pool(), root.Cert)
	mustVerify(t, pool, leaf, leaf.Chain...)
	mustNotVerify(t, pool, leaf, `presented certificate "Sub": certificate signed by unknown authority; its issuer is not in the trust pool, nor among the 1 certificates that were sent after it: "CN=Above"`, sub.Cert)
}

// oneName is a Name with a common name in a string type.
func oneName(t *testing.T, tag int, text string) []byte {
	t.Helper()
	der, err := asn1.Marshal([]rdnSET{{{Type: oidCommonName, Value: asn1.RawValue{Tag: tag, Bytes: []byte(text)}}}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}
