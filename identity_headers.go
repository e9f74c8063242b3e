package mtlsauth

import (
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

const (
	defaultIdentityHeader = "X-Client-ID"
	clientIDPlaceholder   = "{http.mtls.client_id}"
)

// identityHeaders are the headers in which a directive tells the upstream who the
// client is, and the headers that callers may not send.
type identityHeaders struct {
	headers []headerTemplate
	own     *headerguard.Guard // what the directive sets or reads
	// protected guards the headers in own, those that any directive of the
	// configuration sets, and those of other gateways. It is compiled at the first
	// request, because only then have all directives been provisioned.
	protected func() *headerguard.Guard
}

// headerTemplate is a header of header_up, with a value to expand.
type headerTemplate struct{ name, value string }

// checkIdentityHeaders returns what is wrong with header_up and keep_header in a
// directive that also sets the headers in upstream. No header may be set twice.
func checkIdentityHeaders(headerUp map[string]string, keep, upstream []string) error {
	var set []string
	alreadySet := func(name string) int { return slices.IndexFunc(set, headerguard.NewNames(name).Contains) }
	for name, value := range headerUp {
		if err := headerguard.CheckName(name); err != nil {
			return fmt.Errorf("header_up: %w", err)
		}
		if value == "" {
			return fmt.Errorf("header_up %s has no value; remove it or name a placeholder such as %s", name, clientIDPlaceholder)
		}
		if err := checkPlaceholders(value); err != nil {
			return fmt.Errorf("header_up %s: %w", name, err)
		}
		if i := alreadySet(name); i >= 0 {
			return fmt.Errorf("header_up sets '%s' and '%s', which many servers treat as one header; keep one", set[i], name)
		}
		set = append(set, name)
	}
	if len(set) == 0 {
		set = []string{defaultIdentityHeader}
	}
	for _, name := range upstream {
		if i := alreadySet(name); i >= 0 {
			return fmt.Errorf("header '%s' of forward_certificate or forward_token is already set as '%s'; choose another name for one of the two", name, set[i])
		}
		set = append(set, name)
	}
	for _, name := range keep {
		if len(headerUp) == 0 && headerguard.CheckKept(name, nil) == nil && headerguard.NewNames(name).Contains(defaultIdentityHeader) {
			return fmt.Errorf("keep_header: header '%s' is set by this directive by default, so the caller's value cannot be kept; remove it here, or set another header with header_up", defaultIdentityHeader)
		}
		if err := headerguard.CheckKept(name, set); err != nil {
			return fmt.Errorf("keep_header: %w", err)
		}
	}
	return nil
}

// compileHeaders compiles header_up and keep_header. The directive also sets the
// headers in upstream, and the realm reads those of its proxies, which cannot be
// kept. X-Client-ID is always protected, because an upstream may read it although no
// directive sets it.
func (h *identityHeaders) compileHeaders(realm *Realm, headerUp map[string]string, keep, upstream []string) error {
	proxy := realm.proxyCertificates.headerNames()
	if i := slices.IndexFunc(proxy, headerguard.NewNames(keep...).Contains); i >= 0 {
		return fmt.Errorf("keep_header: the realm takes certificates from header '%s', so it cannot be kept; remove one of the two", proxy[i])
	}
	if len(headerUp) == 0 {
		headerUp = map[string]string{defaultIdentityHeader: clientIDPlaceholder}
	}
	set := slices.Clone(upstream)
	for name, value := range headerUp {
		set = append(set, name)
		h.headers = append(h.headers, headerTemplate{textproto.CanonicalMIMEHeaderKey(name), value})
	}
	own, declared := slices.Concat(set, proxy), &realm.app.declared
	h.own = headerguard.Only(own...)
	declared.addHeaders(set)
	h.protected = sync.OnceValue(func() *headerguard.Guard {
		return headerguard.New(own, append(declared.allHeaders(), defaultIdentityHeader), keep)
	})
	return nil
}

// stripProtected removes the headers that a caller may not send. It is called
// before anything can fail, so that no error route sees a forged header.
func (h *identityHeaders) stripProtected(state *requestState, r *http.Request) {
	guard, earlier := h.protected(), state.strippedBy
	if earlier == nil {
		if removed := guard.Strip(r); removed != "" {
			caddyhttp.SetVar(r.Context(), removedVar, removed)
		}
		state.strippedBy = guard
		return
	}
	h.own.Strip(r)
	if earlier != guard && earlier.Exempts() {
		state.strippedBy = guard.After(earlier)
		state.strippedBy.Strip(r)
	}
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
	if h.ForwardCertificate != nil {
		names = h.ForwardCertificate.names()
	}
	if h.ForwardToken != nil {
		names = append(names, h.ForwardToken.header())
	}
	return names
}

// setUpstreamHeaders sets the headers of the certificate and the token of an
// admitted client.
func (h *Handler) setUpstreamHeaders(header http.Header, id identity, token string) {
	if h.ForwardCertificate != nil {
		h.ForwardCertificate.set(header, id.Headers)
	}
	if h.minter != nil {
		header[h.minter.header] = []string{token}
	}
}

// placeholderNames are the placeholders that a request has, without
// placeholderPrefix and except for claims.
var placeholderNames = []string{
	"client_id", "credential", "error", "fingerprint_sha1", "fingerprint_sha256", "issuer", "issuer_legacy", "matched", "not_after", "not_before",
	"realm", "scope", "serial", "subject", "subject_legacy", "thumbprint",
}

// namingPlaceholders say who the client is, or which certificate it has.
var namingPlaceholders = []string{
	clientIDPlaceholder, "{" + userIDPlaceholder + "}", "{http.mtls.subject}", "{http.mtls.subject_legacy}", "{http.mtls.thumbprint}",
	"{http.mtls.fingerprint_sha256}", "{http.mtls.fingerprint_sha1}",
}

// ownPlaceholder matches what is, or was meant to be, a placeholder of this module,
// and barePlaceholder one that lacks a brace.
var (
	ownPlaceholder  = regexp.MustCompile(`(?i)\{((?:http\.)?mtls\.)([^{}]*)\}`)
	barePlaceholder = regexp.MustCompile(`(?i)\{?\bhttp\.mtls\.([a-z0-9_.-]*[a-z0-9_])\}?`)
)

// checkPlaceholders returns which placeholder of this module in a value does not
// exist, or lacks a brace.
func checkPlaceholders(value string) error {
	for _, match := range ownPlaceholder.FindAllStringSubmatch(value, -1) {
		switch whole, prefix, name := match[0], match[1], match[2]; {
		case !isPlaceholder(name):
			return fmt.Errorf("unknown placeholder '%s'; %s", whole, caddyfileutil.Suggest(name, append(slices.Clone(placeholderNames), claimPrefix+"<name>")))
		case prefix != placeholderPrefix:
			return fmt.Errorf("unknown placeholder '%s'; write {%s%s}", whole, placeholderPrefix, name)
		}
	}
	rest := ownPlaceholder.ReplaceAllString(value, "")
	for _, match := range barePlaceholder.FindAllStringSubmatch(rest, -1) {
		if isPlaceholder(match[1]) {
			return fmt.Errorf("'%s' is a placeholder that lacks a brace; write {%s%s}", match[0], placeholderPrefix, match[1])
		}
	}
	return nil
}

// isPlaceholder reports whether there is a placeholder of this name.
func isPlaceholder(name string) bool {
	claim, isClaim := strings.CutPrefix(name, claimPrefix)
	return slices.Contains(placeholderNames, name) || isClaim && tokens.ValidClaimName(claim)
}

// warnAboutHeaders logs warnings about header_up of mtls_auth: if nothing in it says
// who the client is, or if it sends a claim that no client has.
func (h *Handler) warnAboutHeaders(registry *clients.Registry) {
	values := strings.Join(slices.Sorted(maps.Values(h.HeaderUp)), " ")
	namesClient := slices.ContainsFunc(namingPlaceholders, func(name string) bool { return strings.Contains(values, name) })
	if len(h.HeaderUp) > 0 && !namesClient && h.ForwardCertificate == nil && h.ForwardToken == nil {
		h.realm.logger.Warn("header_up does not send the client id", zap.Strings("headers", slices.Sorted(maps.Keys(h.HeaderUp))))
	}
	if registry.Len() == 0 {
		return
	}
	for _, match := range ownPlaceholder.FindAllStringSubmatch(values, -1) {
		claim, isClaim := strings.CutPrefix(match[2], claimPrefix)
		if isClaim && !registry.HasClaim(claim) {
			h.realm.logger.Warn("header_up sends a claim that no client has", zap.String("claim", claim))
		}
	}
}
