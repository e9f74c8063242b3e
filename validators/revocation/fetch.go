package revocation

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const crlFetchTimeout = time.Minute

// Fetcher gets CRLs and OCSP answers over HTTP (RFC 5280 §4.2.1.13, RFC 6960
// appendix A), from addresses that an operator has configured. It never takes
// one from a certificate. It keeps nothing, sends no cookies and trusts nothing
// that it gets: what it returns is signed, and checked by who asked for it.
type Fetcher struct {
	fetcher *source.Fetcher
}

// NewFetcher returns a Fetcher. Without a transport it makes direct connections,
// one for each question, and takes no proxy from the environment.
func NewFetcher(transport http.RoundTripper) *Fetcher {
	return &Fetcher{source.NewFetcher(transport)}
}

// CRL gets a CRL, of at most [MaxCRLSize] bytes and within a minute.
func (f *Fetcher) CRL(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, crlFetchTimeout)
	defer cancel()
	document, err := f.fetcher.Get(ctx, address, MaxCRLSize)
	return document.Content, err
}

// OCSP puts a question to a responder (RFC 6960 appendix A.1) and returns its
// answer, of at most [MaxOCSPSize] bytes. The context bounds the time.
func (f *Fetcher) OCSP(ctx context.Context, address string, question []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/ocsp-request")
	request.Header.Set("Accept", "application/ocsp-response")
	document, err := f.fetcher.Do(request, MaxOCSPSize)
	return document.Content, err
}
