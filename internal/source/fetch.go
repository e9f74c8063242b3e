package source

import (
	"context"
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
	// maxHeader is the largest header of an answer, in bytes.
	maxHeader = 64 << 10
	// maxErrorText bounds the text of an error, which a server may choose.
	maxErrorText = 512
	// maxURLText is how much of a URL an error shows.
	maxURLText = 200
)

// Fetcher gets documents over HTTP or HTTPS from addresses that an operator has
// configured. It makes direct connections, one for each question, takes no
// proxy from the environment, follows a few redirects but none away from
// https, keeps nothing and sends no cookies. What it returns is bounded in
// size; the context of a question bounds its time.
type Fetcher struct {
	client *http.Client
	check  func(*url.URL) error
}

// NewFetcher returns a Fetcher for what proves itself, as a CRL does by its
// signature: http and https. A transport other than nil takes the place of the
// direct connections.
func NewFetcher(transport http.RoundTripper) *Fetcher { return newFetcher(transport, checkURL) }

// NewSecureFetcher returns a Fetcher for what is trusted because of where it
// comes from: https alone, the first address and every redirect.
func NewSecureFetcher(transport http.RoundTripper) *Fetcher {
	return newFetcher(transport, checkSecureURL)
}

func newFetcher(transport http.RoundTripper, check func(*url.URL) error) *Fetcher {
	if transport == nil {
		// A connection that hangs then holds up nothing but its own question.
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		transport = &http.Transport{
			Protocols:              protocols,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
		}
	}
	f := &Fetcher{check: check}
	f.client = &http.Client{Transport: transport, CheckRedirect: f.checkRedirect}
	return f
}

// checkRedirect follows a few redirects, but not from https to http, to another
// scheme, or in a way that would lose the question.
func (f *Fetcher) checkRedirect(request *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case request.Method != via[0].Method:
		return errors.New("the redirect turns the question into another; only 307 and 308 do not")
	case request.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https":
		return errors.New("the redirect leads away from https")
	}
	return f.check(request.URL)
}

func checkURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("'%s' is not an http or https URL; use one, or a file", shown(u))
	}
	return nil
}

func checkSecureURL(u *url.URL) error {
	if u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("'%s' is not an https URL; use one, or a file", shown(u))
	}
	return nil
}

// CheckURL reports why an address is not one that [NewFetcher] can get
// something from.
func CheckURL(address string) error { return checkAddress(address, checkURL) }

// CheckSecureURL reports why an address is not one that [NewSecureFetcher] can
// get something from.
func CheckSecureURL(address string) error { return checkAddress(address, checkSecureURL) }

func checkAddress(address string, check func(*url.URL) error) error {
	u, err := url.Parse(address)
	if err != nil {
		return failure(err)
	}
	return check(u)
}

// shown is a URL as an error shows it: without what may be a user and a
// password, wherever a mistake has put them.
func shown(u *url.URL) string {
	bare := *u
	bare.User = nil
	text := bare.String()
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		text = "…" + text[at:]
	}
	return Text(text, maxURLText)
}

// Document is what a server answers.
type Document struct {
	Content []byte
	// Fresh is how long the server says that the document may be kept, and
	// HasFresh whether it says so: see [Freshness].
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

// Do puts a question and returns the answer if its status is 200 and it has at
// most limit bytes. The errors are fit for a log: they are bounded, what is
// not printable in them is escaped, and they show no password of the URL.
func (f *Fetcher) Do(request *http.Request, limit int64) (Document, error) {
	if err := f.check(request.URL); err != nil {
		return Document{}, err
	}
	response, err := f.client.Do(request)
	if err != nil {
		return Document{}, failure(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Document{}, fmt.Errorf("the server answers %d instead of 200", response.StatusCode)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return Document{}, failure(err)
	}
	if int64(len(content)) > limit {
		return Document{}, fmt.Errorf("the server sends more than %d bytes", limit)
	}
	document := Document{Content: content}
	document.Fresh, document.HasFresh = Freshness(response.Header)
	return document, nil
}

// quoted is what the cause of an error quotes of a URL.
var quoted = regexp.MustCompile(` ?"(\\.|[^"\\])*"`)

// failure makes an error fit for a log. The cause is not to be cut off by a long
// URL before it. A URL that does not parse is not shown at all, for nobody can
// tell where its password is.
func failure(err error) error {
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		u, parsing := url.Parse(wrapped.URL)
		if parsing != nil {
			return fmt.Errorf("the URL does not parse: %s", Text(quoted.ReplaceAllString(wrapped.Err.Error(), ""), maxErrorText))
		}
		wrapped.URL = shown(u)
	}
	return errors.New(Text(err.Error(), maxErrorText))
}

// Text makes a text that a stranger may have chosen fit for a log line: what is
// not printable is escaped, and it is cut to about the given number of bytes.
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
