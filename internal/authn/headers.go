package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"sync/atomic"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// maxChainTexts is how many chains are kept as text. They contain only CAs that have
// verified.
const maxChainTexts = 64

// CertificateHeaders are the values of Client-Cert and Client-Cert-Chain
// (RFC 9440). Chain is "" for a pin that counts without a chain.
type CertificateHeaders struct{ Cert, Chain string }

// CertificateHeaderCache encodes the headers of an accepted certificate (RFC 9440)
// when it is seen for the first time. They are kept with the verdict, so that no
// later request encodes anything. All clients of a CA share the text of its chain.
type CertificateHeaderCache struct {
	wanted atomic.Bool

	mu     sync.Mutex
	chains map[[sha256.Size]byte]string
}

// Want turns encoding on, because a handler forwards certificates.
func (t *CertificateHeaderCache) Want() { t.wanted.Store(true) }

// encode adds the headers to a new verdict if a handler wants them.
func (t *CertificateHeaderCache) encode(v *verdict, leaf *x509.Certificate) {
	cert := ""
	if t != nil && t.wanted.Load() {
		cert = validators.ClientCert(leaf)
	}
	for i := range v.matches {
		m := &v.matches[i]
		if cert != "" {
			m.headers = &CertificateHeaders{Cert: cert}
			if m.chain != nil {
				m.headers.Chain = t.chain(m.chain[1:])
			}
		}
		m.chain = nil // the parsed certificates need not outlive the connection
	}
}

// chain returns the text of the certificates above the leaf, including the trust
// anchor.
func (t *CertificateHeaderCache) chain(above []*x509.Certificate) string {
	key := digestPresented(above)
	t.mu.Lock()
	text, known := t.chains[key]
	t.mu.Unlock()
	if known {
		return text
	}
	text = validators.ClientCertChain(above)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.chains) >= maxChainTexts || t.chains == nil {
		t.chains = make(map[[sha256.Size]byte]string)
	}
	t.chains[key] = text
	return text
}
