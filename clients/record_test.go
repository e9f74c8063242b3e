package clients

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestRecordMembers(t *testing.T) {
	for _, test := range []struct{ name, record, wantErr string }{
		{"complete", `{"client_id":"a","client_name":"A","scope":"x y","default_scope":"x","resources":["urn:a","urn:b"],"introspect":"urn:c","tls_client_auth_subject_dn":"CN=a","x509_thumbprints":["aa"],
			"x509_certificate_files":"a.pem","issued_by":["b"],"require_chain":true,"shared_credential":true,"claims":{"n":1,"o":{"p":[true]}},
			"token_lifetime":"5m","disabled":false,"grant_types":["client_credentials"],"token_endpoint_auth_method":"tls_client_auth",
			"tls_client_certificate_bound_access_tokens":true,"client_uri":"https://a.example","contacts":["a@a.example"],"software_id":"s"}`, ""},
		{"unknown", `{"client_id":"a","tls_client_auth_subjekt_dn":"CN=a"}`, `unknown member "tls_client_auth_subjekt_dn"`},
		{"other case", `{"client_id":"a","disabled":true,"Disabled":false}`, `unknown member "Disabled"`},
		{"duplicate", `{"client_id":"a","disabled":true,"disabled":false}`, `duplicate member "disabled"`},
		{"duplicate in a claim", `{"client_id":"a","claims":{"x":{"y":1,"y":2}}}`, `duplicate member "y"`},
		{"duplicate by escape", `{"client_id":"a","disabled":true,"d\u0069sabled":false}`, `duplicate member "disabled"`},
		{"two values", `{"client_id":"a"} {}`, "invalid character"},
		{"null credential", `{"client_id":"a","x509_thumbprints":null}`, "neither a string nor an array"},
		{"null in an array", `{"client_id":"a","x509_thumbprints":[null]}`, "null in an array"},
		{"number for a credential", `{"client_id":"a","x509_thumbprints":12}`, "neither a string nor an array"},
		{"null resources", `{"client_id":"a","resources":null}`, "neither a string nor an array"},
		{"no resources", `{"client_id":"a","resources":[]}`, "an empty array"},
		{"null that may introspect", `{"client_id":"a","introspect":[null]}`, "null in an array"},
		{"array", `["a"]`, "not a JSON object"},
		{"deep", `{"client_id":"a","claims":{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`, "nested deeper"},
		{"long", `{"client_id":"` + strings.Repeat("a", MaxRecordBytes) + `"}`, "larger than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var record Record
			err := json.Unmarshal([]byte(test.record), &record)
			if test.wantErr == "" && err != nil {
				t.Fatal(err)
			}
			if test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Fatalf("error %v, want %q", err, test.wantErr)
			}
		})
	}
}

// encoding/json checks syntax before it calls UnmarshalJSON, so text after the
// value reaches that only when it is called by itself.
func TestRecordWithTrailingText(t *testing.T) {
	if err := new(Record).UnmarshalJSON([]byte(`{} {}`)); err == nil || !strings.Contains(err.Error(), "after the JSON value") {
		t.Fatal(err)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	text := `{"client_id":"a","tls_client_auth_subject_dn":"CN=a","x509_thumbprints":["aa","bb"],"claims":{"n":12345678901234567890}}`
	var record, again Record
	if err := json.Unmarshal([]byte(text), &record); err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	if string(encoded) != text {
		t.Fatalf("got  %s\nwant %s", encoded, text)
	}
	if err := json.Unmarshal(encoded, &again); err != nil || !reflect.DeepEqual(record, again) {
		t.Fatalf("%v: %#v", err, again)
	}
}

func TestExpandTouchesOnlyValues(t *testing.T) {
	record := Record{
		ClientID: "a", SubjectDN: Strings{"CN=$"}, Thumbprints: Strings{"$"}, CertificateFiles: Strings{"$"}, IssuedBy: Strings{"$"}, Scope: "$", Resources: Strings{"$"}, Introspect: Strings{"urn:$"},
		Claims: map[string]json.RawMessage{"text": []byte(`"$"`), "number": []byte("1")},
	}
	expanded, err := record.Expand(func(s string) (string, error) { return strings.ReplaceAll(s, "$", "x"), nil })
	if err != nil {
		t.Fatal(err)
	}
	want := Record{
		ClientID: "a", SubjectDN: Strings{"CN=x"}, Thumbprints: Strings{"x"}, CertificateFiles: Strings{"x"}, IssuedBy: Strings{"x"}, Scope: "$", Resources: Strings{"x"}, Introspect: Strings{"urn:x"},
		Claims: map[string]json.RawMessage{"text": []byte(`"x"`), "number": []byte("1")},
	}
	if !reflect.DeepEqual(expanded, want) {
		t.Fatalf("got %#v", expanded)
	}
	if record.SubjectDN[0] != "CN=$" || string(record.Claims["text"]) != `"$"` {
		t.Fatal("the original was changed")
	}
	unset := errors.New("evaluates to empty")
	_, err = record.Expand(func(string) (string, error) { return "", unset })
	if !errors.Is(err, unset) || !strings.Contains(err.Error(), "client 'a': subject 'CN=$'") {
		t.Fatal(err)
	}
}

// FuzzRecord looks for JSON in which a member vanishes: whatever is accepted
// has only known members, each once, and means the same when written again.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{
		`{"client_id":"a","tls_client_auth_subject_dn":["CN=a"],"disabled":true}`,
		`{"disabled":true,"Disabled":false}`, `{"claims":{"a":{"a":1}}}`, `{"token_lifetime":"1h"}`, `{"token_lifetime":60000000000}`,
		`{"tls_client_auth_subject_dn":null}`, `{"resources":"urn:a","introspect":["urn:a","urn:a"]}`, "{\"client_id\":\"\xff\"}", `null`, `[]`, `{"x509_thumbprints":"\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var record Record
		if json.Unmarshal(raw, &record) != nil {
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(raw, &members); err != nil {
			t.Fatalf("accepted what is no object: %q", raw)
		}
		for name := range members {
			if !slices.Contains(recordMembers, name) {
				t.Fatalf("accepted member %q", name)
			}
		}
		encoded, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		var again Record
		if err := json.Unmarshal(encoded, &again); err != nil {
			t.Fatalf("%s does not read back: %v", encoded, err)
		}
		twice, err := json.Marshal(again)
		if err != nil || string(twice) != string(encoded) {
			t.Fatalf("%s became %s (%v)", encoded, twice, err)
		}
	})
}
