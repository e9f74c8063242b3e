package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseRecords(t *testing.T) {
	pin := `"x509_thumbprints":"` + sha256Hex + `"`
	records, err := parseRecords([]byte("[\n{\"client_id\":\"a\"," + pin + "},\n{\"client_id\":\"b\"," + pin + "}\n]\n"))
	if err != nil || len(records) != 2 || records[0].ClientID != "a" || records[1].ClientID != "b" {
		t.Errorf("%v, %v", records, err)
	}
	if records, err := parseRecords([]byte("\ufeff[{\"client_id\":\"a\"," + pin + "}]")); err != nil || len(records) != 1 {
		t.Errorf("after a byte order mark: %v, %v", records, err)
	}
	if records, err := parseRecords([]byte(" [ ] ")); err != nil || records == nil || len(records) != 0 {
		t.Errorf("%v, %v", records, err)
	}
	// the limit of a record does not apply to the file
	large := `{"client_id":"a","client_name":"` + strings.Repeat("x", maxRecordBytes-1000) + `"}`
	if _, err := parseRecords([]byte("[" + large + "," + large + "]")); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"":                                     "not a JSON array",
		"null":                                 "not a JSON array",
		`{"client_id":"a"}`:                    "not a JSON array",
		`{"clients":[]}`:                       "not a JSON array",
		"client a":                             "not a JSON array",
		"[\n{}":                                "after record 1: ",
		"[{}] {}":                              "text after the array",
		"[{}]]":                                "text after the array",
		"[{},]":                                "record 2, at or after line 1",
		"[\n{},\n{\"x\":1}]":                   `record 2, at or after line 3: client record: unknown member "x"`,
		"[\n{\"Disabled\":true}]":              `unknown member "Disabled"`,
		`[{"disabled":true,"disabled":false}]`: `duplicate member "disabled"`,
		`["a"]`:                                "record 1",
		`[{"client_name":"` + strings.Repeat("x", maxRecordBytes) + `"}]`: "larger than 65536 bytes",
	} {
		if records, err := parseRecords([]byte(text)); err == nil || records != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50q: %v, want %q", text, err, want)
		}
	}
}

// FuzzParseRecords: a record in a file is read like a record alone.
func FuzzParseRecords(f *testing.F) {
	f.Add([]byte(`[{"client_id":"a","x509_thumbprints":"` + sha256Hex + `"},{"client_id":"b","jwks_uri":"https://a.example/"}]`))
	f.Add([]byte(`[{"client_id":"a","jwks":{"keys":[]}}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"disabled":true,"Disabled":false}]`))
	f.Fuzz(func(t *testing.T, content []byte) {
		records, err := parseRecords(content)
		if err != nil {
			if records != nil || len(err.Error()) > 4*maxRecordBytes {
				t.Errorf("%d records, %v", len(records), err)
			}
			return
		}
		for _, record := range records {
			// must not panic, and must not open files that the fuzzer names
			record.CertificateFiles, record.JWKSFile = nil, ""
			if client, _, err := makeClient(record); err == nil && (client.ID == "" || len(client.Credentials) == 0) {
				t.Errorf("client %+v", client)
			}
		}
	})
}

func TestFileSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "partners.json")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	write := func(text string) {
		t.Helper()
		now = now.Add(time.Second)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	source := NewFileSource(path)
	load := func(want string) {
		t.Helper()
		records, changed, err := source.Load(now)
		got := fmt.Sprint(len(records), changed, err)
		if !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if source.Name() != "file:"+path {
		t.Error(source.Name())
	}
	load("0 false stat ")
	write(`[{"client_id":"a"}]`)
	load("1 true <nil>")
	load("0 false <nil>")
	write(`[{"client_id":`)
	load("0 true record 1")
	load("0 false record 1") // as long as it is broken
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	load("0 false stat ")
	write(`[]`)
	load("0 true <nil>")
	load("0 false <nil>")
}
