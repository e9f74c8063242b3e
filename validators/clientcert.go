package validators

import (
	"crypto/x509"
	"encoding/base64"
	"strings"
)

// ClientCert returns the certificate as the value of the Client-Cert header
// field (RFC 9440 §2.2): its DER encoding as a Byte Sequence, which is padded
// base64 between colons (RFC 8941 §3.3.5).
func ClientCert(cert *x509.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(cert.Raw) + ":"
}

// ClientCertChain returns certificates as the value of the Client-Cert-Chain
// header field (RFC 9440 §2.3), a List of Byte Sequences. They are those above
// the client's own, which belongs into Client-Cert alone, and are written as
// they are given, in TLS's order: each after the one it certifies. Nothing is
// left out. Whether the trust anchor is among them is up to the caller: the
// example of RFC 9440 has it, and TLS lets it be omitted (RFC 8446 §4.4.2).
//
// Without certificates the value is empty, and the field must not be sent: an
// empty List has no other form (RFC 8941 §3.1).
func ClientCertChain(chain []*x509.Certificate) string {
	items := make([]string, 0, len(chain))
	for _, cert := range chain {
		items = append(items, ClientCert(cert))
	}
	return strings.Join(items, ", ")
}
