package httpsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/records"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxValidator is the length of the longest ETag that is sent back, in bytes.
const maxValidator = 1 << 10

// validators are what a server said about a document, by which it can tell that the
// document has not changed.
type validators struct{ etag, modified string }

func validatorsOf(response *http.Response) validators {
	usable := func(value string) string {
		if len(value) > maxValidator || !httpguts.ValidHeaderFieldValue(value) {
			return ""
		}
		return value
	}
	return validators{usable(response.Header.Get("ETag")), usable(response.Header.Get("Last-Modified"))}
}

// set makes a request conditional.
func (v validators) set(header http.Header) {
	if v.etag != "" {
		header.Set("If-None-Match", v.etag)
	}
	if v.modified != "" {
		header.Set("If-Modified-Since", v.modified)
	}
}

// ownHost sends a header to the host of an address, and to no other.
type ownHost struct {
	http.RoundTripper
	host   string
	header http.Header
}

func newOwnHost(transport http.RoundTripper, address string, header http.Header) (*ownHost, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return &ownHost{transport, u.Host, header}, nil
}

// RoundTrip implements [http.RoundTripper].
func (o *ownHost) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.EqualFold(request.URL.Host, o.host) {
		request = request.Clone(request.Context())
		for name, values := range o.header {
			request.Header[name] = slices.Clone(values)
		}
	}
	return o.RoundTripper.RoundTrip(request)
}

// open asks for the document. The response has a document, or says that it has not
// changed.
func (s *Source) open(ctx context.Context) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.config.Address, nil)
	if err != nil {
		return nil, errors.New("invalid URL")
	}
	request.Header.Set("Accept", "application/json, application/jsonl, application/x-ndjson, */*;q=0.1")
	request.Header.Set("Accept-Encoding", "identity")
	conditional := s.failures == 0 && s.inForce != validators{}
	if conditional {
		s.inForce.set(request.Header)
	}
	response, err := s.fetcher.Open(request)
	if err != nil {
		return nil, withCause(ctx, err)
	}
	if code := response.StatusCode; code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
		s.pause = retryAfter(response.Header.Get("Retry-After"), s.config.Now())
	}
	if err := s.check(response, conditional); err != nil {
		_ = response.Body.Close()
		return nil, err
	}
	return response, nil
}

// retryAfter returns how long a Retry-After asks to wait (RFC 9110 §10.2.3), 0 if it does
// not say.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// check returns why a response is not one with the document.
func (s *Source) check(response *http.Response, conditional bool) error {
	encoding := response.Header.Get("Content-Encoding")
	switch {
	case response.StatusCode == http.StatusNotModified && conditional:
		return nil
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("the server answers %d instead of 200", response.StatusCode)
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		return fmt.Errorf("the server sends Content-Encoding '%s', which was not asked for; have it send the document as it is", source.Text(encoding, 40))
	case response.ContentLength > s.config.MaxSize:
		return errTooLarge(s.config.MaxSize)
	}
	return nil
}

func errTooLarge(limit int64) error {
	return fmt.Errorf("the server sends more than %d bytes; raise max_size if that is right", limit)
}

// withCause returns why a request has ended, if its context says more than err.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// body is the body of a response, which is read once.
type body struct {
	ctx      context.Context
	response *http.Response
	limit    int64
	read     int64
	kept     *newCopy
	// stalled ends the request when the server has sent nothing for as long as patience.
	// It does not run while the document is parsed
	stalled  *time.Timer
	patience time.Duration
	// failure is why the document did not come as a whole
	failure error
}

// records returns the records of the body.
func (b *body) records(yield func(clients.Entry, error) bool) {
	read := records.Detect
	if r := b.response; r.ContentLength < 0 && r.ProtoMajor == 1 && !slices.Contains(r.TransferEncoding, "chunked") {
		// nobody could tell where JSON Lines were cut off, but an array says where it ends
		read = records.JSON
	}
	for e, err := range read(b) {
		if err != nil {
			b.failure = err
		}
		if !yield(e, err) || err != nil {
			return
		}
	}
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	b.stalled.Reset(b.patience)
	n, err := b.response.Body.Read(p)
	b.stalled.Stop()
	b.read += int64(n)
	switch {
	case b.read > b.limit:
		return 0, errTooLarge(b.limit)
	case err != nil && !errors.Is(err, io.EOF):
		return 0, withCause(b.ctx, err)
	}
	b.kept.write(p[:n])
	return n, err
}
