package syntax

import "testing"

func TestClaimText(t *testing.T) {
	for value, want := range map[string]string{
		`"acme"`: "acme", `"a\"b"`: `a"b`, `""`: "", `12345678901234567890`: "12345678901234567890",
		`[ "a", "b" ]`: `["a","b"]`, ` {"a": 1} `: `{"a":1}`, `true`: "true", `null`: "null", ``: "", `{`: "",
	} {
		if got := ClaimText([]byte(value)); got != want {
			t.Errorf("%s: got %q, want %q", value, got, want)
		}
	}
}
