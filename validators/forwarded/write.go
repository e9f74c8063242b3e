package forwarded

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Write returns the values of the two header fields for the certificate of a client
// and those above it, each after the one it certifies. chainValue is "" for a format
// without a ChainHeader, and if there is no chain; then the field must not be sent.
//
// The values are what the proxy of this format sends, octet for octet, except that
// names in envoy never leave their quotes. [Format.Parse] reads the same
// certificates, unless they are longer than it allows. A chain of more than eight is
// cut at the end, where the trust anchor is.
func (f *Format) Write(leaf *x509.Certificate, chain []*x509.Certificate) (value, chainValue string) {
	chain = chain[:min(len(chain), validators.MaxIntermediates)]
	if f.ChainHeader != "" {
		return f.write(leaf, nil), ClientCertChain(chain)
	}
	return f.write(leaf, chain), ""
}

// In returns the format as it is written into a header of this name. Only aws_alb
// differs: the header of verify mode has the client's own certificate alone.
func (f *Format) In(header string) *Format {
	if f == formatAWSALB && strings.EqualFold(header, formatAWSALBLeaf.Header) {
		return formatAWSALBLeaf
	}
	return f
}

func writeClientCert(leaf *x509.Certificate, _ []*x509.Certificate) string { return ClientCert(leaf) }

func writeBase64(leaf *x509.Certificate, _ []*x509.Certificate) string {
	return base64.StdEncoding.EncodeToString(leaf.Raw)
}

func writeBase64List(leaf *x509.Certificate, chain []*x509.Certificate) string {
	list := []string{writeBase64(leaf, nil)}
	for _, cert := range chain {
		list = append(list, writeBase64(cert, nil))
	}
	return strings.Join(list, ",")
}

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
