package caddyfileutil

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// Expand resolves {env.*} and {file.*} once. A placeholder that is unset or empty
// is an error, because it must never widen access.
func Expand(value string) (string, error) {
	expanded, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%w; set it, or write the value itself", err)
	}
	return expanded, nil
}

// ExpandAll resolves the placeholders in the values of an option.
func ExpandAll(word string, values []string) ([]string, error) {
	expanded := make([]string, len(values))
	for i, value := range values {
		var err error
		if expanded[i], err = Expand(value); err != nil {
			return nil, fmt.Errorf("%s '%s': %w", word, source.ShownValue(value), err)
		}
	}
	return expanded, nil
}
