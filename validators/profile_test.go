package validators

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

var unknownExtension = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}

func TestBasicConstraints_R24(t *testing.T) {
	root := testpki.MustCA(t)
	for name, opt := range map[string]testpki.Option{
		"CA:FALSE":             testpki.IsCA(false),
		"no basic constraints": testpki.NoBasicConstraints(),
	} {
		t.Run(name, func(t *testing.T) {
			sub := testpki.MustIntermediate(t, root, opt)
			leaf := testpki.MustIssue(t, sub)
			mustNotVerify(t, NewTrustPool(root.Pool()), leaf, "not a CA", sub.Cert)
		})
	}
	sub := testpki.MustIntermediate(t, root, testpki.KeyUsage(x509.KeyUsageDigitalSignature))
	leaf := testpki.MustIssue(t, sub)
	mustNotVerify(t, NewTrustPool(root.Pool()), leaf, "unknown authority", sub.Cert)

	noCA := testpki.MustCA(t, testpki.IsCA(false))
	mustNotVerify(t, NewTrustPool(noCA.Pool()), testpki.MustIssue(t, noCA), "unknown authority")
}

func TestChainDepth_R24(t *testing.T) {
	for _, depth := range []int{0, 1, 2} {
		root := testpki.MustCA(t, testpki.MaxPathLen(depth))
		ca := root
		for below := range 4 {
			leaf := testpki.MustIssue(t, ca)
			_, err := NewTrustPool(root.Pool()).Verify(leaf.Cert, leaf.Chain, now)
			if got, want := err == nil, below <= depth; got != want {
				t.Errorf("path length %d with %d intermediates: verified %v, want %v (%v)", depth, below, got, want, err)
			}
			ca = testpki.MustIntermediate(t, ca, testpki.CommonName(strings.Repeat("I", below+1)))
		}
	}
}

func TestKeyUsage_R24(t *testing.T) {
	// digitalSignature is the first bit; a key usage may have no bits.
	noBits := testpki.Extension(pkix.Extension{Id: oidKeyUsage, Critical: true, Value: []byte{0x03, 0x01, 0x00}})
	for name, test := range map[string]struct {
		opt testpki.Option
		why string
	}{
		"none":                        {testpki.KeyUsage(0), ""},
		"digitalSignature":            {testpki.KeyUsage(x509.KeyUsageDigitalSignature), ""},
		"digitalSignature and others": {testpki.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement), ""},
		"keyEncipherment":             {testpki.KeyUsage(x509.KeyUsageKeyEncipherment), "lacks digitalSignature, which client authentication needs; issue the client one with digitalSignature, or without key usages"},
		"no bits":                     {noBits, "lacks digitalSignature"},
		"keyCertSign":                 {testpki.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign), "keyCertSign"},
		"CA":                          {testpki.IsCA(true), "CA:TRUE"},
		"no basic constraints":        {testpki.NoBasicConstraints(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			opts := []testpki.Option{test.opt}
			if name == "no bits" {
				opts = append(opts, testpki.KeyUsage(0))
			}
			leaf := testpki.MustSelfSigned(t, opts...).Cert
			wantRefusal(t, CheckPKILeaf(leaf), CertificateUnsuitable, test.why)
			wantRefusal(t, CheckLeaf(leaf), "", "")
		})
	}
}

func TestExtendedKeyUsage_R24(t *testing.T) {
	other := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 2}
	unknown := func(oids ...asn1.ObjectIdentifier) testpki.Option {
		return testpki.Template(func(c *x509.Certificate) { c.UnknownExtKeyUsage = oids })
	}
	root := testpki.MustCA(t)
	for name, test := range map[string]struct {
		opts []testpki.Option
		why  string
	}{
		"none":                   {[]testpki.Option{testpki.NoEKU()}, ""},
		"clientAuth":             {nil, ""},
		"any":                    {[]testpki.Option{testpki.EKU(x509.ExtKeyUsageAny)}, ""},
		"server and client":      {[]testpki.Option{testpki.EKU(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)}, ""},
		"client and unknown":     {[]testpki.Option{unknown(other)}, ""},
		"server":                 {[]testpki.Option{testpki.EKU(x509.ExtKeyUsageServerAuth)}, "serverAuth"},
		"unknown only":           {[]testpki.Option{testpki.NoEKU(), unknown(other)}, "1.3.6.1.4.1.311.20.2.2"},
		"a great many":           {[]testpki.Option{testpki.NoEKU(), unknown(other, other, other, other, other, other)}, "…"},
		"an immoderate one":      {[]testpki.Option{testpki.NoEKU(), unknown(append(other, make([]int, 500)...))}, "1.3.6.1.4.1.311.20.2.2.0"},
		"any of the known kinds": {[]testpki.Option{testpki.EKU(x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageEmailProtection)}, "codeSigning, emailProtection"},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := testpki.MustIssue(t, root, test.opts...)
			wantRefusal(t, CheckLeaf(leaf.Cert), CertificateUnsuitable, test.why)
			_, err := NewTrustPool(root.Pool()).Verify(leaf.Cert, nil, now)
			if (err == nil) != (test.why == "") {
				t.Errorf("the chain's verification disagrees: %v", err)
			}
		})
	}

	server := testpki.MustIntermediate(t, root, testpki.EKU(x509.ExtKeyUsageServerAuth))
	leaf := testpki.MustIssue(t, server)
	mustNotVerify(t, NewTrustPool(root.Pool()), leaf, `presented certificate "Test Intermediate CA": its extended key usages are serverAuth and not clientAuth`, server.Cert)
}

func TestValidity_R24(t *testing.T) {
	from, until := now.Add(-time.Minute).Truncate(time.Second), now.Add(time.Minute).Truncate(time.Second)
	root := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, root, testpki.Validity(from, until)).Cert
	for name, test := range map[string]struct {
		now time.Time
		why string
	}{
		"before": {from.Add(-time.Second), "not yet valid"},
		"first":  {from, ""},
		"during": {now, ""},
		"last":   {until, ""},
		"after":  {until.Add(time.Second), "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefusal(t, CheckValidity(leaf, test.now), CertificateExpired, test.why)
			_, err := NewTrustPool(root.Pool()).Verify(leaf, nil, test.now)
			if (err == nil) != (test.why == "") {
				t.Errorf("the chain's verification disagrees: %v", err)
			}
		})
	}
	detail := CheckValidity(leaf, until.Add(time.Second)).Detail
	if !strings.Contains(detail, until.UTC().Format(time.RFC3339)) {
		t.Errorf("detail %q does not name the end", detail)
	}
	if n := testing.AllocsPerRun(100, func() { CheckValidity(leaf, now) }); n != 0 {
		t.Errorf("%v allocations for a valid certificate", n)
	}

	expired := testpki.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour))
	sub := testpki.MustIntermediate(t, root, expired)
	issued := testpki.MustIssue(t, sub)
	pool := NewTrustPool(root.Pool())
	mustNotVerify(t, pool, issued, "expired", sub.Cert)
	renewed := testpki.MustIntermediate(t, root, testpki.Key(sub.Key))
	mustVerify(t, pool, issued, sub.Cert, renewed.Cert)
	old := testpki.MustCA(t, expired)
	mustNotVerify(t, NewTrustPool(old.Pool()), testpki.MustIssue(t, old), "expired")
}

func TestCriticalExtensions_R24(t *testing.T) {
	for _, critical := range []bool{true, false} {
		opt := testpki.Extension(pkix.Extension{Id: unknownExtension, Critical: critical, Value: []byte{5, 0}})
		why := ""
		if critical {
			why = unknownExtension.String()
		}
		root := testpki.MustCA(t)
		wantRefusal(t, CheckLeaf(testpki.MustIssue(t, root, opt).Cert), CertificateUnsuitable, why)

		sub := testpki.MustIntermediate(t, root, opt)
		leaf := testpki.MustIssue(t, sub)
		if _, err := NewTrustPool(root.Pool()).Verify(leaf.Cert, leaf.Chain, now); (err != nil) != critical {
			t.Errorf("critical %v in an intermediate: %v", critical, err)
		}
		anchor := testpki.MustCA(t, opt)
		if _, err := NewTrustPool(anchor.Pool()).Verify(testpki.MustIssue(t, anchor).Cert, nil, now); (err != nil) != critical {
			t.Errorf("critical %v in an anchor: %v", critical, err)
		}
	}
}

func TestEmbeddedNULInNames_R24(t *testing.T) {
	root := testpki.MustCA(t, testpki.CommonName("Root"))
	fake := testpki.MustCA(t, testpki.CommonName("Root\x00.evil"))
	pool := NewTrustPool(root.Pool())
	leaf := testpki.MustIssue(t, fake, testpki.CommonName("client\x00.evil"))
	mustNotVerify(t, pool, leaf, "unknown authority", fake.Cert)
	// Signed with the right key, but with a name that only begins like it.
	misnamed := testpki.MustIntermediate(t, root, testpki.CommonName("Sub\x00.evil"))
	honest := testpki.MustIntermediate(t, root, testpki.CommonName("Sub"), testpki.Key(misnamed.Key))
	mustNotVerify(t, pool, testpki.MustIssue(t, misnamed), "unknown authority", honest.Cert)
}

func TestSHA1SignaturesAreRefused_R24(t *testing.T) {
	root := testpki.MustCA(t, testpki.WithKeyType(testpki.RSA2048))
	sha1 := testpki.Template(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	mustNotVerify(t, NewTrustPool(root.Pool()), testpki.MustIssue(t, root, sha1), "insecure algorithm")
	sub := testpki.MustIntermediate(t, root, sha1)
	mustNotVerify(t, NewTrustPool(root.Pool()), testpki.MustIssue(t, sub), "insecure algorithm", sub.Cert)
}
