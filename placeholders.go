package mtlsauth

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// placeholderNames are the placeholders that a request has, without
// placeholderPrefix and except for claims.
var placeholderNames = []string{
	"client_id", "credential", "error", "matched", "not_after", "realm", "scope", "subject", "thumbprint",
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
