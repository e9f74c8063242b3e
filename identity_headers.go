package mtlsauth

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

const (
	defaultIdentityHeader = "X-Client-ID"
	clientIDPlaceholder   = "{http.mtls.client_id}"
)

// identityHeaders are the headers in which a directive tells the API behind who
// the client is, and those that callers may not send to it.
type identityHeaders struct {
	headers   []headerTemplate
	own       protectedNames // what the directive sets or reads
	protected protectedNames // own, and what other gateways set
}

type headerTemplate struct{ name, value string }

// checkIdentityHeaders reports what is wrong with header_up and keep_header.
func checkIdentityHeaders(headerUp map[string]string, keep []string) error {
	set, err := checkHeaderUp(headerUp)
	if err != nil {
		return err
	}
	return checkKeptNames(keep, set)
}

// checkHeaderUp reports what is wrong with header_up, and returns the headers
// that are set.
func checkHeaderUp(headerUp map[string]string) (set []string, err error) {
	for name, value := range headerUp {
		if err := checkHeaderName(name); err != nil {
			return nil, fmt.Errorf("header_up: %w", err)
		}
		if value == "" {
			return nil, fmt.Errorf("header_up %s has no value; remove it or name a placeholder such as %s", name, clientIDPlaceholder)
		}
		if i := slices.IndexFunc(set, newHeaderNames(name).contains); i >= 0 {
			return nil, fmt.Errorf("header_up sets '%s' and '%s', which are one name to many servers; keep one", set[i], name)
		}
		set = append(set, name)
	}
	if len(set) == 0 {
		set = []string{defaultIdentityHeader}
	}
	return set, nil
}

// checkKeptNames reports what is wrong with keep_header beside the headers that
// are set.
func checkKeptNames(keep, set []string) error {
	for _, name := range keep {
		if err := checkKeptName(name, set); err != nil {
			return fmt.Errorf("keep_header: %w", err)
		}
	}
	return nil
}

// checkForwardedKept refuses to keep a header that the realm takes certificates
// from.
func checkForwardedKept(realm *Realm, keep []string) error {
	for _, name := range realm.forwarded.headers() {
		if newHeaderNames(keep...).contains(name) {
			return fmt.Errorf("keep_header: the realm takes certificates from header '%s', so it cannot be kept; remove one of the two", name)
		}
	}
	return nil
}

// compile prepares header_up and keep_header. also are names that callers may
// not send either.
func (h *identityHeaders) compile(headerUp map[string]string, keep []string, also ...string) {
	if len(headerUp) == 0 {
		headerUp = map[string]string{defaultIdentityHeader: clientIDPlaceholder}
	}
	names := slices.Clone(also)
	for name, value := range headerUp {
		names = append(names, name)
		h.headers = append(h.headers, headerTemplate{textproto.CanonicalMIMEHeaderKey(name), value})
	}
	h.own = protectedNames{names: newHeaderNames(names...), keep: newHeaderNames()}
	h.protected = protectedNames{
		names: newHeaderNames(slices.Concat(names, foreignIdentityHeaders)...),
		keep:  newHeaderNames(keep...),
	}
}

// strip removes what a caller may not send. It comes before anything can fail,
// so that no error route sees a forged name.
func (h *identityHeaders) strip(state *requestState, r *http.Request) {
	if state.stripped {
		h.own.strip(r)
		return
	}
	h.protected.strip(r)
	state.stripped = true
}

// set tells the API behind whom the state has admitted.
func (h *identityHeaders) set(state *requestState, r *http.Request) {
	for _, header := range h.headers {
		value := state.clientID()
		if header.value != clientIDPlaceholder {
			value = strings.TrimSpace(headerText(state.repl.ReplaceAll(header.value, "")))
		}
		if value == "" {
			delete(r.Header, header.name)
		} else {
			r.Header[header.name] = []string{value}
		}
	}
}
