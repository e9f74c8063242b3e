package clients

import (
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestCheckIDNamesTheCharacter checks that the error names the character, and not its
// first octet.
func TestCheckIDNamesTheCharacter(t *testing.T) {
	testtool.WantError(t, CheckID("Ünü"), "contains 'Ü'")
	testtool.WantError(t, CheckID("a\xff"), "contains")
}
