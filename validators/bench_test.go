package validators

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// BenchmarkVerify compares TrustPool.Verify with x509.Certificate.Verify alone,
// which like a TLS server puts the presented intermediates into a pool first.
func BenchmarkVerify(b *testing.B) {
	now := time.Now()
	root := testpki.MustCA(b)
	sub := testpki.MustIntermediate(b, root)
	for _, bench := range []struct {
		name string
		leaf *testpki.Leaf
	}{
		{"root only", testpki.MustIssue(b, root)},
		{"one intermediate", testpki.MustIssue(b, sub)},
	} {
		roots := root.Pool()
		b.Run(bench.name+"/x509", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				intermediates := x509.NewCertPool()
				for _, cert := range bench.leaf.Chain {
					intermediates.AddCert(cert)
				}
				_, err := bench.leaf.Cert.Verify(x509.VerifyOptions{
					Roots: roots, Intermediates: intermediates, CurrentTime: now,
					KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bench.name+"/TrustPool", func(b *testing.B) {
			b.ReportAllocs()
			pool := NewTrustPool(roots)
			for b.Loop() {
				if _, err := pool.Verify(bench.leaf.Cert, bench.leaf.Chain, now); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bench.name+"/TrustPool that knows nothing", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pool := NewTrustPool(roots)
				if _, err := pool.Verify(bench.leaf.Cert, bench.leaf.Chain, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyStranger(b *testing.B) {
	now := time.Now()
	root := testpki.MustCA(b)
	pool := NewTrustPool(root.Pool())
	leaf, presented := hostileChain(b, root, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pool.Verify(leaf.Cert, presented, now); err == nil {
			b.Fatal("a stranger's chain verified")
		}
	}
}

func BenchmarkCheckLeaf(b *testing.B) {
	now := time.Now()
	leaf := testpki.MustIssue(b, testpki.MustCA(b), testpki.DNSNames("client.example.com"), testpki.URIs("spiffe://example.com/client"))
	b.ReportAllocs()
	for b.Loop() {
		if CheckValidity(leaf.Cert, now) != nil || CheckLeaf(leaf.Cert) != nil || CheckPKILeaf(leaf.Cert) != nil {
			b.Fatal("a good certificate was refused")
		}
	}
}
