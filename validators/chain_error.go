package validators

import "crypto/x509"

// certName returns what a certificate is called in an error: its common name, or
// else its whole subject.
func certName(cert *x509.Certificate) string {
	if cert.Subject.CommonName != "" {
		return cert.Subject.CommonName
	}
	return FormatDN(cert.RawSubject)
}
