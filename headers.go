package mtlsauth

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// foreignIdentityHeaders are the headers in which other gateways tell an API
// who the client is. A trailing * stands for any ending.
var foreignIdentityHeaders = []string{
	"Client-Cert", "Client-Cert-Chain",
	"X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert*",
	"X-Ssl-*", "Ssl-Client-*", "X-Client-Cert*",
	"X-Amzn-Mtls-*", "Cf-Client-Cert*", "X-Arr-Clientcert", "X-Consumer-*",
}

// maxHeaderName bounds configured header names and how much of a presented one
// is looked at.
const maxHeaderName = 128

// headerNames is a set of header names. A name is compared without regard to
// case, and every character that is not a letter or digit counts as a hyphen,
// for many servers behind see no difference.
type headerNames struct {
	exact    map[string]struct{}
	prefixes []string
	first    [256]bool // first letters of all of them, to pass most names quickly
}

// newHeaderNames makes the set; a trailing * stands for any ending.
func newHeaderNames(names ...string) *headerNames {
	set := &headerNames{exact: make(map[string]struct{}, len(names))}
	for _, name := range names {
		name, isPrefix := strings.CutSuffix(name, "*")
		folded := string(foldHeaderName(nil, name))
		if folded == "" {
			continue
		}
		set.first[folded[0]] = true
		if isPrefix {
			set.prefixes = append(set.prefixes, folded)
		} else {
			set.exact[folded] = struct{}{}
		}
	}
	return set
}

func foldHeaderName(dst []byte, name string) []byte {
	for i := range min(len(name), maxHeaderName) {
		dst = append(dst, foldHeaderByte(name[i]))
	}
	return dst
}

func foldHeaderByte(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return c
	}
	return '-'
}

func (set *headerNames) contains(name string) bool {
	if set == nil || name == "" || !set.first[foldHeaderByte(name[0])] {
		return false
	}
	var buffer [maxHeaderName]byte
	folded := foldHeaderName(buffer[:0], name)
	if _, ok := set.exact[string(folded)]; ok && len(name) <= maxHeaderName {
		return true
	}
	for _, prefix := range set.prefixes {
		if len(folded) >= len(prefix) && string(folded[:len(prefix)]) == prefix {
			return true
		}
	}
	return false
}

// protectedNames are the headers that a caller may not send: those of names,
// except the ones in keep; but always those in always, which names has too.
type protectedNames struct {
	names, keep, always *headerNames
}

// protect returns what a directive removes that sets or reads the headers in
// own. ours are the headers that any directive of the configuration sets, each
// of which keep exempts only by its whole name: a wildcard in keep is about the
// headers of other gateways.
func protect(own, ours, keep []string) protectedNames {
	kept := newHeaderNames(slices.DeleteFunc(slices.Clone(keep), func(name string) bool { return strings.HasSuffix(name, "*") })...)
	always := slices.Concat(own, slices.DeleteFunc(slices.Clone(ours), kept.contains))
	return protectedNames{
		names:  newHeaderNames(slices.Concat(always, foreignIdentityHeaders)...),
		keep:   newHeaderNames(keep...),
		always: newHeaderNames(always...),
	}
}

func (p protectedNames) contains(name string) bool {
	return p.names.contains(name) && (!p.keep.contains(name) || p.always.contains(name))
}

// strip removes the protected names from the request in place: from its
// headers, from its trailers, and from Connection, which could tell a hop to
// drop what is set later. It also removes what would tunnel further requests
// past this one.
func (p protectedNames) strip(r *http.Request) {
	for name := range r.Header {
		if p.contains(name) {
			delete(r.Header, name)
		}
	}
	p.stripHop(r)
	if upgrade := r.Header["Upgrade"]; len(upgrade) > 0 {
		stripUpgrade(r.Header, upgrade)
	}
}

// stripHop removes the names from Connection and from the trailers.
func (p protectedNames) stripHop(r *http.Request) {
	if connection := r.Header["Connection"]; len(connection) > 0 {
		p.stripConnection(r.Header, connection)
	}
	if len(r.Trailer) > 0 {
		p.stripTrailer(r)
	}
}

func (p protectedNames) stripConnection(header http.Header, values []string) {
	var kept []string
	removed := false
	for _, value := range values {
		for token := range strings.SplitSeq(value, ",") {
			token = textproto.TrimString(token)
			if p.contains(token) {
				removed = true
			} else if token != "" {
				kept = append(kept, token)
			}
		}
	}
	switch {
	case !removed:
	case len(kept) == 0:
		header.Del("Connection")
	default:
		header["Connection"] = []string{strings.Join(kept, ", ")}
	}
}

// stripTrailer gives the request a trailer map of its own. The server fills the
// old one when the body ends, after every handler has had its turn, so what is
// harmless is copied then.
func (p protectedNames) stripTrailer(r *http.Request) {
	filled := r.Trailer
	r.Trailer = make(http.Header, len(filled))
	for name := range filled {
		if !p.contains(name) {
			r.Trailer[name] = nil
		}
	}
	if r.Body != nil {
		r.Body = &trailerBody{ReadCloser: r.Body, names: p, from: filled, to: r.Trailer}
	}
}

// trailerBody copies the harmless trailers when the body has been read.
type trailerBody struct {
	io.ReadCloser
	names    protectedNames
	from, to http.Header
}

func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for name, values := range b.from {
			if !b.names.contains(name) {
				b.to[name] = values
			}
		}
	}
	return n, err
}

// connectionHeaders belong to one hop or to the framing of the message, so
// nothing may be told in them. All that reverse_proxy removes are among them.
var connectionHeaders = newHeaderNames(
	"Alt-Svc", "Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
)

// proxyHeaders are those that reverse_proxy sets after us.
var proxyHeaders = newHeaderNames("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")

// checkHeaderName reports why an identity cannot be told in the header.
func checkHeaderName(name string) error {
	switch {
	case name == "":
		return errors.New("the header name is empty")
	case len(name) > maxHeaderName:
		return fmt.Errorf("header name %.40q… is longer than %d characters", name, maxHeaderName)
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%q is no header name; use letters, digits and hyphens", name)
	case connectionHeaders.contains(name):
		return fmt.Errorf("header '%s' belongs to the connection; choose another name", name)
	case proxyHeaders.contains(name):
		return fmt.Errorf("reverse_proxy sets header '%s' to something else; choose another name", name)
	}
	return nil
}

// checkKeptName reports why a header cannot be exempted from stripping.
func checkKeptName(name string, set []string) error {
	beginning := strings.TrimSuffix(name, "*")
	if err := checkHeaderName(beginning); err != nil {
		return err
	}
	if strings.Contains(beginning, "*") {
		return fmt.Errorf("header '%s' has a * that is not at its end, where alone it stands for any ending; write the names out", name)
	}
	kept := newHeaderNames(name)
	if i := slices.IndexFunc(set, kept.contains); i >= 0 {
		return fmt.Errorf("header '%s' is set for the API behind, so what the caller sends in it cannot be kept; remove one of the two", set[i])
	}
	return nil
}

// headerText makes text safe as a header value: control characters, which
// could end the header or the request, become \XX.
func headerText(text string) string {
	return escapeBytes(text, func(c byte) bool { return c < 0x20 && c != '\t' || c == 0x7f })
}

// certificateText makes text from a certificate safe in a header, a URL or a
// log: printable ASCII, with \XX for every other octet as in RFC 4514 §2.4.
func certificateText(text string) string {
	return escapeBytes(text, func(c byte) bool { return c < 0x20 || c >= 0x7f })
}

func escapeBytes(text string, unsafe func(byte) bool) string {
	first := 0
	for first < len(text) && !unsafe(text[first]) {
		first++
	}
	if first == len(text) {
		return text
	}
	const hex = "0123456789ABCDEF"
	escaped := append(make([]byte, 0, len(text)+16), text[:first]...)
	for _, c := range []byte(text[first:]) {
		if unsafe(c) {
			escaped = append(escaped, '\\', hex[c>>4], hex[c&15])
		} else {
			escaped = append(escaped, c)
		}
	}
	return string(escaped)
}
