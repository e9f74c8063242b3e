package strictjson

import (
	"strings"
	"testing"
)

// TestShows checks what is shown to a person.
func TestShows(t *testing.T) {
	nested := func(levels int) string { return strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels) }
	for text, want := range map[string]bool{
		`{}`: true, ` {"a":[{}],"a":1} `: true, nested(32): true, nested(33): false, `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + "}": false,
		`[{}]`: false, `null`: false, `"x"`: false, ``: false, ` `: false, `{`: false, `{}{}`: false, `{"a":` + strings.Repeat("[0],", 99) + "0}": false,
		`{"a":[` + strings.Repeat("[0],", 99) + "0]}": true,
	} {
		if got := Shows([]byte(text)); got != want {
			t.Errorf("%.60q: %t", text, got)
		}
	}
}
