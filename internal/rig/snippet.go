package rig

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var caddyfileSnippet = regexp.MustCompile("(?ms)^```caddyfile\n\\{\n(.*?)^\\}\n(.*?)^```$")

// Snippet returns the global options and the sites of a complete Caddyfile in a page of
// the documentation, with what has to be replaced for a test, in pairs.
func Snippet(t *testing.T, page string, index int, replacements ...string) (global, sites string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	found := caddyfileSnippet.FindAllStringSubmatch(string(text), -1)
	if index >= len(found) {
		t.Fatalf("%s has %d complete Caddyfiles, not %d", page, len(found), index+1)
	}
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(found[index][0], replacements[i]) {
			t.Fatalf("Caddyfile %d of %s has no %q", index, page, replacements[i])
		}
	}
	parts := caddyfileSnippet.FindStringSubmatch(strings.NewReplacer(replacements...).Replace(found[index][0]))
	return parts[1], parts[2]
}
