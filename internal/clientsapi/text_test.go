package clientsapi

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCheckText(t *testing.T) {
	for text, want := range map[string]string{
		``: "", `"a"`: "", `"\\u0000"`: "", `"\"\\\n"`: "", `"\ud83d\ude00 é \u00e9"`: "", `"\`: "", `"\u00`: "", "\"\U0001f600\"": "",
		`"\u0000"`: "NUL", `"\\\u0000"`: "NUL", `"\ud800"`: "half", `"\udc00"`: "half", `"\ud800\ud800\udc00"`: "half", `"\ud800x"`: "half", `"\ud800\n"`: "half",
		`"\uDC00\uD800"`: "half", `"\ud800\`: "half", "\"\xed\xa0\x80\"": "not UTF-8", "\xff": "not UTF-8",
	} {
		if err := checkText([]byte(text)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzCheckText checks that JSON which passes has neither NUL nor what Go's decoder
// replaces.
func FuzzCheckText(f *testing.F) {
	for _, seed := range []string{`"a\u0000"`, `"\ud800\udc00"`, `"\\ud800"`, `"\ud800\\udc00"`, `"\ufffd�"`, `"\`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var value string
		if json.Unmarshal(text, &value) != nil {
			_ = checkText(text)
			return
		}
		declared := strings.Count(string(text), string(utf8.RuneError)) + strings.Count(strings.ToLower(string(text)), `\ufffd`)
		bad := strings.ContainsRune(value, 0) || strings.Count(value, string(utf8.RuneError)) > declared
		if err := checkText(text); bad && err == nil {
			t.Errorf("%s passes", text)
		} else if err != nil && utf8.Valid(text) && !strings.ContainsRune(value, 0) && !strings.ContainsRune(value, utf8.RuneError) {
			t.Errorf("%s: %v", text, err)
		}
	})
}
