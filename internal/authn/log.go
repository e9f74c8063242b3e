package authn

import (
	"crypto/x509"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// CertificateFields returns the log fields that describe a certificate: subject,
// issuer, serial and thumbprint, escaped and bounded.
func CertificateFields(cert *x509.Certificate) []zap.Field {
	return []zap.Field{
		zap.String("subject", validators.FormatDN(cert.RawSubject)),
		zap.String("issuer", validators.FormatDN(cert.RawIssuer)),
		zap.String("serial", validators.FormatSerial(cert.SerialNumber)),
		zap.String("thumbprint", validators.ThumbprintOf(cert.Raw).String()),
	}
}
