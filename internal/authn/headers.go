package authn

import (
	"crypto/x509"
	"unique"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// CertificateHeaders are the values of Client-Cert and Client-Cert-Chain
// (RFC 9440). Chain is "" for a pin that counts without a chain.
type CertificateHeaders struct {
	Cert, Chain string

	// shared holds Chain in memory once for all clients of a CA.
	shared unique.Handle[string]
}

// encodeHeaders adds the headers of the accepted certificate to a new verdict if a
// handler forwards certificates. They are kept with the verdict, so that no later
// request encodes anything.
func (v *verdict) encodeHeaders(leaf *x509.Certificate, wanted bool) {
	cert := ""
	if wanted {
		cert = validators.ClientCert(leaf)
	}
	for i := range v.matches {
		m := &v.matches[i]
		if wanted {
			m.headers = &CertificateHeaders{Cert: cert}
			if m.chain != nil {
				m.headers.shared = unique.Make(validators.ClientCertChain(m.chain[1:]))
				m.headers.Chain = m.headers.shared.Value()
			}
		}
		m.chain = nil // the parsed certificates need not outlive the connection
	}
}
