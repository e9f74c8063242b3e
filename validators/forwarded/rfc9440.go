package forwarded

import (
	"crypto/x509"
	"encoding/base64"
	"strings"
)

// ClientCert returns the value of the Client-Cert header field for a certificate
// (RFC 9440 §2.2): its DER encoding as a Byte Sequence, which is padded base64
// between colons (RFC 8941 §3.3.5).
func ClientCert(cert *x509.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(cert.Raw) + ":"
}

// ClientCertChain returns the value of the Client-Cert-Chain header field (RFC
// 9440 §2.3), a List of Byte Sequences, for the certificates above the client's
// own, each after the one it certifies. The trust anchor may be among them: the
// example of RFC 9440 has it, and TLS allows omitting it (RFC 8446 §4.4.2).
//
// Without certificates the value is empty, and the field must not be sent (RFC
// 8941 §3.1).
func ClientCertChain(chain []*x509.Certificate) string {
	items := make([]string, 0, len(chain))
	for _, cert := range chain {
		items = append(items, ClientCert(cert))
	}
	return strings.Join(items, ", ")
}
