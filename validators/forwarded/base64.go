package forwarded

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// parseBase64 parses one certificate in base64, which may be in double quotes.
func parseBase64(value string, _ []string) ([]*x509.Certificate, error) {
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		if value = value[1 : len(value)-1]; value == "" {
			return nil, ErrNoCertificate
		}
	}
	cert, err := decodeCertificate(value)
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{cert}, nil
}

// parseBase64List parses certificates in base64, joined by commas.
func parseBase64List(value string, _ []string) ([]*x509.Certificate, error) {
	// base64 has no percent sign, so the value tells whether it is URL-encoded
	value, err := url.PathUnescape(value)
	if err != nil {
		return nil, fmt.Errorf("the value is not URL-encoded: %w", err)
	}
	if members := 1 + strings.Count(value, ","); members > 1+validators.MaxIntermediates {
		return nil, fmt.Errorf("the value has %d certificates; at most %d are allowed", members, 1+validators.MaxIntermediates)
	}
	var certs []*x509.Certificate
	for member := range strings.SplitSeq(value, ",") {
		cert, err := decodeCertificate(member)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

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
