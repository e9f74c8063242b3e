package revocation

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const crlFetchTimeout = time.Minute

// Fetcher gets CRLs and OCSP responses over HTTP (RFC 5280 §4.2.1.13, RFC 6960
// appendix A), from addresses that an operator has configured and never from
// one in a certificate. What it returns is signed, so plain HTTP will do.
type Fetcher struct{ fetcher *source.Fetcher }

// NewFetcher returns a Fetcher. The default transport is the one of
// [source.NewFetcher].
func NewFetcher(transport http.RoundTripper) Fetcher { return Fetcher{source.NewFetcher(transport)} }

// CRL gets the CRL at an address.
func (f Fetcher) CRL(ctx context.Context, address string) ([]byte, error) {
	document, err := f.fetcher.Get(ctx, address, maxCRLSize)
	return document.Content, err
}

// Ask sends a request to an OCSP responder (RFC 6960 appendix A.1) and returns its
// response.
func (f Fetcher) Ask(ctx context.Context, address string, question []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/ocsp-request")
	request.Header.Set("Accept", "application/ocsp-response")
	document, err := f.fetcher.Do(request, maxOCSPSize)
	return document.Content, err
}
