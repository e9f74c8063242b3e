package filesource

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// collect returns what a reader hands over, as in `line 1: {}; line 2: wrong: …; error: …`.
func collect(entries iter.Seq2[clients.Entry, error]) string {
	var all []string
	for e, err := range entries {
		text := string(e.Record)
		switch {
		case err != nil:
			text = "error: " + err.Error()
		case e.Wrong != nil:
			text = strings.TrimPrefix(e.ID+" wrong: "+e.Wrong.Error(), " ")
		}
		all = append(all, strings.TrimPrefix(e.Place+": "+text, ": "))
	}
	return strings.Join(all, "; ")
}

func TestYAML(t *testing.T) {
	const quotes = "is not a value of JSON; put it in quotes if it is a string"
	for text, want := range map[string]string{
		"":                     "error: it has no record; write [] into a file if there are no clients",
		"# nobody\n":           "error: it has no record; write [] into a file if there are no clients",
		"---\n# a\n---\n---\n": "error: it has no record; write [] into a file if there are no clients",
		"[]":                   "",
		"- client_id: a\n  san: [x, \"y\"]\n- client_id: b\n":         `line 1: {"client_id":"a","san":["x","y"]}; line 3: {"client_id":"b"}`,
		"\ufeffclient_id: a\r\nscope: api1 api2\r\n":                  `line 1: {"client_id":"a","scope":"api1 api2"}`,
		"---\n- client_id: a\n---\nclient_id: b\n...\n---\n# end\n":   `line 2: {"client_id":"a"}; line 4: {"client_id":"b"}`,
		"a: >\n  one\n  two\nb: |-\n  <&>\n  é":                       `line 1: {"a":"one two\n","b":"<&>\né"}`,
		"{\"a\": \"\\u00e9\\\"\", 'b': 'it''s', c: -1.5e3, d: 0}":     `line 1: {"a":"é\"","b":"it's","c":-1.5e3,"d":0}`,
		"a: true\nb: false\nc: null\nd: []\ne: {}\nf: \"\"\ng: '012'": `line 1: {"a":true,"b":false,"c":null,"d":[],"e":{},"f":"","g":"012"}`,
		"a: 12:34:ab":                      `line 1: {"a":"12:34:ab"}`,
		"a: 0x until 2027-01-01T00:00:00Z": `line 1: {"a":"0x until 2027-01-01T00:00:00Z"}`,
		"- a: 012":                         `line 1: wrong: "012" ` + quotes,
		"- a: 1_000":                       `line 1: wrong: "1_000" ` + quotes,
		"- a: 0x1f":                        `line 1: wrong: "0x1f" ` + quotes,
		"- a: .inf":                        `line 1: wrong: ".inf" ` + quotes,
		"- a: +1":                          `line 1: wrong: "+1" ` + quotes,
		"- a: True":                        `line 1: wrong: "True" ` + quotes,
		"- a: 2027-01-01":                  `line 1: wrong: "2027-01-01" ` + quotes,
		"- a: No":                          `line 1: wrong: "No" is a string or a truth value; write true or false, or put it in quotes`,
		"- a: 'no'":                        `line 1: {"a":"no"}`,
		"- a: ~":                           `line 1: wrong: a member or item has no value; give it one, such as "", or remove it`,
		"- client_id: a\n  b:\n- {}":       `line 1: a wrong: line 2: a member or item has no value; give it one, such as "", or remove it; line 3: {}`,
		"- client_id: a\n  b: 1\n  b: 2":   `line 1: a wrong: line 3: duplicate member "b"; keep one`,
		"- client_id: a\n  client_id: b":   `line 1: wrong: line 2: duplicate member "client_id"; keep one`,
		"- 1: a":                           `line 1: wrong: member "1" is not a string; put it in quotes`,
		"- null: a":                        `line 1: wrong: member "null" is not a string; put it in quotes`,
		"- ? [a]\n  : b":                   `line 1: wrong: member "" is not a string; put it in quotes`,
		"- &x {a: b}\n- *x\n- <<: {a: b}":  `line 1: wrong: an anchor or alias; write the value itself; line 2: wrong: an anchor or alias; write the value itself; line 3: wrong: member "<<" is not a string; put it in quotes`,
		"- a: &x b":                        `line 1: wrong: an anchor or alias; write the value itself`,
		"- a: !!str 5":                     `line 1: wrong: a tag !!str; remove it`,
		"- !x {a: b}":                      `line 1: wrong: a tag !x; remove it`,
		"- !!binary aGk=":                  `line 1: wrong: a tag !!binary; remove it`,
		"- a\n- 5\n- null":                 `line 1: "a"; line 2: 5; line 3: null`, // for the sink to refuse
		"- {}\n---\n&x [{}]":               `line 1: {}; line 3: error: an anchor or alias; write the value itself`,
		"- {}\n---\ntext":                  `line 1: {}; line 3: error: the document is neither a list of records nor a record; write the records as "- client_id: …"`,
		"~":                                `line 1: error: the document is neither a list of records nor a record; write the records as "- client_id: …"`,
		"- a: [1":                          `line 1: error: did not find expected ',' or ']'`,
		"- {}\n- \tb: c":                   `line 2: error: found character that cannot start any token`,
		"a: \"\\ud800\"":                   `error: found invalid Unicode character escape code`,
		"a: b\n\x00":                       `error: control characters are not allowed`,
		"a: \xff":                          `error: invalid leading UTF-8 octet`,
		"- a: " + strings.Repeat("[", 40) + strings.Repeat("]", 40): `line 1: wrong: values are nested deeper than 32 levels`,
	} {
		if got := collect(yamlRecords(strings.NewReader(text))); got != want {
			t.Errorf("%.60q: %s\nwant %s", text, got, want)
		}
	}
}

// TestYAMLBombs: what grows when it is read is refused, and costs little.
func TestYAMLBombs(t *testing.T) {
	bomb := "- &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'z'; c++ {
		bomb += fmt.Sprintf("- &%c [%s]\n", c, strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 9), ","))
	}
	if got := collect(yamlRecords(strings.NewReader(bomb))); len(got) > 10_000 || strings.Count(got, "anchor or alias") != 25 {
		t.Errorf("%.200s", got)
	}
	for _, deep := range []string{"[", "{a: ", "- ", "? "} {
		if got := collect(yamlRecords(strings.NewReader(strings.Repeat(deep, 1<<20)))); !strings.Contains(got, "error") && !strings.Contains(got, "wrong") {
			t.Errorf("%s: %.200s", deep, got)
		}
	}
	if got := collect(yamlRecords(io.LimitReader(neverEnding('#'), 1<<40))); !strings.Contains(got, "at most 8388608 bytes; write many clients as JSON Lines") {
		t.Errorf("%.200s", got)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

// FuzzYAML: a record is JSON, and JSON that is YAML is the same record.
func FuzzYAML(f *testing.F) {
	for _, seed := range []string{
		"- client_id: a\n  scope: api1\n", "---\nclient_id: a\n---\n- b: [1, true, null, \"x\"]\n", `[{"client_id":"a","claims":{"x":[1,{}]}}]`,
		"- &a [*a]", "- a: !!str 5", "- 1: 2", "- a: 2027-01-01", "- {a: b, a: c}", "a: |\n  x\n", "a: \"\\x41\\n\"", "? a\n: b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var records []string
		for e, err := range yamlRecords(strings.NewReader(text)) {
			if err != nil {
				return
			}
			if e.Wrong != nil {
				records = append(records, "")
				continue
			}
			if !json.Valid(e.Record) || e.Place == "" {
				t.Fatalf("%q: %q at %q", text, e.Record, e.Place)
			}
			again := collect(yamlRecords(strings.NewReader("[" + string(e.Record) + "]")))
			if again != "line 1: "+string(e.Record) {
				t.Fatalf("%q becomes %s", e.Record, again)
			}
			records = append(records, string(e.Record))
		}
	})
}
