//go:build unix

package authn

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// benchRealm is a realm with half of its clients pinned and the other half known by
// subject, and certificates of both kinds.
type benchRealm struct {
	auth        *Authenticator
	roots       *x509.CertPool
	pinned, pki [][]*x509.Certificate
}

// newBenchRealm registers that many clients. Up to 64 certificates of each kind are
// real, so that not everything stays in the processor's caches.
func newBenchRealm(b *testing.B, size int) *benchRealm {
	root := testpki.MustCA(b)
	ca := testpki.MustIntermediate(b, root)
	realm := &benchRealm{roots: root.Pool()}
	records := make([]clients.Record, 0, size)
	for i := range size / 2 {
		name := fmt.Sprintf("client %d", i)
		var sum [32]byte
		_, _ = rand.Read(sum[:])
		if i < 64 {
			pinned := testpki.MustSelfSigned(b, testpki.CommonName(name))
			realm.pinned = append(realm.pinned, pinned.Presented())
			realm.pki = append(realm.pki, testpki.MustIssue(b, ca, testpki.CommonName(name)).Presented())
			sum, _ = validators.ThumbprintOf(pinned.Cert.Raw).SHA256()
		}
		records = append(records,
			clients.Record{ClientID: fmt.Sprintf("pinned-%d", i), Scope: "api1", Thumbprints: clients.Strings{hex.EncodeToString(sum[:])}},
			clients.Record{ClientID: fmt.Sprintf("pki-%d", i), Scope: "api1", SubjectDN: clients.Strings{"CN=" + name}})
	}
	realm.auth = New(Config{Registry: registryOf(b, records...), Trust: validators.NewTrustPool(realm.roots), Now: time.Now})
	return realm
}

// authenticate decides about the i-th certificate, at first sight unless it is to
// be remembered.
func (realm *benchRealm) authenticate(b *testing.B, certificates [][]*x509.Certificate, i int, remember bool) {
	presented := certificates[i%len(certificates)]
	if !remember {
		if v := realm.auth.accepted.get(hashLeaf(presented), presented, time.Now()); v != nil {
			v.until = time.Time{} // which forgets it
		}
	}
	_, refusal, remembered := realm.auth.Decide(b.Context(), presented, "")
	if refusal != nil || remembered != remember {
		b.Fatalf("refusal %v, remembered %t", refusal, remembered)
	}
}

// BenchmarkAuthenticate measures a decision in realms of several sizes.
func BenchmarkAuthenticate(b *testing.B) {
	for _, size := range []int{10, 1_000, 100_000, 1_000_000} {
		realm := newBenchRealm(b, size)
		b.Run(fmt.Sprintf("remembered/clients=%d", size), func(b *testing.B) {
			for i := range realm.pki {
				realm.authenticate(b, realm.pki, i, false)
			}
			testtool.Measure(b, func(i int) { realm.authenticate(b, realm.pki, i, true) })
		})
		b.Run(fmt.Sprintf("first_sight_pinned/clients=%d", size), func(b *testing.B) {
			testtool.Measure(b, func(i int) { realm.authenticate(b, realm.pinned, i, false) })
		})
		b.Run(fmt.Sprintf("first_sight_pki/clients=%d", size), func(b *testing.B) {
			testtool.Measure(b, func(i int) { realm.authenticate(b, realm.pki, i, false) })
		})
	}
}

// BenchmarkCompareFirstSight compares the first sight of a PKI certificate with
// verifying the same chain by crypto/x509 alone, which first puts the presented
// intermediates into a pool, as a TLS server does.
func BenchmarkCompareFirstSight(b *testing.B) {
	realm := newBenchRealm(b, 1000)
	testtool.Compare(b, 20,
		testtool.Repeated(b, "mtls_auth", func(i int) { realm.authenticate(b, realm.pki, i, false) }),
		testtool.Repeated(b, "x509_verify", func(i int) {
			presented := realm.pki[i%len(realm.pki)]
			intermediates := x509.NewCertPool()
			for _, cert := range presented[1:] {
				intermediates.AddCert(cert)
			}
			_, err := presented[0].Verify(x509.VerifyOptions{
				Roots: realm.roots, Intermediates: intermediates, CurrentTime: time.Now(),
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			})
			if err != nil {
				b.Fatal(err)
			}
		}),
	)
}
