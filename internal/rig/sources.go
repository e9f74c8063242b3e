package rig

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Eventually repeats a request until the response has this status.
func (c *Caller) Eventually(t *testing.T, status int) Reply {
	t.Helper()
	var got Reply
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = c.Get("https://api.test/"); got.Status == status {
			return got
		}
	}
	t.Fatalf("still %d, want %d", got.Status, status)
	return got
}

// CRL makes a CRL of the rig's CA with this number that revokes these certificates.
func CRL(r *Rig, number int64, revoked ...*testpki.Leaf) []byte {
	r.T.Helper()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, leaf := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: leaf.Cert.SerialNumber, RevocationTime: time.Now().Add(-time.Minute),
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, r.CA.Cert, r.CA.Key)
	if err != nil {
		r.T.Fatal(err)
	}
	return der
}
