package validators

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	maxFetchRedirects = 3
	// maxFetchHeader is the largest header of an answer, in bytes.
	maxFetchHeader = 64 << 10
	// maxFetchErrorText bounds the text of an error, which a server may choose.
	maxFetchErrorText = 512
	crlFetchTimeout   = time.Minute
)

// Fetcher gets CRLs and OCSP answers over HTTP (RFC 5280 §4.2.1.13, RFC 6960
// appendix A), from addresses that an operator has configured. It never takes
// one from a certificate. It keeps nothing, sends no cookies and trusts nothing
// that it gets: what it returns is signed, and checked by who asked for it.
type Fetcher struct {
	client *http.Client
}

// NewFetcher returns a Fetcher. Without a transport it makes direct connections,
// one for each question, and takes no proxy from the environment.
func NewFetcher(transport http.RoundTripper) *Fetcher {
	if transport == nil {
		// A connection that hangs then holds up nothing but its own question.
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		transport = &http.Transport{
			Protocols:              protocols,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxFetchHeader,
		}
	}
	return &Fetcher{client: &http.Client{Transport: transport, CheckRedirect: checkRedirect}}
}

// checkRedirect follows a few redirects, but not from https to http, to another
// scheme, or in a way that would lose the question.
func checkRedirect(request *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxFetchRedirects:
		return fmt.Errorf("more than %d redirects", maxFetchRedirects)
	case request.Method != via[0].Method:
		return errors.New("the redirect turns the question into another; only 307 and 308 do not")
	case request.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https":
		return errors.New("the redirect leads away from https")
	}
	return checkFetchURL(request.URL)
}

func checkFetchURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not an http or https URL; use one, or a file", excerpt(u.Redacted()))
	}
	return nil
}

// CheckFetchURL reports why an address is not one that a Fetcher can get
// something from.
func CheckFetchURL(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New(logText(err.Error(), maxFetchErrorText))
	}
	return checkFetchURL(u)
}

// CRL gets a CRL, of at most [MaxCRLSize] bytes and within a minute.
func (f *Fetcher) CRL(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, crlFetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return f.do(request, MaxCRLSize)
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
	return f.do(request, MaxOCSPSize)
}

func (f *Fetcher) do(request *http.Request, limit int64) ([]byte, error) {
	if err := checkFetchURL(request.URL); err != nil {
		return nil, err
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, errors.New(logText(err.Error(), maxFetchErrorText))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %d instead of 200", response.StatusCode)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return nil, errors.New(logText(err.Error(), maxFetchErrorText))
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("the server sends more than %d bytes", limit)
	}
	return content, nil
}
