// Package syntax checks the forms of text that clients, tokens and certificates share.
package syntax

import (
	"errors"
	"fmt"
	"strings"
)

// CheckScope returns why scope is not a scope-token (RFC 6749 §3.3): printable
// ASCII without space, quote and backslash, and not empty.
func CheckScope(scope string) error {
	if scope == "" {
		return errors.New("a scope is empty; remove it or set the variable it comes from")
	}
	for i := range len(scope) {
		if c := scope[i]; c <= ' ' || c == '"' || c == '\\' || c > '~' {
			return fmt.Errorf("scope %q holds %q; use printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)", scope, c)
		}
	}
	return nil
}

// CheckDeclaredScope is [CheckScope] for a scope in a configuration or client record.
// A comma at its end was meant to separate it from the next one.
func CheckDeclaredScope(scope string) error {
	if strings.HasSuffix(scope, ",") {
		return fmt.Errorf("scope '%s' ends with a comma; separate scopes by spaces alone", scope)
	}
	return CheckScope(scope)
}
