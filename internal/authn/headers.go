package authn

import (
	"crypto/x509"
	"slices"
	"sync"
	"unique"

	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// Formats are the formats in which handlers forward certificates. It is safe for
// concurrent use. The zero value has none.
type Formats struct {
	mu    sync.RWMutex
	inUse []*forwarded.Format
}

// Use adds a format. Certificates that were accepted before do not have it.
func (f *Formats) Use(format *forwarded.Format) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.inUse, format) {
		f.inUse = append(f.inUse, format)
	}
}

// all returns the formats, which are none if f is nil.
func (f *Formats) all() []*forwarded.Format {
	if f == nil {
		return nil
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.inUse
}

// CertificateHeaders are the values of the headers with an accepted certificate and its
// chain, in each format that is in use. nil has none.
type CertificateHeaders struct {
	values []headerValues
}

// headerValues are the values of the two headers of a format. chain is "" for a pin that
// counts without a chain.
type headerValues struct {
	format      *forwarded.Format
	cert, chain string

	// shared holds chain in memory once for all clients of a CA.
	shared unique.Handle[string]
}

// In returns the values in a format, or "" for a header that is not to be sent.
func (h *CertificateHeaders) In(format *forwarded.Format) (cert, chain string) {
	if h != nil {
		for i := range h.values {
			if v := &h.values[i]; v.format == format {
				return v.cert, v.chain
			}
		}
	}
	return "", ""
}

// maxHeaderBytes is the size of the largest headers that are remembered with a verdict.
// Few servers accept a request with half of it. Most formats keep the chain for each
// certificate, so a client with a CA of its own could fill the memory with long ones.
const maxHeaderBytes = 64 << 10

// encodeHeaders adds the headers of the accepted certificate to a new verdict, in the
// formats in which a handler forwards certificates. They are kept with the verdict, so
// that no later request encodes anything. It returns their size.
func (v *verdict) encodeHeaders(leaf *x509.Certificate, formats []*forwarded.Format) (size int) {
	for i := range v.matches {
		m := &v.matches[i]
		if len(formats) == 0 {
			break
		}
		same := slices.IndexFunc(v.matches[:i], func(other admission) bool { return slices.Equal(other.chain, m.chain) })
		if same >= 0 {
			m.headers = v.matches[same].headers
		} else {
			m.headers = newCertificateHeaders(leaf, m.chain, formats)
			size += m.headers.size()
		}
	}
	for i := range v.matches {
		v.matches[i].chain = nil // the parsed certificates need not outlive the connection
	}
	return size
}

func (h *CertificateHeaders) size() (size int) {
	for _, v := range h.values {
		size += len(v.cert) + len(v.chain)
	}
	return size
}

// newCertificateHeaders encodes a certificate. The chain begins with it, or is nil.
func newCertificateHeaders(leaf *x509.Certificate, chain []*x509.Certificate, formats []*forwarded.Format) *CertificateHeaders {
	if chain != nil {
		chain = chain[1:]
	}
	headers := &CertificateHeaders{values: make([]headerValues, len(formats))}
	for i, format := range formats {
		values := headerValues{format: format}
		if values.cert, values.chain = format.Write(leaf, chain); values.chain != "" {
			values.shared = unique.Make(values.chain)
			values.chain = values.shared.Value()
		}
		headers.values[i] = values
	}
	return headers
}
