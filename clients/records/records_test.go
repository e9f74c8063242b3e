package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// collect returns what a reader hands over, as in `line 1: {}; line 2: {}; line 3: error`.
func collect(entries iter.Seq2[clients.Entry, error]) string {
	var all []string
	for e, err := range entries {
		text := string(e.Record)
		if err != nil {
			text = "error: " + err.Error()
		}
		all = append(all, strings.TrimPrefix(e.Place+": "+text, ": "))
	}
	return strings.Join(all, "; ")
}

// each reads text at once, and byte by byte.
func each(t *testing.T, read func(io.Reader) iter.Seq2[clients.Entry, error], text, want string) {
	t.Helper()
	for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
		if got := collect(read(r)); got != want {
			t.Errorf("%.60q: %.300s\nwant %s", text, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "",
		"\ufeff":                      "",
		" \r\n\n\t":                   "",
		"{}":                          "line 1: {}",
		"{}\n":                        "line 1: {}",
		"\ufeff{}\r\n\r\n  {\"a\":1}": `line 1: {}; line 3: {"a":1}`,
		"{}\n\ufeff{}\n":              "line 1: {}; line 2: {}", // two files, one after the other
		"{}\nnull\n\"a\"\n{\n":        `line 1: {}; line 2: null; line 3: "a"; line 4: {`,
		"{}\n\xff\x00\n{}":            "line 1: {}; line 2: \xff\x00; line 3: {}", // for the sink to refuse
		"\xff\xfe{\x00}\x00":          "error: the text is UTF-16; save it as UTF-8",
		"{}\nnull":                    "line 1: {}; line 2: null", // for the sink to refuse
		"{}\n{]":                      "line 1: {}; line 2: {]",
		"{}\n{\"a\":\"}":              "line 1: {}; line 2: error: the text ends within a record; write the rest",
		"{}\n {\"a\":{}":              "line 1: {}; line 2: error: the text ends within a record; write the rest",
		"{":                           "line 1: error: the text ends within a record; write the rest",
	} {
		each(t, Lines, text, want)
	}
}

// TestLinesOfOtherFormats: what is not JSON Lines but another form of the same records is
// wrong record by record, and the error says how to write it.
func TestLinesOfOtherFormats(t *testing.T) {
	const array, open = "an array instead of a record; write one record in each line, or name the file *.json", "the record does not end with its line; write each record in one line, and nothing after it"
	for text, want := range map[string][]string{
		"[{\"client_id\":\"a\"},\n{},\n]\n":       {array, open, ""},
		"{\n\"client_id\":\"a\"\n}\n":             {open, "", ""},
		"{\"client_id\":\"a\",\n\"claims\":{}}\n": {open, ""},
		"{}{}\nnull\n\"a\"\n{}\n":                 {"", "", "", ""}, // for the sink to refuse
	} {
		var got []string
		for e, err := range Lines(strings.NewReader(text)) {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			wrong := ""
			if e.Wrong != nil {
				wrong = e.Wrong.Error()
			}
			got = append(got, wrong)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q\nwant %q", text, got, want)
		}
	}
}

func TestArray(t *testing.T) {
	const none = `error: it is not a JSON array; write the records as [{"client_id": …}, …], or one in each line of a file named *.jsonl`
	for text, want := range map[string]string{
		" [ ] \n":                   "",
		"\ufeff[{}]":                "line 1: {}",
		"[{},\n{} , {}\n,\n\n{}]\n": "line 1: {}; line 2: {}; line 2, record 2: {}; line 5: {}",
		`[{"a":"]}\"\\",` + "\n\"b\":[{}]},\r\n{}]": `line 1: {"a":"]}\"\\",` + "\n\"b\":[{}]}; line 3: {}",
		`["a", 1,null,[],"]"]`:                      `line 1: "a"; line 1, record 2: 1; line 1, record 3: null; line 1, record 4: []; line 1, record 5: "]"`,
		`[{"a"}]`:                                   `line 1: {"a"}`, // for the sink to refuse
		"":                                          "line 1: " + none,
		"null":                                      "line 1: " + none,
		"\n{}":                                      "line 2: " + none,
		"[":                                         "line 1: error: the array does not end; close it with ]",
		"[\n{}":                                     "line 2: {}; line 2: error: the array does not end; close it with ]",
		"[{},\n{\"a\":":                             "line 1: {}; line 2: error: the array does not end; close it with ]",
		"[{},\n{\"a\":\"b":                          "line 1: {}; line 2: error: the array does not end; close it with ]",
		"[{},\n{\"a\":\"b\\":                        "line 1: {}; line 2: error: the array does not end; close it with ]",
		"[{},\n":                                    "line 1: {}; line 2: error: the array does not end; close it with ]",
		"[{},]":                                     "line 1: {}; line 1: error: ']' instead of a record; remove the comma before it",
		"[,{}]":                                     "line 1: error: ',' instead of a record; remove it",
		"[{}{}]":                                    "line 1: {}; line 1: error: '{' after a record; write a comma between records",
		"[{}] {}":                                   "line 1: {}; line 1: error: '{' after the end of the array; write one array",
		"[{}]\n]":                                   "line 1: {}; line 2: error: ']' after the end of the array; write one array",
		"[{}]\n\x00":                                "line 1: {}; line 2: error: '\\x00' after the end of the array; write one array",
		"[\n{\"a\":[}]":                             "line 2: error: '}' does not close what is open",
		"[\n{\"a\":]\n}]":                           "line 2: error: ']' does not close what is open",
		"[\n}]":                                     "line 2: error: '}' instead of a record; remove it",
		"[{\"a\":\"b\n},{\"c\":\"":                  "line 1: error: a string does not end in its line",
		strings.Repeat("[", 66):                     "line 1: error: values are nested deeper than 64 levels",
		"\xfe\xff\x00[\x00]":                        "error: the text is UTF-16; save it as UTF-8",
	} {
		each(t, JSON, text, want)
	}
}

func TestDetect(t *testing.T) {
	for text, want := range map[string]string{
		"\ufeff\n [{}]":                   "line 2: {}",
		"[]":                              "",
		"\r\n{\"client_id\":\"a\"}\n{}\n": `line 2: {"client_id":"a"}; line 3: {}`,
		"":                                "error: it is empty; write [] if there are no clients",
		"\ufeff \n":                       "error: it is empty; write [] if there are no clients",
		`{"error":"try again later"}`:     `line 1: error: it is neither a JSON array of client records nor JSON Lines; it begins with "{\"error\":\"try again later\"}"`,
		"{\n\"clients\":[{\"client_id\":\"a\"}]}": `line 1: error: it is neither a JSON array of client records nor JSON Lines; it begins with "{\n\"clients\":[{\"client_id\":\"a\"}]}"`,
		"\n<html>":     `line 2: error: it is neither a JSON array of client records nor JSON Lines; it begins with "<html>"`,
		"\x1f\x8b\x08": `line 1: error: it is neither a JSON array of client records nor JSON Lines; it begins with "\x1f\x8b\b"`,
	} {
		if got := collect(Detect(strings.NewReader(text))); got != want {
			t.Errorf("%q: %s\nwant %s", text, got, want)
		}
	}
}

// TestLargeRecord: of a record that is too large, no more is kept than shows that, and
// those after it are read.
func TestLargeRecord(t *testing.T) {
	for _, size := range []int{MaxBytes - 1, MaxBytes, MaxBytes + 1, MaxBytes + 2, bufferBytes - 1, bufferBytes, bufferBytes + 1, 3 * bufferBytes} {
		large := `{"a":"` + strings.Repeat("x", size-len(`{"a":""}`)) + `"}`
		for name, text := range map[string]iter.Seq2[clients.Entry, error]{
			"lines": Lines(strings.NewReader(" " + large + " \n{}")),
			"array": JSON(strings.NewReader("[" + large + ",\n{}]")),
		} {
			var got []string
			for e, err := range text {
				if err != nil || len(e.Record) > MaxBytes+1 || (e.Wrong != nil) != (len(e.Record) > MaxBytes) || !strings.HasPrefix(" "+large, string(e.Record)) && !strings.HasPrefix(large, string(e.Record)) && string(e.Record) != "{}" {
					t.Errorf("%s: %d bytes, %v", name, len(e.Record), err)
				}
				got = append(got, fmt.Sprint(e.Place, " ", len(e.Record)))
			}
			if want := fmt.Sprintf("line 1 %d; line 2 2", min(size, MaxBytes+1)); strings.Join(got, "; ") != want {
				t.Errorf("%s of %d bytes: %s", name, size, got)
			}
		}
	}
}

// endless is text that never ends. It counts what has been read.
type endless struct {
	char byte
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.char
	}
	e.read += len(p)
	return len(p), nil
}

// TestHole: a file that a crash or a tool has left full of zeros is not read to its end.
func TestHole(t *testing.T) {
	for _, start := range []string{"", "{}\n", "[{},\n", "{}\n{\"a\":\"", "[{},\n{\"a\":\""} {
		zeros := new(endless)
		text := io.MultiReader(strings.NewReader(start), zeros)
		read := Lines
		if strings.HasPrefix(start, "[") {
			read = JSON
		}
		if got := collect(read(text)); !strings.Contains(got, "error: it is not text") || zeros.read > 4*bufferBytes {
			t.Errorf("%q: %.100q after %d bytes", start, got, zeros.read)
		}
	}
}

// TestReadError: an error of the reader is handed on, with the place.
func TestReadError(t *testing.T) {
	broken := errors.New("disk on fire")
	for start, want := range map[string]string{
		"{}\n{}\n{":  "line 1: {}; line 2: {}; line 3: error: disk on fire",
		"[{},\n{}":   "line 1: {}; line 2: {}; line 2: error: disk on fire",
		"[{},\n{\"a": "line 1: {}; line 2: error: disk on fire",
		"[{}\n]":     "line 1: {}; line 2: error: disk on fire",
	} {
		read := Lines
		if strings.HasPrefix(start, "[") {
			read = JSON
		}
		if got := collect(read(io.MultiReader(strings.NewReader(start), iotest.ErrReader(broken)))); got != want {
			t.Errorf("%q: %s", start, got)
		}
		if got := collect(read(iotest.ErrReader(broken))); got != "error: disk on fire" {
			t.Error(got)
		}
	}
}

// TestLongLineIsNotCutToARecord: the start of a line that is too large does not pass for
// the whole of it.
func TestLongLineIsNotCutToARecord(t *testing.T) {
	for e := range Lines(strings.NewReader("{}" + strings.Repeat(" ", 3*bufferBytes) + "{}")) {
		if len(e.Record) != MaxBytes+1 || e.Wrong == nil {
			t.Errorf("%d bytes: %.10q", len(e.Record), e.Record)
		}
	}
}

func TestStopEarly(t *testing.T) {
	for name, entries := range map[string]iter.Seq2[clients.Entry, error]{
		"lines": Lines(strings.NewReader("{}\n{}")), "array": JSON(strings.NewReader("[{},{}")),
	} {
		count := 0
		for range entries {
			count++
			break
		}
		if count != 1 {
			t.Errorf("%s: %d", name, count)
		}
	}
}

// TestMemory: how much is read has no influence on the memory that it takes, but for the
// places, one short string for each record.
func TestMemory(t *testing.T) {
	lines := bytes.Repeat([]byte(`{"client_id":"a","client_name":"Client A"}`+"\n"), 10_000)
	allocations := testing.AllocsPerRun(1, func() {
		for range Lines(bytes.NewReader(lines)) {
		}
	})
	if allocations > 10_100 {
		t.Errorf("%.0f allocations for 10,000 records", allocations)
	}
}

// FuzzJSON: an array that encoding/json reads is read in the same way, and text that it
// does not read is not taken for another array.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`[]`, ` [ {"client_id":"a"} , {"client_id":"b","claims":{"x":[1,"]"]}}]`, `["a",1,null,true,-1e5]`,
		"[{\"a\":\"\\\"\\\\\"},\r\n{}]\n", `[{},]`, `[{}`, `[{}]]`, `[{"a":[}]}`, `[[[]]]`, "\ufeff[{}]", "[{\"a\":\"\n\"}]", "[\x00]", "[\xff]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		var got []json.RawMessage
		var failure error
		wrong := false // for the sink to refuse
		for e, err := range JSON(bytes.NewReader(content)) {
			failure = err
			if err == nil {
				got = append(got, bytes.Clone(e.Record))
				wrong = wrong || !json.Valid(e.Record)
			}
		}
		var want []json.RawMessage
		plain := bytes.TrimPrefix(content, byteOrderMark)
		if err := json.Unmarshal(plain, &want); err != nil || want == nil {
			if failure == nil && !wrong {
				t.Fatalf("%q is read, and is not an array: %v", content, err)
			}
			return
		}
		if failure != nil {
			if strings.Contains(failure.Error(), "nested deeper") {
				return
			}
			t.Fatalf("%q is an array: %v", content, failure)
		}
		if len(got) != len(want) {
			t.Fatalf("%d records, want %d", len(got), len(want))
		}
		for i := range got {
			if len(want[i]) <= MaxBytes && !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%q, want %q", got[i], want[i])
			}
		}
	})
}

// FuzzLines: each line that is not blank is a record, with the number of the line.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{}\n{}"))
	f.Add([]byte("\ufeff{}\r\n\r\n \t{\"client_id\":\"a\"}\n"))
	f.Add([]byte("{}\n\ufeff\n\x00\n\xff\xff"))
	f.Add([]byte("{\n{"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if bytes.HasPrefix(content, []byte{0xff, 0xfe}) || bytes.HasPrefix(content, []byte{0xfe, 0xff}) {
			return
		}
		var want []string
		lines := strings.Split(strings.TrimPrefix(string(content), "\ufeff"), "\n")
		for i, line := range lines {
			line = strings.Trim(strings.TrimPrefix(line, "\ufeff"), blanks)
			switch {
			case i == len(lines)-1 && record(line).isCut():
				want = append(want, fmt.Sprintf("line %d: error: %s", i+1, errCut))
			case line != "":
				want = append(want, fmt.Sprintf("line %d: %s", i+1, line[:min(len(line), MaxBytes+1)]))
			}
		}
		if got := collect(Lines(iotest.HalfReader(bytes.NewReader(content)))); got != strings.Join(want, "; ") && !strings.Contains(got, errBinary.Error()) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// BenchmarkLines and BenchmarkJSON read a million records.
func BenchmarkLines(b *testing.B) { benchmark(b, Lines, "", "\n", "\n") }
func BenchmarkJSON(b *testing.B)  { benchmark(b, JSON, "[", ",\n", "]") }

func benchmark(b *testing.B, read func(io.Reader) iter.Seq2[clients.Entry, error], start, separator, end string) {
	record := `{"client_id":"client-123456","client_name":"Client 123456","scope":"api1 api6","x509_thumbprints":"` +
		strings.Repeat("0123456789abcdef", 4) + `","tls_client_auth_san_dns":["client-123456.partners.example"],"claims":{"tenant":"t123456"}}`
	text := []byte(start + strings.Repeat(record+separator, 999_999) + record + end)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		count := 0
		for _, err := range read(bytes.NewReader(text)) {
			if err != nil {
				b.Fatal(err)
			}
			count++
		}
		if count != 1_000_000 {
			b.Fatal(count)
		}
	}
	b.ReportMetric(1e6*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
