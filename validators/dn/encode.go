package dn

import (
	"crypto/x509/pkix"
	"encoding/asn1"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// ia5Types are the attribute types whose values are IA5Strings: domainComponent (RFC
// 4519 §2.4) and emailAddress (RFC 5280 §4.1.2.6).
var ia5Types = []asn1.ObjectIdentifier{{0, 9, 2342, 19200300, 100, 1, 25}, {1, 2, 840, 113549, 1, 9, 1}}

// Encode returns the DER encoding of a declared name (RFC 5280 §4.1.2.4), as the subject
// of a certificate has it.
func (n Name) Encode() ([]byte, error) {
	sequence := make(pkix.RDNSequence, len(n.rdns))
	for i, r := range n.rdns {
		for _, a := range r {
			var value any = a.value // a PrintableString if it can be one, else a UTF8String
			for _, ia5 := range ia5Types {
				if a.oid.Equal(ia5) && syntax.IsASCII(a.value) {
					value = asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(a.value)}
				}
			}
			sequence[i] = append(sequence[i], pkix.AttributeTypeAndValue{Type: a.oid, Value: value})
		}
	}
	return asn1.Marshal(sequence)
}
