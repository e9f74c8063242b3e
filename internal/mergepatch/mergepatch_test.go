package mergepatch

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const maxBytes = 1 << 10

// TestMergePatchVectors checks the example of RFC 7396 §3 and the test cases of its
// appendix A.
func TestMergePatchVectors(t *testing.T) {
	for _, tc := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{
			`{"title":"Goodbye!","author":{"givenName":"John","familyName":"Doe"},"tags":["example","sample"],"content":"This will be unchanged"}`,
			`{"title":"Hello!","phoneNumber":"+01-123-456-7890","author":{"familyName":null},"tags":["example"]}`,
			`{"author":{"givenName":"John"},"content":"This will be unchanged","phoneNumber":"+01-123-456-7890","tags":["example"],"title":"Hello!"}`,
		},

		// not in the RFC
		{`{"a":{"x":1}}`, ` { "a" : { } } `, `{"a":{"x":1}}`},
		{`{"a":1}`, `{"A":null}`, `{"a":1}`},
		{`{"a":1}`, `{"\u0061":null}`, `{}`},
		{`{"n":12345678901234567890.10}`, `{"m":1e400}`, `{"m":1e400,"n":12345678901234567890.10}`},
		{`{"a":"<&\u003e\u00e9"}`, `{}`, `{"a":"<&>é"}`},
		{`{"a":[null]}`, `{"b":[null,{"c":null}]}`, `{"a":[null],"b":[null,{"c":null}]}`},
	} {
		got, err := Apply([]byte(tc[0]), []byte(tc[1]), maxBytes)
		if err != nil || string(got) != tc[2] {
			t.Errorf("%s with %s is %s, %v; want %s", tc[0], tc[1], got, err, tc[2])
		}
	}
	if got, err := Apply(nil, []byte(`{"a":{"b":null,"c":1},"d":null}`), maxBytes); err != nil || string(got) != `{"a":{"c":1}}` {
		t.Errorf("what does not exist becomes %s, %v", got, err)
	}
}

func TestMergePatchErrors(t *testing.T) {
	for patch, want := range map[string]string{
		`{"a":1,"a":null}`:              `duplicate member "a"`,
		`{"a":{"b":1,"\u0062":2}}`:      `duplicate member "b"`,
		``:                              "EOF",
		`{"a":1} {}`:                    "text after the JSON value",
		`{"a":`:                         "EOF",
		`a=1`:                           "invalid character",
		strings.Repeat(`{"a":`, 40):     "nested deeper",
		strings.Repeat(" ", maxBytes+1): "larger than 1024 bytes",
	} {
		if got, err := Apply([]byte(`{}`), []byte(patch), maxBytes); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %s, %v; want %q", patch, got, err, want)
		}
	}
	if _, err := Apply([]byte(`{"a":1,"a":2}`), []byte(`{}`), maxBytes); err == nil || !strings.Contains(err.Error(), "what the patch is for: duplicate member") {
		t.Error(err)
	}
}

func TestCanonical(t *testing.T) {
	for _, same := range [][]string{
		{`{"a":1,"b":[true,null]}`, ` { "b" : [ true , null ], "\u0061":1 } `},
		{`{"a":{"c":"é/<","d":2}}`, `{"a":{"d":2,"c":"\u00e9\/\u003c"}}`},
	} {
		for _, text := range same {
			if got, err := Canonical([]byte(text)); err != nil || string(got) != same[0] {
				t.Errorf("%s is %s, %v", text, got, err)
			}
		}
	}
}

// reference is the pseudocode of RFC 7396 §2, on decoded values.
func reference(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	members, ok := target.(map[string]any)
	if !ok {
		members = make(map[string]any)
	}
	for name, value := range changes {
		if value == nil {
			delete(members, name)
		} else {
			members[name] = reference(members[name], value)
		}
	}
	return members
}

func decode(t *testing.T, text []byte) (value any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return value
}

// FuzzMergePatch checks that patching does what the pseudocode of the RFC does, and
// that patching twice is patching once.
func FuzzMergePatch(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"a":"b"}`, `{"a":null}`}, {`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`}, {`[1]`, `{"a":{"bb":{"ccc":null}}}`},
		{`{"claims":{"a":1}}`, `{"claims":{"a":null,"b":[1,{"c":null}]}}`}, {`{"a":"\ud800"}`, `{"\ud800":1}`}, {`{"a":1,"a":2}`, `{}`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, target, patch []byte) {
		got, err := Apply(target, patch, maxBytes)
		if err != nil {
			return
		}
		if want := reference(decode(t, target), decode(t, patch)); !reflect.DeepEqual(decode(t, got), want) {
			t.Errorf("%s with %s is %s, want %v", target, patch, got, want)
		}
		if again, err := Canonical(got); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s is not canonical: %s, %v", got, again, err)
		}
		twice, err := Apply(got, patch, 8*maxBytes)
		if err != nil || !bytes.Equal(twice, got) {
			t.Errorf("%s with %s twice is %s, %v", target, patch, twice, err)
		}
	})
}
