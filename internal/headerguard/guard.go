// Package headerguard keeps callers from sending what an upstream could take for
// the gateway's own word: protected headers and trailers, Connection options and
// protocol upgrades. It also hides protected names in the Vary of responses.
package headerguard

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// Guard has the names of the headers that a caller may not send. The zero Guard
// protects nothing.
type Guard struct {
	// names are protected unless they are in keep; those that are also in always
	// are protected in any case
	names, keep, always *Names
	// earlier has stripped the request already, unless it is nil
	earlier *Guard
}

// New returns the guard of a directive that sets or reads the headers in own.
// It also protects [OtherGateways] and the headers in configured, which other
// directives set. The names in keep are exempt, but never those in own. A
// trailing * in keep stands for any ending and exempts only headers of other
// gateways: those in configured are exempt only by their whole name.
func New(own, configured, keep []string) *Guard {
	exact := NewNames(slices.DeleteFunc(slices.Clone(keep), func(name string) bool { return strings.HasSuffix(name, "*") })...)
	always := slices.Concat(own, slices.DeleteFunc(slices.Clone(configured), exact.Contains))
	return &Guard{
		names:  NewNames(slices.Concat(always, OtherGateways)...),
		keep:   NewNames(keep...),
		always: NewNames(always...),
	}
}

// Only returns a guard that protects these names and no others.
func Only(names ...string) *Guard { return &Guard{names: NewNames(names...)} }

// Exempts reports whether a caller may send any header that is protected otherwise.
func (g *Guard) Exempts() bool { return len(g.keep.exact)+len(g.keep.prefixes) > 0 }

// After returns a guard that protects, of what g does, only what earlier has exempted.
// Whatever else a request has under these names by then is the gateway's own word.
func (g *Guard) After(earlier *Guard) *Guard {
	after := *g
	after.earlier = earlier
	return &after
}

// protects reports whether a caller may not send the header.
func (g *Guard) protects(name string) bool {
	return g.names.Contains(name) && !g.keeps(name) && (g.earlier == nil || g.earlier.exempts(name))
}

func (g *Guard) exempts(name string) bool {
	return g.keeps(name) && (g.earlier == nil || g.earlier.exempts(name))
}

func (g *Guard) keeps(name string) bool { return g.keep.Contains(name) && !g.always.Contains(name) }

// Strip removes the protected names from the headers and trailers of the
// request and from its Connection header, in place. It also removes an Upgrade
// to anything but WebSocket. It returns the first of the removed headers in which
// proxies forward certificates, or "", as [CertificateHeader] does.
func (g *Guard) Strip(r *http.Request) (certificateHeader string) {
	first := len(certificateHeaders)
	for name, values := range r.Header {
		if !g.protects(name) {
			continue
		}
		if i := slices.Index(certificateHeaders, name); i >= 0 && HasValue(values) {
			first = min(first, i)
		}
		delete(r.Header, name)
	}
	if first < len(certificateHeaders) {
		certificateHeader = certificateHeaders[first]
	}
	g.StripHop(r)
	if upgrade := r.Header["Upgrade"]; len(upgrade) > 0 {
		stripUpgrade(r.Header, upgrade)
	}
	return certificateHeader
}

// StripHop removes the protected names from Connection, in which a caller could
// tell the next hop to drop them, and from the trailers. It leaves the headers
// themselves.
func (g *Guard) StripHop(r *http.Request) {
	if connection := r.Header["Connection"]; len(connection) > 0 {
		g.stripConnection(r.Header, connection)
	}
	if len(r.Trailer) > 0 {
		g.stripTrailer(r)
	}
}

// maxConnection is the size of the largest Connection header that is read. Browsers and
// proxies send a few words.
const maxConnection = 4 << 10

func (g *Guard) stripConnection(header http.Header, values []string) {
	size := 0
	for _, value := range values {
		size += len(value)
	}
	if size > maxConnection {
		header.Del("Connection") // so the headers that it names go on, unless they are protected
		return
	}
	var kept []string
	removed := false
	for _, value := range values {
		for option := range strings.SplitSeq(value, ",") {
			option = textproto.TrimString(option)
			if g.protects(option) {
				removed = true
			} else if option != "" {
				kept = append(kept, option)
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
// original map when the body ends, after all handlers have run, so the trailers
// that may pass are copied then.
func (g *Guard) stripTrailer(r *http.Request) {
	filled := r.Trailer
	r.Trailer = make(http.Header, len(filled))
	for name := range filled {
		if !g.protects(name) {
			r.Trailer[name] = nil
		}
	}
	if r.Body != nil {
		r.Body = &trailerBody{ReadCloser: r.Body, guard: g, from: filled, to: r.Trailer}
	}
}

// trailerBody copies the trailers that may pass once the body has been read.
type trailerBody struct {
	io.ReadCloser
	guard    *Guard
	from, to http.Header
}

func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for name, values := range b.from {
			if !b.guard.protects(name) {
				b.to[name] = values
			}
		}
	}
	return n, err
}
