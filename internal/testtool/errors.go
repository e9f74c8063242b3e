package testtool

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// WantError fails the test unless err contains all of the texts.
func WantError(t testing.TB, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error lacks %q: %v", text, err)
		}
	}
}

// Printable reports whether text is fit for a log line.
func Printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}
