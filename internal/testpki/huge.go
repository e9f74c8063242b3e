package testpki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

// MustHugeRSA returns a certificate that claims to be its own issuer, with an RSA key
// of that many bits, the largest exponent and a signature of the same length. With a
// key of a megabyte, verifying a signature takes hours. There is no private key.
func MustHugeRSA(tb TB, bits int) *x509.Certificate {
	tb.Helper()
	marshal := func(value any) []byte {
		der, err := asn1.Marshal(value)
		if err != nil {
			tb.Fatalf("testpki: making a huge certificate: %v", err)
		}
		return der
	}
	null := asn1.NullRawValue
	encryption := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: null}
	withSHA256 := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: null}
	type subjectPublicKeyInfo struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	type validity struct{ NotBefore, NotAfter time.Time }
	type publicKey struct {
		N *big.Int
		E int
	}
	number := bytes.Repeat([]byte{0xff}, bits/8)
	key := marshal(publicKey{new(big.Int).SetBytes(number), 1<<31 - 1})
	name := asn1.RawValue{FullBytes: marshal(pkix.Name{CommonName: "huge"}.ToRDNSequence())}
	now := time.Now()
	tbs := marshal(struct {
		Version   int `asn1:"explicit,tag:0"`
		Serial    int
		Algorithm pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		Validity  validity
		Subject   asn1.RawValue
		PublicKey subjectPublicKeyInfo
	}{2, 1, withSHA256, name, validity{now.Add(-time.Hour), now.Add(24 * time.Hour)}, name,
		subjectPublicKeyInfo{encryption, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}}})
	number[0] = 0x7f // a signature is less than the modulus
	cert, err := x509.ParseCertificate(marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, withSHA256, asn1.BitString{Bytes: number, BitLength: bits}}))
	if err != nil {
		tb.Fatalf("testpki: making a huge certificate: %v", err)
	}
	return cert
}
