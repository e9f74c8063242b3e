package mtlsauth

import (
	"crypto/sha256"
	"crypto/x509"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The headers in which the API behind gets the certificate (RFC 9440 §2).
const (
	clientCertHeader      = "Client-Cert"
	clientCertChainHeader = "Client-Cert-Chain"
)

// maxChainTexts is how many chains are kept as text. Only CAs that a trusted
// one has vouched for are in them.
const maxChainTexts = 64

// certificateHeaders are the values of Client-Cert and of Client-Cert-Chain,
// which is "" for a pin that counts without a chain.
type certificateHeaders struct{ cert, chain string }

// certificateTexts makes the headers of RFC 9440 of an accepted certificate at
// its first sight; they are kept with the verdict, so that no later request
// encodes anything. The text of a chain is shared by all clients of its CA.
type certificateTexts struct {
	wanted atomic.Bool

	mu     sync.Mutex
	chains map[[sha256.Size]byte]string
}

// encode puts the headers into a new verdict, if a handler wants them.
func (t *certificateTexts) encode(v *verdict, leaf *x509.Certificate) {
	cert := ""
	if t != nil && t.wanted.Load() {
		cert = validators.ClientCert(leaf)
	}
	for i := range v.matches {
		m := &v.matches[i]
		if cert != "" {
			m.headers = &certificateHeaders{cert: cert}
			if m.chain != nil {
				m.headers.chain = t.chain(m.chain[1:])
			}
		}
		m.chain = nil // the parsed certificates need not outlive the connection
	}
}

// chain is the text of what is above the leaf, the trust anchor included.
func (t *certificateTexts) chain(above []*x509.Certificate) string {
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

// setCertificate tells the API behind the certificate of an admitted client.
func setCertificate(header http.Header, id identity) {
	values := []string{id.headers.cert, id.headers.chain}
	header[clientCertHeader] = values[:1:1]
	if id.headers.chain != "" {
		header[clientCertChainHeader] = values[1:]
	}
}
