// Package syntax checks the forms of text that clients and tokens share.
package syntax

import (
	"errors"
	"fmt"
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
