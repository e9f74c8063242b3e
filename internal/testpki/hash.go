package testpki

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"time"
)

// SomeSHA256 and SomeSHA1 are well-formed hashes that belong to no certificate.
const (
	SomeSHA256 = "bca0d040847f843c5ee0fa6eb494837470155868bca0d040847f843c5ee0fa6e"
	SomeSHA1   = "bca0d040847f843c5ee0fa6eb494837470155868"
)

// HashOf returns the SHA-256 hash of DER in lower-case hex, as thumbprints and public
// keys are declared.
func HashOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// CRL returns a CRL of the CA in DER that is current until the given time and
// revokes these certificates. It ends the test on failure.
func CRL(tb TB, ca *CA, number int64, until time.Time, revoked ...*x509.Certificate) []byte {
	tb.Helper()
	since := time.Now().Add(-time.Minute)
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: since, NextUpdate: until}
	for _, cert := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: since})
	}
	if until.Before(since) {
		list.ThisUpdate = until.Add(-time.Hour)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Cert, ca.Key)
	return must(tb, der, err)
}

// KeyPEM returns a private key as a PKCS #8 PEM block. It ends the test on failure.
func KeyPEM(tb TB, key crypto.Signer) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(tb, der, err)})
}

// Presenting returns the leaf with these certificates instead of its chain.
func Presenting(leaf *Leaf, more ...*x509.Certificate) *Leaf {
	changed := *leaf
	changed.Chain = more
	return &changed
}
