package source

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects = 3
	// maxNameText bounds a name from the certificate of a server, in bytes.
	maxNameText = 200
	// maxErrorText bounds the text of an error, which a server may influence.
	maxErrorText = 512
)

// Fetcher gets documents over HTTP or HTTPS from addresses that an operator has
// configured. It makes a connection for each request, follows a few redirects but none
// away from https, keeps nothing and sends no cookies. Documents are bounded in size; the context of a request
// bounds its time. A Fetcher may be used by several goroutines at once.
type Fetcher struct {
	client *http.Client
	secure bool // https alone
}

// NewFetcher returns a Fetcher for http and https, for documents that are signed, such
// as CRLs. The default transport is a [Network] with the CAs of the system.
func NewFetcher(transport http.RoundTripper) *Fetcher { return newFetcher(transport, false) }

// NewSecureFetcher returns a Fetcher for https alone, redirects included, for documents
// that are trusted because of where they come from.
func NewSecureFetcher(transport http.RoundTripper) *Fetcher { return newFetcher(transport, true) }

func newFetcher(transport http.RoundTripper, secure bool) *Fetcher {
	if transport == nil {
		transport = NewNetwork(nil)
	}
	f := &Fetcher{secure: secure}
	f.client = &http.Client{Transport: transport, CheckRedirect: f.checkRedirect}
	return f
}

// checkRedirect allows a few redirects, but not from https to http, to another scheme,
// or with a status that drops the body of the request.
func (f *Fetcher) checkRedirect(request *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case request.Method != via[0].Method:
		return errors.New("the redirect changes the method; redirect with status 307 or 308")
	case request.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https":
		return errors.New("the redirect leads away from https")
	}
	return checkURL(request.URL, f.secure)
}

func checkURL(u *url.URL, secure bool) error {
	switch {
	case u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && !secure):
		return nil
	case secure:
		return fmt.Errorf("'%s' is not an https URL; use one, or a file", shown(u))
	}
	return fmt.Errorf("'%s' is not an http or https URL; use one, or a file", shown(u))
}

// CheckURL returns an error for an address that is not an http or https URL.
func CheckURL(address string) error {
	_, err := parseURL(address, false)
	return err
}

// CheckSecureURL returns an error for an address that is not an https URL.
func CheckSecureURL(address string) error {
	_, err := parseURL(address, true)
	return err
}

func parseURL(address string, secure bool) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, failure(err)
	}
	return u, checkURL(u, secure)
}

// Document is the body of a response.
type Document struct {
	Content []byte
	// Fresh is how long the document may be kept according to the server, and
	// HasFresh whether the server says so in Cache-Control.
	Fresh    time.Duration
	HasFresh bool
}

// Get gets the document at an address, of at most limit bytes.
func (f *Fetcher) Get(ctx context.Context, address string, limit int64) (Document, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return Document{}, failure(err)
	}
	return f.Do(request, limit)
}

// Do sends a request and returns the body of the response if its status is 200 and it
// has at most limit bytes.
func (f *Fetcher) Do(request *http.Request, limit int64) (Document, error) {
	response, err := f.Open(request)
	if err != nil {
		return Document{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Document{}, fmt.Errorf("the server answers %d instead of 200", response.StatusCode)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return Document{}, err
	}
	if int64(len(content)) > limit {
		return Document{}, fmt.Errorf("the server sends more than %d bytes", limit)
	}
	document := Document{Content: content}
	document.Fresh, document.HasFresh = freshness(response.Header)
	return document, nil
}

// Open sends a request and returns the response, whatever its status. Errors, also those
// of reading the body, are fit for a log: bounded, with characters that are not printable
// escaped, and without the password in the URL.
func (f *Fetcher) Open(request *http.Request) (*http.Response, error) {
	if err := checkURL(request.URL, f.secure); err != nil {
		return nil, err
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, failure(err)
	}
	response.Body = body{response.Body}
	return response, nil
}

// body is the body of a response, with errors that are fit for a log.
type body struct{ io.ReadCloser }

func (b body) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = failure(err)
	}
	return n, err
}

// quoted matches what the cause of an error quotes from a URL.
var quoted = regexp.MustCompile(` ?"(\\.|[^"\\])*"`)

// failure makes an error fit for a log. A long URL must not cut off the cause after it.
// An invalid URL is not shown at all, because nobody can tell where its password is.
func failure(err error) error {
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		u, parsing := url.Parse(wrapped.URL)
		if parsing != nil {
			return fmt.Errorf("invalid URL: %s", Text(quoted.ReplaceAllString(wrapped.Err.Error(), ""), maxErrorText))
		}
		wrapped.URL, wrapped.Err = shown(u), untrusted(wrapped.Err)
	}
	return errors.New(Plain(err, maxErrorText))
}

// untrusted returns an error about the certificate of a server in words for an
// operator, and any other error as it is.
func untrusted(err error) error {
	var unknown x509.UnknownAuthorityError
	var other x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown) && unknown.Cert != nil:
		return fmt.Errorf("the server's certificate chain ends at issuer '%s', which is not trusted for servers; add this CA to trust_pool in fetch or trust_issuer", shownName(unknown.Cert.RawIssuer))
	case errors.As(err, &other):
		return fmt.Errorf("the server's certificate '%s' does not have the name %s; use an address that it has", shownName(other.Certificate.RawSubject), Text(other.Host, maxNameText))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return fmt.Errorf("certificate '%s' of the server is valid from %s to %s only; renew it, or set the clock",
			shownName(invalid.Cert.RawSubject), invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return err
}

// shownName returns the text of a DER-encoded Name.
func shownName(raw []byte) string {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(raw, &name); err != nil {
		return "an invalid name"
	}
	return Text(name.String(), maxNameText)
}

// Text makes text that a stranger may have chosen fit for a log line: it escapes
// characters that are not printable, and cuts the text to about the given number of
// bytes.
func Text(s string, most int) string {
	var out strings.Builder
	for _, r := range s {
		if out.Len() >= most {
			out.WriteString("…")
			break
		}
		if strconv.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		out.WriteString(quoted[1 : len(quoted)-1])
	}
	return out.String()
}
