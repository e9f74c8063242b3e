package allowlist

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

func TestAllow(t *testing.T) {
	for _, test := range []struct {
		patterns string
		id       string
		want     bool
	}{
		{"", "anyone", true},
		{"a", "a", true},
		{"a", "A", false},
		{"a", "ab", false},
		{"a", "", false},
		{"a b", "b", true},
		{"*", "anyone", true},
		{"**", "anyone", true},
		{"sensor-*", "sensor-7", true},
		{"sensor-*", "sensor-", true},
		{"sensor-*", "sensor", false},
		{"sensor-*", "my-sensor-7", false},
		{"*-sensor", "my-sensor", true},
		{"*-sensor", "my-sensor-7", false},
		{"a*b", "ab", true},
		{"a*b", "a/long/way/to/b", true},
		{"a*b", "a", false},
		{"aa*aa", "aaa", false}, // the two ends must not overlap
		{"aa*aa", "aaaa", true},
		{"a*b*c", "axbxc", true},
		{"a*b*c", "axxc", false},
		{"a*b*c", "abbc", true},
		{"*b*", "abc", true},
		{"*b*", "ac", false},
		{"*ab*ab", "ab", false},
		{"*ab*ab", "abab", true},
		{"*a*a*", "a", false},
		{"*a*a*", "aa", true},
		{"spiffe://prod.example/*", "spiffe://prod.example/ns/billing", true},
		{"spiffe://prod.example/*", "spiffe://prod.example.evil/ns", false},
		{"a.c", "abc", false}, // other characters are literal
		{"a+c", "aac", false},
		{"exact other-*", "other-1", true},
		{"exact other-*", "exact-1", false},
	} {
		if got := New(strings.Fields(test.patterns)).Admits(test.id); got != test.want {
			t.Errorf("allow %q admits %q: %t, want %t", test.patterns, test.id, got, test.want)
		}
	}
}

func TestCheck(t *testing.T) {
	for pattern, want := range map[string]string{
		"a": "", "*": "", "**": "", "a*": "", "*a*b*": "", "spiffe://a/*": "", "mtls.client": "",
		"": "client_id is empty", "a b": "contains ' '", "a?": "contains '?'", "{env.X}": "contains '{'", "a[bc]": "contains '['", "a\n": `contains '\n'`, strings.Repeat("a", 201): "at most 200",
	} {
		switch err := Check(pattern); {
		case want == "" && err != nil:
			t.Errorf("%q: %v", pattern, err)
		case want != "":
			testtool.WantError(t, err, want)
		}
	}
}

// TestMatchesAny checks which entries of an allow list match a client.
func TestMatchesAny(t *testing.T) {
	var records []clients.Record
	for i, id := range []string{"a", "sensor-7"} {
		records = append(records, clients.Record{ClientID: id, Thumbprints: clients.Strings{testpki.HashOf(fmt.Append(nil, i))}})
	}
	known, err := directory.New(t.Context(), directory.Config{Records: records})
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]bool{"a": true, "sensor-*": true, "*": true, "b": false, "A": false, "b*": false, "*b": false,
		"s*": true, "sen*7": true, "sen*8": false, "sensor-8*": false, "a*a": false, "a*": true, "s": false} {
		if got := MatchesAny(pattern, known.Registry()); got != want {
			t.Errorf("%s: %t, want %t", pattern, got, want)
		}
	}
}

// octets returns the text with each octet as a character, for functions that work
// on characters.
func octets(text string) string {
	runes := make([]rune, 0, len(text))
	for _, octet := range []byte(text) {
		runes = append(runes, rune(octet))
	}
	return string(runes)
}

// FuzzWildcard compares wildcards with regular expressions.
func FuzzWildcard(f *testing.F) {
	f.Fuzz(func(t *testing.T, pattern, id string) {
		if len(pattern) > 200 || len(id) > 1000 {
			return
		}
		expression, err := regexp.Compile(`(?s)^` + strings.ReplaceAll(regexp.QuoteMeta(octets(pattern)), `\*`, `.*`) + `$`)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := New([]string{pattern}).Admits(id), expression.MatchString(octets(id)); got != want {
			t.Errorf("%q admits %q: %t, want %t", pattern, id, got, want)
		}
		// every pattern admits itself
		if !New([]string{pattern}).Admits(pattern) {
			t.Errorf("%q does not admit itself", pattern)
		}
	})
}
