package testpki

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/bits"
	"slices"
)

// Reencoded returns other encodings of a certificate that Go parses, with the same
// content and signature. They differ in the unused bits of the signature, as far as
// its leading zero bits allow, and in trailing data.
func Reencoded(tb TB, cert *x509.Certificate) map[string]*x509.Certificate {
	tb.Helper()
	var components struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	rest, err := asn1.Unmarshal(cert.Raw, &components)
	must(tb, rest, err)
	bytes := components.Signature.Bytes
	out := make(map[string]*x509.Certificate)
	for unused := range min(2, bits.LeadingZeros8(bytes[0])) + 1 {
		shifted := []byte{byte(unused)}
		for i, b := range bytes {
			next := append(bytes, 0)[i+1]
			shifted = append(shifted, b<<unused|byte(uint16(next)>>(8-unused)))
		}
		for trailer, value := range map[string][]byte{"nothing": nil, "NULL": {5, 0}, "garbage": []byte("\xff\xff"), "the signature": append([]byte{0}, bytes...)} {
			signature, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagBitString, Bytes: shifted})
			must(tb, signature, err)
			der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(components.TBS.FullBytes, components.Algorithm.FullBytes, signature, value)})
			must(tb, der, err)
			if variant, err := x509.ParseCertificate(der); err == nil { // a stricter Go accepts fewer
				out[fmt.Sprintf("%d bits unused, then %s", unused, trailer)] = variant
			}
		}
	}
	return out
}
