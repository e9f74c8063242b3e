package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
)

// slowRecord reads a record with encoding/json, which takes several passes.
func slowRecord(raw []byte) (*Record, error) {
	members, err := strictjson.Object(raw, MaxRecordBytes)
	if err != nil {
		return nil, err
	}
	for name := range members {
		if !slices.Contains(recordMembers, name) {
			return nil, fmt.Errorf("unknown member %q", name)
		}
	}
	type plain Record // without UnmarshalJSON
	record := new(plain)
	if err := json.Unmarshal(raw, record); err != nil {
		return nil, err
	}
	return (*Record)(record), nil
}

var badEscape = regexp.MustCompile(`(?i)\\u(0000|d[89a-f])`)

// checkReader compares what a record is read as with what encoding/json reads. Only
// strings that encoding/json would change are another matter.
func checkReader(t *testing.T, raw []byte) {
	t.Helper()
	got := new(Record)
	err := got.UnmarshalJSON(raw)
	if errors.Is(err, strictjson.ErrCharacter) {
		if utf8.Valid(raw) && !badEscape.Match(raw) {
			t.Fatalf("%q is refused: %v", raw, err)
		}
		return
	}
	want, wantErr := slowRecord(raw)
	switch {
	case (err == nil) != (wantErr == nil):
		t.Fatalf("%q: error %v, want %v", raw, err, wantErr)
	case err != nil:
		return
	case !reflect.DeepEqual(got, want):
		t.Fatalf("%q is read as\n%+v, want\n%+v", raw, got, want)
	case !utf8.Valid(raw):
		t.Fatalf("%q is not UTF-8", raw)
	}
	replaced := bytes.Count(raw, []byte("\uFFFD")) + strings.Count(strings.ToLower(string(raw)), `\ufffd`)
	for dec := json.NewDecoder(bytes.NewReader(raw)); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		text, _ := token.(string)
		if replaced -= strings.Count(text, "\uFFFD"); strings.Contains(text, "\x00") || replaced < 0 {
			t.Fatalf("%q has the string %q", raw, text)
		}
	}
	compact := strictjson.Compact(string(raw))
	again := new(Record)
	if err := again.UnmarshalJSON([]byte(compact)); err != nil || !strictjson.SameCompact(raw, compact) || len(raw) != len(compact) && bytes.Equal(raw, []byte(compact)) {
		t.Fatalf("%q is %q without white space: %v", raw, compact, err)
	}
	if compact == string(raw) && !reflect.DeepEqual(got, again) {
		t.Fatalf("%q is not read the same twice", raw)
	}
}

// recordSeeds are records to begin with, each with one peculiarity.
var recordSeeds = []string{
	`{"client_id":"a","tls_client_auth_subject_dn":["CN=a"],"disabled":true}`,
	`{"disabled":true,"Disabled":false}`, `{"claims":{"a":{"a":1}}}`, `{"token_lifetime":"1h"}`, `{"token_lifetime":60000000000}`,
	`{"tls_client_auth_subject_dn":null}`, `{"resources":"urn:a","introspect":["urn:a","urn:a"]}`, "{\"client_id\":\"\xff\"}", `null`, `[]`, `{"x509_thumbprints":"\u0000"}`,
	`{"client_id":"\ud83d\ude00"}`, `{"client_id":"\ud83d"}`, `{"client_id":"\ude00\ud83d"}`, `{"client_id":"\ud83d\u0041"}`, `{"client_name":"\\u0000 \\ud800"}`,
	`{"claims":{"a":[1,-0,0.5e+7,1E400,-,01]}}`, `{"claims":{"a":[1,-0,0.5e+7,1E400,true,false,null,"\"\\\/\b\f\n\r\t"]}}`, "{\"client_id\":\"a\nb\"}",
	`{"client_id":null,"scope":null,"disabled":null,"claims":null,"jwks":null,"token_lifetime":null,"tls_client_certificate_bound_access_tokens":null}`,
	`{"tls_client_certificate_bound_access_tokens":false,"jwks":{ "keys" : [ ] },"require_chain":1}`, `{"client_id":"a","client\u005fid":"b"}`,
	`{"claims":{"x":` + strings.Repeat("[", 30) + "1" + strings.Repeat("]", 30) + `}}`, `{"claims":{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}}`,
	`{"claims":{"x":` + strings.Repeat("[", 31) + "1" + strings.Repeat("]", 31) + `}}`, " \t\r\n{ \"client_id\" : \"a b\\\" \" , \"contacts\" : [ \"x\" , \"y\" ] } ",
	`{"client_id":"a"} {}`, `{"client_id":"a",}`, `{"client_id" "a"}`, `{,}`, `{"contacts":["a",]}`, `{"contacts":[,"a"]}`, `{"contacts":["a" "b"]}`, `{"client_id":tru}`, `{"disabled":trueX}`, "\ufeff{}", `{`, ``,
	`{"claims":{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"10":1,"11":1,"12":1,"13":1,"14":1,"15":1,"16":1,"17":1,"18":1,"16":1}}`,
	`{"claims":{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"10":1,"11":1,"12":1,"13":1,"14":1,"15":1,"16":1,"17":1,"18":1,"19":{"1":1}}}`,
}

func TestRecordReader(t *testing.T) {
	for _, seed := range recordSeeds {
		checkReader(t, []byte(seed))
	}
	for _, test := range []struct{ record, want string }{
		{`{"client_id":"a\u0000"}`, "client record: client_id: invalid character in a string: it contains NUL"},
		{`{"client_id":"\uD83D"}`, `it contains \ud83d, which is half of a surrogate pair`},
		{"{\"client_id\":\"\xc3\"}", "it is not UTF-8"},
		{"{\"client_id\":\"\\n\xc3\"}", "it is not UTF-8"},
		{"{\"claims\":{\"\xff\":1}}", "it is not UTF-8"},
		{`{"claims":{"a":["\u0000"]}}`, "it contains NUL"},
		{`{"client_id":7}`, "client record: client_id: 7 is not a string"},
		{`{"disabled":"yes"}`, `client record: disabled: "yes" is not true or false`},
		{`{"client_id":"a","disabled":"yes"}`, `client 'a': client record: disabled: "yes" is not true or false`},
		{`{"disabled":"yes","client_id":"a"}`, `client 'a': client record: disabled: "yes" is not true or false`},
		{`{"jwks_uri":["https://a.example/?token=secret"]}`, "jwks_uri: an array is not a string"},
		{`{"jwks_uri":{"url":"https://a.example/?token=secret"}}`, "jwks_uri: an object is not a string"},
		{`{"contacts":["a",7]}`, "contacts: 7 is not a string"},
		{`{"claims":7}`, "claims: not a JSON object"},
		{`{"client_id":"a"`, "unexpected EOF"},
		{`{"client_id":"a";}`, "invalid character ';' at byte 17"},
		{`{"client_name":"` + strings.Repeat("a", MaxRecordBytes) + `"}`, "client record: larger than 65536 bytes"},
	} {
		err := new(Record).UnmarshalJSON([]byte(test.record))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.60q: error %v, want %q", test.record, err, test.want)
		}
	}
}

// TestEveryMemberIsRead: no member of a record is forgotten by its reader.
func TestEveryMemberIsRead(t *testing.T) {
	for _, name := range recordMembers {
		if recordFields[name] == nil {
			t.Errorf("%s is not read", name)
			continue
		}
		read := false
		for _, value := range []string{`"1h"`, `true`, `{"a":1}`} {
			record := new(Record)
			raw := []byte(`{"` + name + `":` + value + `}`)
			checkReader(t, raw)
			read = read || record.UnmarshalJSON(raw) == nil && !reflect.DeepEqual(record, new(Record))
		}
		if !read {
			t.Errorf("%s has no effect on the record", name)
		}
	}
	if len(recordFields) != len(recordMembers) {
		t.Errorf("%d members are read, a record has %d", len(recordFields), len(recordMembers))
	}
}

// FuzzRecordReader compares the reader with encoding/json.
func FuzzRecordReader(f *testing.F) {
	for _, seed := range recordSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(checkReader)
}

func BenchmarkReadRecord(b *testing.B) {
	text := benchRecord(7)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := readRecord(text, new(Record)); err != nil {
			b.Fatal(err)
		}
	}
}

// benchRecord is a record as a platform has them, with two credentials.
func benchRecord(i int) string {
	return fmt.Sprintf(`{"client_id":"partner-%07d","client_name":"Partner %d","scope":"api1 telemetry","tls_client_auth_subject_dn":"CN=partner-%07d,OU=production,O=company","x509_thumbprints":"%064x","claims":{"tenant":"t%d"}}`, i, i, i, i+1, i)
}
