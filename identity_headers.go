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

// identityHeaders are the headers in which a directive tells the upstream who the
// client is, and the headers that callers may not send.
type identityHeaders struct {
	headers []headerTemplate
	own     headerguard.Guard // what the directive sets or reads
	// protected guards the headers in own, those that any directive of the
	// configuration sets, and those of other gateways. It is compiled at the first
	// request, because only then have all directives been provisioned.
	protected func() headerguard.Guard
}

// headerTemplate is a header of header_up, with a value to expand.
type headerTemplate struct{ name, value string }

// checkIdentityHeaders returns what is wrong with header_up and keep_header.
func checkIdentityHeaders(headerUp map[string]string, keep []string) error {
	names, err := checkHeaderUp(headerUp)
	if err != nil {
		return err
	}
	return checkKeepHeader(keep, names)
}

// checkHeaderUp returns the names of the headers that header_up sets, or what is
// wrong with it.
func checkHeaderUp(headerUp map[string]string) (names []string, err error) {
	for name, value := range headerUp {
		if err := headerguard.CheckName(name); err != nil {
			return nil, fmt.Errorf("header_up: %w", err)
		}
		if value == "" {
			return nil, fmt.Errorf("header_up %s has no value; remove it or name a placeholder such as %s", name, clientIDPlaceholder)
		}
		if i := slices.IndexFunc(names, headerguard.NewNames(name).Contains); i >= 0 {
			return nil, fmt.Errorf("header_up sets '%s' and '%s', which many servers treat as one header; keep one", names[i], name)
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		names = []string{defaultIdentityHeader}
	}
	return names, nil
}

// checkKeepHeader returns what is wrong with keep_header in a directive that sets
// the headers in own.
func checkKeepHeader(keep, own []string) error {
	for _, name := range keep {
		if err := headerguard.CheckKept(name, own); err != nil {
			return fmt.Errorf("keep_header: %w", err)
		}
	}
	return nil
}

// checkProxyHeadersKept returns an error if keep_header names a header from which
// the realm takes certificates.
func checkProxyHeadersKept(realm *Realm, keep []string) error {
	for _, name := range realm.proxyCertificates.headerNames() {
		if headerguard.NewNames(keep...).Contains(name) {
			return fmt.Errorf("keep_header: the realm takes certificates from header '%s', so it cannot be kept; remove one of the two", name)
		}
	}
	return nil
}

// compileHeaders compiles header_up and keep_header. The directive also sets the
// headers in upstream, and the realm reads those in proxy. X-Client-ID is always
// protected, because an upstream may read it although no directive sets it.
func (h *identityHeaders) compileHeaders(declared *declarations, headerUp map[string]string, keep, upstream, proxy []string) {
	if len(headerUp) == 0 {
		headerUp = map[string]string{defaultIdentityHeader: clientIDPlaceholder}
	}
	var set []string
	for name, value := range headerUp {
		set = append(set, name)
		h.headers = append(h.headers, headerTemplate{textproto.CanonicalMIMEHeaderKey(name), value})
	}
	own := slices.Concat(set, upstream, proxy)
	h.own = headerguard.Only(own...)
	declared.addHeaders(slices.Concat(set, upstream))
	h.protected = sync.OnceValue(func() headerguard.Guard {
		return headerguard.New(own, append(declared.allHeaders(), defaultIdentityHeader), keep)
	})
}

// stripProtected removes the headers that a caller may not send. It is called
// before anything can fail, so that no error route sees a forged header.
func (h *identityHeaders) stripProtected(state *requestState, r *http.Request) {
	if state.stripped {
		h.own.Strip(r)
		return
	}
	h.protected().Strip(r)
	state.stripped = true
}

// setIdentity sets the headers of header_up for the client that was admitted.
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

// upstreamHeaders returns the names of the headers in which the upstream gets the
// certificate and the token.
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

// checkUpstreamHeaders returns the names of all headers that the directive sets:
// names, which header_up sets, and those of the certificate and the token. None
// may be set twice.
func (h *Handler) checkUpstreamHeaders(names []string) ([]string, error) {
	if h.ForwardToken != nil {
		if err := h.ForwardToken.check(); err != nil {
			return nil, fmt.Errorf("forward_token: %w", err)
		}
	}
	for _, name := range h.upstreamHeaders() {
		if i := slices.IndexFunc(names, headerguard.NewNames(name).Contains); i >= 0 {
			return nil, fmt.Errorf("header '%s' of forward_certificate or forward_token is already set as '%s'; choose another name for one of the two", name, names[i])
		}
		names = append(names, name)
	}
	return names, nil
}

// setUpstreamHeaders sets the headers of the certificate and the token of an
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
