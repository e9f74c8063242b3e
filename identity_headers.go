package mtlsauth

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"

	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
)

const (
	defaultIdentityHeader = "X-Client-ID"
	clientIDPlaceholder   = "{http.mtls.client_id}"
)

// The headers in which the upstream gets the certificate (RFC 9440 §2).
const (
	clientCertHeader      = "Client-Cert"
	clientCertChainHeader = "Client-Cert-Chain"
)

// identityHeaders are the headers in which a directive tells the API behind who
// the client is, and those that callers may not send to it.
type identityHeaders struct {
	headers []headerTemplate
	own     headerguard.Guard // what the directive sets or reads
	// protected returns own, what any directive of the configuration sets, and
	// what other gateways set. It is compiled at the first request, because only
	// then have all directives been provisioned.
	protected func() headerguard.Guard
}

type headerTemplate struct{ name, value string }

// checkIdentityHeaders reports what is wrong with header_up and keep_header.
func checkIdentityHeaders(headerUp map[string]string, keep []string) error {
	set, err := checkHeaderUp(headerUp)
	if err != nil {
		return err
	}
	return checkKeepHeader(keep, set)
}

// checkHeaderUp reports what is wrong with header_up, and returns the headers
// that are set.
func checkHeaderUp(headerUp map[string]string) (set []string, err error) {
	for name, value := range headerUp {
		if err := headerguard.CheckName(name); err != nil {
			return nil, fmt.Errorf("header_up: %w", err)
		}
		if value == "" {
			return nil, fmt.Errorf("header_up %s has no value; remove it or name a placeholder such as %s", name, clientIDPlaceholder)
		}
		if i := slices.IndexFunc(set, headerguard.NewNames(name).Contains); i >= 0 {
			return nil, fmt.Errorf("header_up sets '%s' and '%s', which are one name to many servers; keep one", set[i], name)
		}
		set = append(set, name)
	}
	if len(set) == 0 {
		set = []string{defaultIdentityHeader}
	}
	return set, nil
}

// checkKeepHeader reports what is wrong with keep_header beside the headers that
// are set.
func checkKeepHeader(keep, set []string) error {
	for _, name := range keep {
		if err := headerguard.CheckKept(name, set); err != nil {
			return fmt.Errorf("keep_header: %w", err)
		}
	}
	return nil
}

// checkProxyHeadersKept refuses to keep a header that the realm takes certificates
// from.
func checkProxyHeadersKept(realm *Realm, keep []string) error {
	for _, name := range realm.proxyCertificates.headerNames() {
		if headerguard.NewNames(keep...).Contains(name) {
			return fmt.Errorf("keep_header: the realm takes certificates from header '%s', so it cannot be kept; remove one of the two", name)
		}
	}
	return nil
}

// compileHeaders prepares header_up and keep_header. The directive also sets the
// headers in forwarded, and the realm reads those in read. X-Client-ID is
// protected in any case: an upstream may read it although nothing sets it.
func (h *identityHeaders) compileHeaders(declared *declarations, headerUp map[string]string, keep, forwarded, read []string) {
	if len(headerUp) == 0 {
		headerUp = map[string]string{defaultIdentityHeader: clientIDPlaceholder}
	}
	var set []string
	for name, value := range headerUp {
		set = append(set, name)
		h.headers = append(h.headers, headerTemplate{textproto.CanonicalMIMEHeaderKey(name), value})
	}
	own := slices.Concat(set, forwarded, read)
	h.own = headerguard.Only(own...)
	declared.addHeaders(slices.Concat(set, forwarded))
	h.protected = sync.OnceValue(func() headerguard.Guard {
		return headerguard.New(own, append(declared.allHeaders(), defaultIdentityHeader), keep)
	})
}

// stripProtected removes what a caller may not send. It comes before anything can fail,
// so that no error route sees a forged name.
func (h *identityHeaders) stripProtected(state *requestState, r *http.Request) {
	if state.stripped {
		h.own.Strip(r)
		return
	}
	h.protected().Strip(r)
	state.stripped = true
}

// setIdentity tells the API behind whom the state has admitted.
func (h *identityHeaders) setIdentity(state *requestState, r *http.Request) {
	for _, header := range h.headers {
		value := state.clientID()
		if header.value != clientIDPlaceholder {
			value = strings.TrimSpace(headerguard.EscapeControl(state.repl.ReplaceAll(header.value, "")))
		}
		if value == "" {
			delete(r.Header, header.name)
		} else {
			r.Header[header.name] = []string{value}
		}
	}
}

// upstreamHeaders returns the headers in which the upstream gets certificate and
// token.
func (h *Handler) upstreamHeaders() []string {
	var names []string
	if h.ForwardCertificate {
		names = append(names, clientCertHeader, clientCertChainHeader)
	}
	if h.ForwardToken != nil {
		names = append(names, h.ForwardToken.header())
	}
	return names
}

// checkUpstreamHeaders adds to the headers that are set those of certificate and
// token, unless one would be set twice.
func (h *Handler) checkUpstreamHeaders(set []string) ([]string, error) {
	if h.ForwardToken != nil {
		if err := h.ForwardToken.check(); err != nil {
			return nil, fmt.Errorf("forward_token: %w", err)
		}
	}
	for _, name := range h.upstreamHeaders() {
		if i := slices.IndexFunc(set, headerguard.NewNames(name).Contains); i >= 0 {
			return nil, fmt.Errorf("header '%s' is that of forward_certificate or forward_token, and it is set as '%s' already; choose another name for one of the two", name, set[i])
		}
		set = append(set, name)
	}
	return set, nil
}

// setUpstreamHeaders tells the upstream the certificate and the token of an
// admitted client.
func (h *Handler) setUpstreamHeaders(header http.Header, id identity, token string) {
	if h.ForwardCertificate {
		values := []string{id.Headers.Cert, id.Headers.Chain}
		header[clientCertHeader] = values[:1:1]
		if id.Headers.Chain != "" {
			header[clientCertChainHeader] = values[1:]
		}
	}
	if h.minter != nil {
		header[h.minter.header] = []string{token}
	}
}
