// Package forwarded reads and writes the header fields in which proxies that terminate
// TLS forward the certificates of their clients.
package forwarded

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Format is how a proxy that terminates TLS forwards the certificate of its
// client: in which header fields, and in which encoding. It is read from a proxy in
// front, and written for an upstream, in the same way.
//
// A format says nothing about trust. Anyone can write these fields, so read them
// only in requests from a proxy that is known to replace what its own client sent
// (RFC 9440 §4).
type Format struct {
	// Name is the word for the format in the configuration.
	Name string
	// Header is the field that usually has the client's certificate.
	Header string
	// ChainHeader is the field with the certificates above it, or "" for a format
	// that has none, or has them in the same field.
	ChainHeader string

	// parse reads the fields of a request. The value is not empty.
	parse func(value string, chainValues []string) ([]*x509.Certificate, error)
	// write returns the value of Header. A format with a ChainHeader gets no chain.
	write func(leaf *x509.Certificate, chain []*x509.Certificate) string
}

var (
	// formatRFC9440 is Client-Cert, a Byte Sequence, and Client-Cert-Chain, a
	// List of Byte Sequences (RFC 9440 §2, RFC 8941 §3).
	formatRFC9440 = &Format{Name: "rfc9440", Header: "Client-Cert", ChainHeader: "Client-Cert-Chain", parse: parseClientCert, write: writeClientCert}
	// formatNginx is $ssl_client_escaped_cert of nginx's ngx_http_ssl_module:
	// one certificate as URL-encoded PEM. The function escape of Apache's
	// expressions makes the same of SSL_CLIENT_CERT. The configuration names the
	// header: X-SSL-Client-Cert is the usual choice.
	formatNginx = &Format{Name: "nginx", Header: "X-SSL-Client-Cert", parse: parseEscapedCertificate, write: writeEscapedCertificate}
	// formatHAProxy is ssl_c_der,base64 of HAProxy's configuration manual: the
	// DER encoding of one certificate as padded base64, in double quotes where
	// the log format flag +Q says so. The configuration names the header:
	// X-SSL-Client-Cert matches the X-SSL-Client-* names in HAProxy's examples, and
	// is what HAProxy Ingress sends.
	formatHAProxy = &Format{Name: "haproxy", Header: "X-SSL-Client-Cert", parse: parseBase64, write: writeBase64}
	// formatEnvoy is x-forwarded-client-cert of Envoy's "HTTP header
	// manipulation". Only its last element counts.
	formatEnvoy = &Format{Name: "envoy", Header: "X-Forwarded-Client-Cert", parse: parseXFCC, write: writeXFCC}
	// formatAWSALB is what Application Load Balancers send according to "HTTP
	// headers and mutual TLS": URL-encoded PEM, in which +, = and / may be
	// unescaped. It is the whole chain, leaf first, in passthrough mode, and the
	// leaf alone, in X-Amzn-Mtls-Clientcert-Leaf, in verify mode.
	formatAWSALB = &Format{Name: "aws_alb", Header: "X-Amzn-Mtls-Clientcert", parse: parseEscapedChain, write: writeEscapedChain}
	// formatAWSALBLeaf is what they send in verify mode.
	formatAWSALBLeaf = &Format{Name: "aws_alb", Header: "X-Amzn-Mtls-Clientcert-Leaf", parse: parseEscapedChain, write: writeEscapedLeaf}
	// formatTraefik is what Traefik's PassTLSClientCert sends with pem: the
	// certificates that the client sent, leaf first, each as DER in padded base64,
	// joined by commas. Older releases URL-encode the value.
	formatTraefik = &Format{Name: "traefik", Header: "X-Forwarded-Tls-Client-Cert", parse: parseBase64List, write: writeBase64List}
)

// Formats are all formats.
var Formats = []*Format{formatRFC9440, formatNginx, formatHAProxy, formatEnvoy, formatAWSALB, formatTraefik}

// proxyFormats says which format to use for proxies that have none of their name.
var proxyFormats = map[string]string{
	"alb":        "aws_alb",
	"apache":     "nginx with the function escape in Apache's RequestHeader",
	"aspnetcore": "haproxy with header X-Client-Cert",
	"aws":        "aws_alb",
	"azure":      "haproxy with header X-ARR-ClientCert for App Service, nginx for Application Gateway",
	"caddy":      "rfc9440",
	"cloudflare": "haproxy with header Cf-Client-Cert-Der-Base64",
	"httpd":      "nginx with the function escape in Apache's RequestHeader",
	"istio":      "envoy",
	"yarp":       "haproxy with header X-Client-Cert",
}

// maxForwardedBytes bounds the total size of the field values of a request.
const maxForwardedBytes = 64 << 10

// maxCertificateError bounds the error about a certificate that cannot be read, in bytes.
const maxCertificateError = 200

// ErrNoCertificate means that the proxy's client has no certificate. Any
// other error of [Format.Parse] means that the field is malformed.
var ErrNoCertificate = errors.New("no certificate was forwarded")

// ParseFormat returns the format with a name.
func ParseFormat(s string) (*Format, error) {
	var names []string
	for _, format := range Formats {
		if format.Name == s {
			return format, nil
		}
		names = append(names, format.Name)
	}
	use, known := proxyFormats[strings.ToLower(s)]
	if !known {
		use = "one of " + strings.Join(names, ", ")
	}
	return nil, fmt.Errorf("unknown format %q of a forwarded certificate; use %s", syntax.FirstBytes(s, 32), use)
}

// String returns the name of the format.
func (f *Format) String() string { return f.Name }

// Parse parses the certificates in the values of the two header fields, one string
// for each field line. Formats without a ChainHeader ignore chainValues. The first
// certificate is the client's own, and the only one that identifies it. The others,
// at most eight, are for verifying the first, and no more trusted than those of a
// TLS peer.
//
// Parse is stricter than RFC 8941 §4.2.7 recommends: padding is required, unused
// bits are zero, and parameters and trailing data are errors. So a certificate has
// one encoding, except for the choice of URL-encoded characters and line breaks in
// PEM. A second field line is an error unless it continues a list, because one of
// the two may be the client's.
//
// The error is [ErrNoCertificate] for a field that is absent or empty, also
// between the delimiters of its format. Any other error is for the log: one line of
// bounded length, with at most the first few characters of a value.
func (f *Format) Parse(values, chainValues []string) ([]*x509.Certificate, error) {
	if f.ChainHeader == "" {
		chainValues = nil
	}
	if len(values) == 0 {
		return nil, ErrNoCertificate
	}
	if err := checkForwardedSize(values, chainValues); err != nil {
		return nil, err
	}
	if len(values) > 1 {
		return nil, fmt.Errorf("the header was sent %d times; have the proxy replace it, not add to it", len(values))
	}

	value := trimSpace(values[0])
	if value == "" { // as HAProxy's set-header leaves it without a certificate
		return nil, ErrNoCertificate
	}
	certs, err := f.parse(value, chainValues)
	if err != nil && !errors.Is(err, ErrNoCertificate) {
		if remedy := f.remedy(value); remedy != "" {
			err = fmt.Errorf("%w; %s", err, remedy)
		}
	}
	return certs, err
}

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

func checkForwardedSize(values, chainValues []string) error {
	size := 0
	for _, line := range slices.Concat(values, chainValues) {
		size += len(line)
	}
	if size > maxForwardedBytes {
		return fmt.Errorf("the forwarded certificate has %d bytes; at most %d are allowed", size, maxForwardedBytes)
	}
	return nil
}

// decodeCertificate parses the DER encoding of a certificate in base64 with the
// standard alphabet, with padding (RFC 4648 §4) and without line breaks.
func decodeCertificate(text string) (*x509.Certificate, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("the base64 has line breaks") // the decoder would skip them
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("the certificate is not base64 with the standard alphabet and padding")
	}
	cert, err := validators.ParseCertificate(der)
	unreadable := new(validators.UnreadableError)
	switch {
	case err == nil:
		return cert, nil
	case errors.As(err, &unreadable) && unreadable.Damaged:
		return nil, errors.New("invalid certificate: its octets are not exactly one certificate in DER; check whether a hop cuts the header off")
	}
	return nil, errors.New(source.Text(err.Error(), maxCertificateError))
}

// trimSpace removes the white space around a field value (RFC 9110 §5.5).
func trimSpace(s string) string { return strings.Trim(s, " \t") }
