package forwarded

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/validators"
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

// parseClientCert parses the two fields of RFC 9440 §2. An empty Byte Sequence means
// that there is no certificate: a proxy that writes colons around a variable sends
// it for a client without one.
func parseClientCert(value string, chainValues []string) ([]*x509.Certificate, error) {
	if value == "::" {
		return nil, ErrNoCertificate
	}
	leaf, err := parseByteSequence(value)
	if err != nil {
		return nil, err
	}
	certs := []*x509.Certificate{leaf}
	if len(chainValues) == 0 || len(chainValues) == 1 && trimSpace(chainValues[0]) == "" {
		return certs, nil // an empty List (RFC 8941 §4.2)
	}

	members := 0
	for _, line := range chainValues {
		members += 1 + strings.Count(line, ",")
	}
	if members > validators.MaxIntermediates {
		return nil, fmt.Errorf("the chain has %d certificates; at most %d are allowed", members, validators.MaxIntermediates)
	}
	// Several lines are one List (RFC 8941 §4.2), and no member has a comma.
	for _, line := range chainValues {
		for member := range strings.SplitSeq(line, ",") {
			cert, err := parseByteSequence(trimSpace(member))
			if err != nil {
				return nil, fmt.Errorf("certificate %d of the chain: %w", len(certs), err)
			}
			certs = append(certs, cert)
		}
	}
	return certs, nil
}

// parseByteSequence parses a Byte Sequence without parameters (RFC 8941 §3.3.5).
func parseByteSequence(text string) (*x509.Certificate, error) {
	content, found := strings.CutPrefix(text, ":")
	if !found {
		return nil, fmt.Errorf("%q… does not begin with a colon; expected base64 between two colons", syntax.FirstBytes(text, 8))
	}
	content, rest, found := strings.Cut(content, ":")
	if !found {
		return nil, errors.New("the closing colon is missing; expected base64 between two colons")
	}
	if rest != "" {
		return nil, fmt.Errorf("unexpected %q… after the closing colon", syntax.FirstBytes(rest, 16))
	}
	return decodeCertificate(content)
}

func writeClientCert(leaf *x509.Certificate, _ []*x509.Certificate) string { return ClientCert(leaf) }
