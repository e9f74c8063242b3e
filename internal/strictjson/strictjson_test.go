package strictjson

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                "",
		` {"a":{"b":[1,{"a":2}]}} `:         "",
		`{"a":1,"A":2}`:                     "",
		`{"a":1,"a":1}`:                     "duplicate member",
		`{"a":1,"\u0061":2}`:                "duplicate member",
		`{"b":[{"a":1,"c":{"x":1,"x":2}}]}`: "duplicate member",
		`{} {}`:                             "text after",
		`{"a":1}x`:                          "text after",
		`{"a":1`:                            "EOF",
		`{"a" 1}`:                           "invalid character",
		``:                                  "EOF",
		strings.Repeat("[", 100):            "nested deeper",
		strings.Repeat("[", 32) + strings.Repeat("]", 32): "",
		strings.Repeat("[", 34) + strings.Repeat("]", 34): "nested deeper",
		`"` + strings.Repeat("x", 1000) + `"`:             "larger than",
	} {
		err := Check([]byte(text), 1000)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: got %v, want %q", text, err, want)
		}
	}
}

func TestObject(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                  "",
		`{"a":1,"A":[2]}`:     "",
		`{"a":1,"a":1}`:       "duplicate member",
		`{"b":{"a":1,"a":1}}`: "duplicate member",
		`{"a":1} {}`:          "text after",
		`["a"]`:               "not a JSON object",
		`null`:                "not a JSON object",
		`"a"`:                 "not a JSON object",
		`a=1`:                 "invalid character",
		`{"a":"0123456789abcdefghijklmnopqrstuvwxyz"}`: "larger than 40 bytes",
	} {
		members, err := Object([]byte(text), 40)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
		if err == nil && members == nil {
			t.Errorf("%s: no members", text)
		}
	}
	members, err := Object([]byte(`{"a":1,"A":[2]}`), 40)
	if err != nil || len(members) != 2 || string(members["a"]) != "1" || string(members["A"]) != "[2]" {
		t.Errorf("%s, %v", members, err)
	}
}

func TestMembers(t *testing.T) {
	for raw, want := range map[string]string{
		`{}`: "", `{"a":1,"b":[{"c":1,"c":2}]}`: "", ` {"a":null} `: "",
		`{"a":1,"\u0061":2}`: "duplicate member", `{"a":1,"b":2,"c":3}`: "more than 2 members",
		``: "not a JSON object", `[]`: "not a JSON object", `null`: "not a JSON object", `{"a":1`: "not a JSON object", `{"a"}`: "", `{"a":1}{}`: "text after",
		`{"a":1,}`: "", `{1:2}`: "",
	} {
		members, err := Members([]byte(raw), 2)
		valid := json.Valid([]byte(raw))
		switch {
		case want == "" && valid && err != nil:
			t.Errorf("%s: %v", raw, err)
		case (want != "" || !valid) && (err == nil || !strings.Contains(err.Error(), want) || members != nil):
			t.Errorf("%s: %v, %v; want %q", raw, members, err, want)
		}
	}
}
