package testpki

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func verify(leaf *Leaf, root *CA) error {
	intermediates := x509.NewCertPool()
	for _, cert := range leaf.Chain {
		intermediates.AddCert(cert)
	}
	_, err := leaf.Cert.Verify(x509.VerifyOptions{
		Roots:         root.Pool(),
		Intermediates: intermediates,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

func TestIssueVerifiesForEveryKeyType(t *testing.T) {
	for name, kind := range map[string]KeyType{"P256": P256, "P384": P384, "P521": P521, "RSA2048": RSA2048, "Ed25519": Ed25519} {
		t.Run(name, func(t *testing.T) {
			root := MustCA(t, WithKeyType(kind))
			sub := MustIntermediate(t, MustIntermediate(t, root, CommonName("One")), CommonName("Two"))
			leaf := MustIssue(t, sub, WithKeyType(kind))
			if len(leaf.Chain) != 2 || leaf.Chain[0] != sub.Cert {
				t.Fatalf("chain of %d, want the two intermediates, issuer first", len(leaf.Chain))
			}
			if err := verify(leaf, root); err != nil {
				t.Fatal(err)
			}
			if _, err := tls.X509KeyPair(leaf.ChainPEM(), leaf.KeyPEM()); err != nil {
				t.Fatal(err)
			}
		})
	}
	if _, err := NewKey(KeyType(99)); err == nil {
		t.Error("an unknown key type is accepted")
	}
}

func TestOptions(t *testing.T) {
	from := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	oid := asn1.ObjectIdentifier{1, 2, 3, 4}
	key := MustKey(t, P384)
	root := MustCA(t, MaxPathLen(0))
	leaf := MustIssue(t, root,
		Subject(pkix.Name{CommonName: "a", Organization: []string{"o"}}),
		Validity(from, from.Add(time.Minute)),
		EKU(x509.ExtKeyUsageServerAuth), KeyUsage(x509.KeyUsageKeyAgreement), IsCA(true),
		DNSNames("a.example"), URIs("spiffe://td/a"), IPs(net.IPv4(192, 0, 2, 1)), Emails("a@example.com"),
		Serial(big.NewInt(42)), Key(key), Extension(pkix.Extension{Id: oid, Value: []byte{5, 0}}),
		Template(func(c *x509.Certificate) { c.OCSPServer = []string{"http://ocsp.example"} }),
	)
	cert := leaf.Cert
	switch {
	case !root.Cert.MaxPathLenZero, cert.Subject.Organization[0] != "o", !cert.NotBefore.Equal(from),
		!cert.NotAfter.Equal(from.Add(time.Minute)), cert.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth,
		cert.KeyUsage != x509.KeyUsageKeyAgreement, !cert.IsCA, cert.DNSNames[0] != "a.example",
		cert.URIs[0].String() != "spiffe://td/a", !cert.IPAddresses[0].Equal(net.IPv4(192, 0, 2, 1)),
		cert.EmailAddresses[0] != "a@example.com", cert.SerialNumber.Int64() != 42, leaf.Key != key,
		cert.OCSPServer[0] != "http://ocsp.example":
		t.Errorf("an option had no effect: %+v", cert)
	}
	found := false
	for _, ext := range cert.Extensions {
		found = found || ext.Id.Equal(oid)
	}
	if !found {
		t.Error("the extra extension is missing")
	}

	bare := MustIssue(t, root, NoEKU(), NoBasicConstraints(), KeyUsage(0), RawSubject(cert.RawSubject))
	if bare.Cert.ExtKeyUsage != nil || bare.Cert.BasicConstraintsValid || bare.Cert.KeyUsage != 0 || bare.Cert.Subject.CommonName != "a" {
		t.Errorf("an option had no effect: %+v", bare.Cert)
	}
}

func TestSelfSigned(t *testing.T) {
	leaf := MustSelfSigned(t)
	if err := leaf.Cert.CheckSignature(leaf.Cert.SignatureAlgorithm, leaf.Cert.RawTBSCertificate, leaf.Cert.Signature); err != nil {
		t.Error(err)
	}
	if len(leaf.TLS().Certificate) != 1 {
		t.Error("a self-signed certificate presents more than itself")
	}
}

func TestWriteFilesKeepsTheKeyPrivate(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "client.key"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	root := MustCA(t)
	leaf := MustIssue(t, MustIntermediate(t, root))
	certFile, keyFile, err := leaf.WriteFiles(dir, "client")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(pair.Certificate) != 2 {
		t.Errorf("%d certificates in the file, want leaf and intermediate", len(pair.Certificate))
	}
	info, err := os.Stat(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("key file has mode %o, want 600", info.Mode().Perm())
	}
	caFile, err := root.WriteFile(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(content) {
		t.Error("the CA file contains no certificate")
	}
	if _, _, err := leaf.WriteFiles(filepath.Join(dir, "missing"), "client"); err == nil {
		t.Error("writing into a missing directory succeeded")
	}
}
