package problem

import (
	"strings"
	"testing"
)

func TestPrefersJSON(t *testing.T) {
	for _, tc := range []struct {
		accept string // lines separated by |
		json   bool
	}{
		{"", false},
		{"*/*", false},
		{"text/plain", false},
		{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false}, // a browser
		{"application/json, text/plain, */*", false},                               // axios
		{"application/problem+json", true},
		{"Application/Problem+JSON;charset=utf-8", true},
		{"application/json", true},
		{"application/*", true},
		{"application/problem+json, */*;q=0.5", true},
		{"application/problem+json;q=0.4, text/*;q=0.5", false},
		{"application/problem+json;q=0.5, text/plain;q=0.4", true},
		{"text/plain;q=0.5|application/problem+json;q=0.6", true},
		{"*/*, text/plain;q=0", true},
		{"*/*, application/problem+json;q=0", false},
		{"application/json, application/problem+json;q=0", false},
		{"application/problem+json;q=0", false},
		{"text/plain;q=0, application/problem+json;q=0.001", true},
		{"application/problem+json ; q=1.000 , text/plain;q=0.999", true},
		{"application/problem+json;level=1;Q=0.2, text/plain;q=0.1", true},
		{"image/png", false},
		// weights that RFC 9110 §12.4.2 does not allow make the range count for nothing
		{"application/problem+json;q=2", false},
		{"application/problem+json;q=1.001", false},
		{"application/problem+json;q=-1", false},
		{"application/problem+json;q=0.1234", false},
		{"application/problem+json;q=", false},
		{"application/problem+json;q=NaN", false},
		{"application/problem+json;q=0x1", false},
		{"application/problem+json;q=0.-1", false},
		{strings.Repeat("a/b,", maxRanges) + "application/problem+json", false},
	} {
		if got := prefersJSON(strings.Split(tc.accept, "|")); got != tc.json {
			t.Errorf("Accept %.80q: %t", tc.accept, got)
		}
	}
	if prefersJSON(nil) {
		t.Error("JSON without Accept")
	}
}

func FuzzPrefersJSON(f *testing.F) {
	for _, seed := range []string{"", "*/*", "application/problem+json;q=0.5, text/plain;q=0.4", ";;,,=;q=.", "text/plain;q=1.0000;q=0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		// a range that is never met changes nothing
		if prefersJSON([]string{accept}) != prefersJSON([]string{"x/x", accept}) && strings.Count(accept, ",") < maxRanges-2 {
			t.Errorf("Accept %q", accept)
		}
		if weight, ok := weightOf(accept); ok && (weight < 0 || weight > 1000) {
			t.Errorf("the weight of %q is %d", accept, weight)
		}
		text := newQuality(textRanges)
		text.add(accept, 500)
		if text.thousandths != 0 && text.thousandths != 500 || text.matched < 0 || text.matched > len(textRanges) {
			t.Errorf("%q: %+v", accept, text)
		}
	})
}
