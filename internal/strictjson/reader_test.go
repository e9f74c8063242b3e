package strictjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// TestReaderValue: a value is read as far as encoding/json does, and refused where
// [Check] refuses it.
func TestReaderValue(t *testing.T) {
	for _, text := range []string{
		`{}`, ` {"a":{"b":[1,{"a":2}]}} `, `{"a":1,"A":2}`, `{"a":1,"a":1}`, `{"a":1,"\u0061":2}`, `{"b":[{"a":1,"c":{"x":1,"x":2}}]}`, `{} {}`, `{"a":1}x`,
		`{"a":1`, `{"a" 1}`, ``, strings.Repeat("[", 100), strings.Repeat("[", 32) + strings.Repeat("]", 32), strings.Repeat("[", 33) + strings.Repeat("]", 33),
		strings.Repeat("[", 34) + strings.Repeat("]", 34), strings.Repeat("[", 32) + "1" + strings.Repeat("]", 32), strings.Repeat("[", 33) + "1" + strings.Repeat("]", 33),
		strings.Repeat(`{"a":`, 33) + "{}" + strings.Repeat("}", 33), `-`, `-1`, `01`, `1.`, `1.5E`, `1e+05`, `.5`, `+1`, `"\x"`, `"\u12"`, `"\u12G4"`, `"a`, `"\`, "\"\t\"", `nul`, `nullx`, `true`, `[1 2]`, `[1,]`,
	} {
		r := NewReader(text)
		value, err := r.Value()
		if err == nil {
			err = r.End()
		}
		if want := Check([]byte(text), 1000); (err == nil) != (want == nil) {
			t.Errorf("%.40s: error %v, want %v", text, err, want)
		}
		if err == nil && value != strings.TrimSpace(text) {
			t.Errorf("%.40s is read as %s", text, value)
		}
	}
}

func TestReaderStrings(t *testing.T) {
	for _, text := range []string{`""`, `"a b"`, `"ä€😀"`, `"\"\\\/\b\f\n\r\t"`, `"\u00e4\u20AC\uD83D\ude00"`, `"ä\u0041"`, `"\ufffd�"`} {
		var want string
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if got, err := NewReader(text).String(); got != want || err != nil {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{`"\u0000"`, `"\ud83d"`, `"\ud83d\n"`, `"\ud83d\u0041"`, `"\ude00"`, "\"\xff\"", "\"\\n\xff\"", `"a\u0000b"`} {
		if got, err := NewReader(text).String(); !errors.Is(err, ErrCharacter) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestCompact(t *testing.T) {
	const text, want = " {\"a b\" : [ 1 ,\t\"c \\\" , d\\\\\" ]\r\n}", `{"a b":["1"]}`
	compact := `{"a b":[1,"c \" , d\\"]}`
	if got := Compact(text); got != compact {
		t.Errorf("%s", got)
	}
	r := NewReader(text)
	if _, err := r.Value(); err != nil || r.Spaces() != len(text)-len(compact) {
		t.Errorf("%d octets of white space, %v", r.Spaces(), err)
	}
	for other, same := range map[string]bool{text: true, compact: true, want: false, compact + "x": false, compact[1:]: false, `{"a b":[1,"c \",d\\"]}`: false, ``: false} {
		if SameCompact([]byte(other), compact) != same {
			t.Errorf("%s: want %t", other, same)
		}
	}
}
