package forwarded

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	pemCertificateBegin = "-----BEGIN CERTIFICATE-----"
	pemCertificateEnd   = "-----END CERTIFICATE-----"
)

// parseEscapedCertificate parses one certificate in URL-encoded PEM.
func parseEscapedCertificate(value string, _ []string) ([]*x509.Certificate, error) {
	return parseEscapedPEM(value, 1)
}

// parseEscapedChain parses certificates in URL-encoded PEM.
func parseEscapedChain(value string, _ []string) ([]*x509.Certificate, error) {
	return parseEscapedPEM(value, 1+validators.MaxIntermediates)
}

// parseEscapedPEM parses URL-encoded PEM with one or more certificates, up to the
// given number, and nothing else but white space. A plus sign is not a space. It
// does not use encoding/pem, which skips what it cannot parse, so that a later
// certificate would be taken for the first.
func parseEscapedPEM(escaped string, most int) ([]*x509.Certificate, error) {
	text, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, fmt.Errorf("the value is not URL-encoded: %w", err)
	}

	var certs []*x509.Certificate
	rest := trimLines(text)
	for rest != "" {
		body, found := strings.CutPrefix(rest, pemCertificateBegin)
		if !found {
			return nil, fmt.Errorf("unexpected %q…; expected the line BEGIN CERTIFICATE", syntax.FirstBytes(rest, 27))
		}
		if body, rest, found = strings.Cut(body, pemCertificateEnd); !found {
			return nil, errors.New("the value is truncated: the line END CERTIFICATE is missing")
		}
		if len(certs) == most {
			return nil, fmt.Errorf("more than %d certificates; have the proxy send fewer, or use format aws_alb, which reads a chain of %d", most, 1+validators.MaxIntermediates)
		}
		cert, err := decodeCertificate(withoutLineBreaks.Replace(body))
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
		rest = trimLines(rest)
	}
	if len(certs) == 0 {
		return nil, errors.New("the value is white space; expected a certificate")
	}
	return certs, nil
}

var withoutLineBreaks = strings.NewReplacer("\n", "", "\r", "")

func trimLines(s string) string { return strings.Trim(s, " \t\r\n") }

// writeEscapedCertificate writes one certificate as nginx and Envoy do: PEM with a line
// break at the end, in which everything is escaped but letters, digits and hyphens.
func writeEscapedCertificate(cert *x509.Certificate, _ []*x509.Certificate) string {
	return escapePEM.Replace(encodePEM(cert))
}

// writeEscapedLeaf and writeEscapedChain write as Application Load Balancers do, with
// +, = and / as safe characters.
func writeEscapedLeaf(leaf *x509.Certificate, _ []*x509.Certificate) string {
	return escapeLines.Replace(encodePEM(leaf))
}

func writeEscapedChain(leaf *x509.Certificate, chain []*x509.Certificate) string {
	var text strings.Builder
	for _, cert := range append([]*x509.Certificate{leaf}, chain...) {
		text.WriteString(writeEscapedLeaf(cert, nil))
	}
	return text.String()
}

var (
	escapePEM   = strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D")
	escapeLines = strings.NewReplacer("\n", "%0A", " ", "%20")
)

func encodePEM(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}
