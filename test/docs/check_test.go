package docs_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/check"
)

// TestCheckCodesAreDocumented checks that commands.md has every code of `check` with its
// severity and meaning, and no other.
func TestCheckCodesAreDocumented(t *testing.T) {
	var rows []string
	for _, code := range slices.Sorted(maps.Keys(check.Codes)) {
		rule := check.Codes[code]
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", code, rule.Severity, rule.Meaning))
	}
	_, section, _ := strings.Cut(page(t, "commands.md"), "\n## `check`\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := regexp.MustCompile("(?m)^\\| `[a-z_0-9]+` \\| (?:error|warning|note) \\| .*$").FindAllString(section, -1)
	same(t, "codes of check", rows, documented)
}

// afterTheLoad are warnings that can only be logged later, or that are about requests.
var afterTheLoad = []string{
	"changed client may not be in force in the configuration that is being loaded", "client source has far fewer clients than before",
	"stored clients went back to an older revision", "PostgreSQL is behind a connection pooler; notifications may be lost",
	"client would fail under the shadow trust pool", "CRL no longer in its source", "deny file has fewer rules than before",
	"client admitted without revocation status", "signing keys rotated by an operator", "client change refused",
	"events dropped; their handlers are too slow",
}

// TestWarningsOfTheLoadHaveACode checks that every warning about clients, trust, keys, TLS
// settings and the order of directives is a code of `check`, and that those exist.
func TestWarningsOfTheLoadHaveACode(t *testing.T) {
	text := page(t, "logs.md")
	known := check.Messages()
	for message, code := range known {
		if !strings.Contains(text, "| `"+message+"` | ") || check.Codes[code].Meaning == "" {
			t.Errorf("%q with code %q is not in logs.md, or has no code", message, code)
		}
	}
	_, text, _ = strings.Cut(text, "\n## Clients\n")
	found := 0
	for _, match := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| WARN \\|").FindAllStringSubmatch(text, -1) {
		if found++; known[match[1]] == "" && !slices.Contains(afterTheLoad, match[1]) {
			t.Errorf("the warning %q has no code of check, and is not among those after the load", match[1])
		}
	}
	if found < 30 {
		t.Errorf("found %d warnings; does the pattern still fit?", found)
	}
}
