package mtlsauth

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

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
