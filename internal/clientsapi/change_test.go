package clientsapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const (
	recordA = `{"client_id":"a","x509_thumbprints":"0a"}`
)

func TestPut(t *testing.T) {
	a := newAPI()
	w := a.ask(http.MethodPut, clientsPath+"/a", ` { "x509_thumbprints" : "0a" } `)
	want(t, w, http.StatusCreated, recordA+"\n")
	if w.Header().Get("Location") != clientsPath+"/a" || w.Header().Get("ETag") != a.etag(t, "a") || a.records["a"] != recordA {
		t.Errorf("%v, %s", w.Header(), a.records)
	}
	// replacing needs a precondition
	before := a.etag(t, "a")
	const other = `{"client_id":"a","x509_thumbprints":"0b"}`
	want(t, a.ask(http.MethodPut, clientsPath+"/a", other), http.StatusPreconditionRequired, "send the ETag that you have read in If-Match, or *")
	want(t, a.ask(http.MethodPut, clientsPath+"/a", other, "If-None-Match", "*"), http.StatusPreconditionFailed, "the client exists")
	want(t, a.ask(http.MethodPut, clientsPath+"/a", other, "If-Match", `"other"`), http.StatusPreconditionFailed, "has changed since it was read")
	want(t, a.ask(http.MethodPut, clientsPath+"/a", other, "If-Match", "W/"+before), http.StatusPreconditionFailed, "has changed since it was read")
	if a.records["a"] != recordA {
		t.Error(a.records)
	}
	w = a.ask(http.MethodPut, clientsPath+"/a", other, "If-Match", before)
	want(t, w, http.StatusOK, other)
	if after := w.Header().Get("ETag"); after == before || after != a.etag(t, "a") || w.Header().Get("Location") != "" {
		t.Errorf("%v", w.Header())
	}
	want(t, a.ask(http.MethodPut, clientsPath+"/a", recordA, "If-Match", "*"), http.StatusOK, recordA)
	want(t, a.ask(http.MethodPut, clientsPath+"/b", `{"x509_thumbprints":"0b"}`, "If-Match", "*"), http.StatusPreconditionFailed, "does not exist")
	want(t, a.ask(http.MethodPut, clientsPath+"/b", `{"x509_thumbprints":"0b"}`, "If-None-Match", "*"), http.StatusCreated, `"client_id":"b"`)
}

func TestPatch(t *testing.T) {
	a := newAPI(`{"client_id":"a","claims":{"x":1,"y":{"z":[2]}},"x509_thumbprints":["0a","0b"]}`)
	for _, tc := range []struct{ patch, want string }{
		{`{"disabled":true}`, `{"claims":{"x":1,"y":{"z":[2]}},"client_id":"a","disabled":true,"x509_thumbprints":["0a","0b"]}`},
		{`{"disabled":null,"claims":{"x":null,"y":{"w":3}}}`, `{"claims":{"y":{"w":3,"z":[2]}},"client_id":"a","x509_thumbprints":["0a","0b"]}`},
		{`{"x509_thumbprints":["0b"],"client_id":"a"}`, `{"claims":{"y":{"w":3,"z":[2]}},"client_id":"a","x509_thumbprints":["0b"]}`},
		{`{"claims":null}`, `{"client_id":"a","x509_thumbprints":["0b"]}`},
		{`{}`, `{"client_id":"a","x509_thumbprints":["0b"]}`},
	} {
		w := a.ask(http.MethodPatch, clientsPath+"/a", tc.patch, "Content-Type", "application/merge-patch+json")
		want(t, w, http.StatusOK, tc.want+"\n")
		if a.records["a"] != tc.want || w.Header().Get("ETag") != a.etag(t, "a") {
			t.Errorf("%s: %s", tc.patch, a.records["a"])
		}
	}
	before := a.etag(t, "a")
	want(t, a.ask(http.MethodPatch, clientsPath+"/a", `{"disabled":true}`, "If-Match", before), http.StatusOK, "true")
	want(t, a.ask(http.MethodPatch, clientsPath+"/a", `{"disabled":false}`, "If-Match", before), http.StatusPreconditionFailed, "has changed")
}

// TestConcurrentPatches checks that of two changes decided by one reading, one is
// refused.
func TestConcurrentPatches(t *testing.T) {
	a := newAPI(recordA)
	before := a.etag(t, "a")
	answers := make([]*httptest.ResponseRecorder, 8)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			answers[i] = a.ask(http.MethodPatch, clientsPath+"/a", fmt.Sprintf(`{"client_name":"%d"}`, i), "If-Match", before)
		})
	}
	all.Wait()
	count := make(map[int]int)
	for _, w := range answers {
		count[w.Code]++
	}
	if count[http.StatusOK] != 1 || count[http.StatusPreconditionFailed] != len(answers)-1 {
		t.Error(count)
	}
}

func TestDelete(t *testing.T) {
	a := newAPI(recordA, `{"client_id":"b","x509_thumbprints":"0b"}`)
	want(t, a.ask(http.MethodDelete, clientsPath+"/a", "", "If-Match", `"other"`), http.StatusPreconditionFailed, "has changed")
	want(t, a.ask(http.MethodDelete, clientsPath+"/a", "", "If-Match", a.etag(t, "a")), http.StatusOK, recordA)
	want(t, a.ask(http.MethodDelete, clientsPath+"/a", ""), http.StatusNotFound, "has no client 'a'")
	want(t, a.ask(http.MethodDelete, clientsPath+"/b", ""), http.StatusOK, `"b"`)
	if len(a.records) != 0 {
		t.Error(a.records)
	}
}

func TestChangesThatAreRefused(t *testing.T) {
	const thumbprint = `"x509_thumbprints":"0a"`
	for name, tc := range map[string]struct {
		method, id, body string
		headers          []string
		status           int
		want             string
	}{
		"no object":            {"PUT", "b", `[]`, nil, 400, "not a JSON object"},
		"null":                 {"PUT", "b", `null`, nil, 400, "not a JSON object"},
		"empty":                {"PUT", "b", ``, nil, 400, "unexpected EOF in JSON"},
		"two values":           {"PUT", "b", `{} {}`, nil, 400, "text after the JSON value"},
		"repeated member":      {"PUT", "b", `{"disabled":true,"disabled":false}`, nil, 400, `duplicate member "disabled"`},
		"repeated claim":       {"PATCH", "a", `{"claims":{"a":1,"\u0061":2}}`, nil, 400, `duplicate member "a"`},
		"lone surrogate":       {"PUT", "b", `{"client_name":"\ud800",` + thumbprint + `}`, nil, 400, "half of a surrogate pair"},
		"lone second":          {"PATCH", "a", `{"client_name":"\\\udc00"}`, nil, 400, "half of a surrogate pair"},
		"NUL":                  {"PATCH", "a", `{"client_name":"a\u0000"}`, nil, 400, `\u0000`},
		"not UTF-8":            {"PATCH", "a", "{\"client_name\":\"\xff\"}", nil, 400, "not UTF-8"},
		"unknown member":       {"PUT", "b", `{"Disabled":true,` + thumbprint + `}`, nil, 422, `unknown member "Disabled"`},
		"no credential":        {"PUT", "b", `{}`, nil, 422, "no credential"},
		"credential removed":   {"PATCH", "a", `{"x509_thumbprints":null}`, nil, 422, "no credential"},
		"conflict":             {"PUT", "b", `{"x509_thumbprints":"taken"}`, nil, 409, "client 'other'"},
		"conflict of a patch":  {"PATCH", "a", `{"x509_thumbprints":"taken"}`, nil, 409, "client 'other'"},
		"other client_id":      {"PUT", "b", `{"client_id":"a",` + thumbprint + `}`, nil, 422, `the record has the client_id "a", but the path names 'b'`},
		"client_id no string":  {"PUT", "b", `{"client_id":null,` + thumbprint + `}`, nil, 422, "the record has the client_id null"},
		"renamed":              {"PATCH", "a", `{"client_id":"b"}`, nil, 422, "cannot be changed"},
		"client_id removed":    {"PATCH", "a", `{"client_id":null}`, nil, 422, "cannot be changed"},
		"patch no object":      {"PATCH", "a", `"x"`, nil, 400, "not a JSON Merge Patch"},
		"patch is null":        {"PATCH", "a", `null`, nil, 400, "not a JSON Merge Patch"},
		"unknown client":       {"PATCH", "b", `{}`, nil, 404, "has no client 'b'"},
		"long":                 {"PUT", "b", strings.Repeat(" ", maxRecord+1), nil, 413, "more than 65536 bytes"},
		"long after the patch": {"PATCH", "long", `{"client_uri":"` + strings.Repeat("x", 40<<10) + `"}`, nil, 422, "at most 65536 are allowed"},
		"form":                 {"PUT", "b", `{}`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "use application/json"},
		"patch as PUT":         {"PUT", "b", `{}`, []string{"Content-Type", "application/merge-patch+json"}, 415, "use application/json"},
		"JSON Patch":           {"PATCH", "a", `[]`, []string{"Content-Type", "application/json-patch+json"}, 415, "use application/merge-patch+json"},
		"odd content type":     {"PATCH", "a", `{}`, []string{"Content-Type", "a b/;"}, 415, "cannot be read"},
		"unquoted ETag":        {"PATCH", "a", `{}`, []string{"If-Match", "abc"}, 400, `send ETags in double quotes`},
		"half an ETag":         {"PATCH", "a", `{}`, []string{"If-Match", `"abc`}, 400, `send ETags in double quotes`},
		"ETags without comma":  {"PATCH", "a", `{}`, []string{"If-Match", `"a" "b"`}, 400, `separate ETags with commas`},
		"slash":                {"PUT", "team/b", `{}`, nil, 400, `write it as %2F`},
		"double slash":         {"DELETE", "a%2F%2Fb/c", ``, nil, 400, `write it as %2F`},
		"no client_id":         {"DELETE", "", ``, nil, 400, `client_id is empty`},
		"invalid client_id":    {"PUT", "a%20b", `{}`, nil, 400, `client_id "a b" contains ' '`},
		"escaped twice":        {"DELETE", "team%252Fa", ``, nil, 400, `client_id "team%2Fa" contains '%'`},
		"NUL in the client_id": {"DELETE", "a%00", ``, nil, 400, `contains '\x00'`},
		"long client_id":       {"PUT", strings.Repeat("a", 201), `{}`, nil, 400, `at most 200`},
		"unknown parameter":    {"DELETE", "a?dry_run=true", ``, nil, 400, `unknown parameter "dry_run"`},
		"other source":         {"DELETE", "a?source=config", ``, nil, 409, `changes are written to 'storage'`},
		"declared elsewhere":   {"DELETE", "fixed", ``, nil, 409, `client 'fixed' is declared in source 'config', which is not written to here; change it there`},
		"declared, replaced":   {"PUT", "fixed", `{}`, nil, 409, `declared in source 'config'`},
		"declared, patched":    {"PATCH", "fixed", `{"disabled":true}`, nil, 409, `declared in source 'config'`},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(recordA, `{"client_id":"long","client_name":"`+strings.Repeat("x", 30<<10)+`",`+thumbprint+`}`, `{"client_id":"team/a",`+thumbprint+`}`)
			a.fixed = []Client{{ID: "fixed", Source: "config", Record: `{"client_id":"fixed","x509_thumbprints":"0f"}`}}
			before := fmt.Sprint(a.records)
			want(t, a.ask(tc.method, clientsPath+"/"+tc.id, tc.body, tc.headers...), tc.status, tc.want)
			if after := fmt.Sprint(a.records); after != before {
				t.Errorf("the records are %s", after)
			}
			lines := a.audit.FilterMessage("client change refused").All()
			if len(lines) != 1 || a.audit.Len() != 1 || lines[0].ContextMap()["status"] != int64(tc.status) || lines[0].ContextMap()["remote_ip"] != "192.0.2.1" {
				t.Errorf("the audit lines are %v", a.audit.All())
			}
			if id, _ := lines[0].ContextMap()["client_id"].(string); id == "" && tc.id != "" {
				t.Errorf("the audit line does not say which client: %v", lines)
			}
		})
	}
}

// TestOddClientIDs checks that a client_id is taken from the path as it is, and that no
// path leads to another client.
func TestOddClientIDs(t *testing.T) {
	for _, id := range []string{".", "..", "...", "a/b", "../a", "a//b", "/", "spiffe://prod.example/ns/a", "a@b:c+d~e,f", "clients/x", "-"} {
		a := newAPI(recordA)
		w := a.ask(http.MethodPut, clientsPath+"/"+escapeID(id), `{"x509_thumbprints":"0b"}`)
		want(t, w, http.StatusCreated, fmt.Sprintf(`"client_id":%q`, id))
		if len(a.records) != 2 || a.records[id] == "" {
			t.Errorf("%s: %s", id, keys(a.records))
		}
		location, err := url.Parse(w.Header().Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		want(t, a.ask(http.MethodGet, location.String(), ""), http.StatusOK, fmt.Sprintf(`"client_id":%q`, id))
		want(t, a.ask(http.MethodPatch, location.String(), `{"disabled":true}`), http.StatusOK, `"disabled":true`)
		want(t, a.ask(http.MethodDelete, location.String(), ``), http.StatusOK, fmt.Sprintf(`"client_id":%q`, id))
		if fmt.Sprint(keys(a.records)) != "[a]" {
			t.Errorf("%s: %s", id, keys(a.records))
		}
	}
}

// TestRedirectedPaths checks that following the redirect of Go's router for a path with
// `//` or `/../` changes no client.
func TestRedirectedPaths(t *testing.T) {
	for _, path := range []string{"a//b", "a/./b", "x/../a/b", "./a", "x/../a", "/a"} {
		a := newAPI(recordA, `{"client_id":"a/b","x509_thumbprints":"0b"}`)
		w := a.ask(http.MethodDelete, clientsPath+"/"+path, "")
		if w.Code == http.StatusMovedPermanently || w.Code == http.StatusTemporaryRedirect || w.Code == http.StatusPermanentRedirect {
			w = a.ask(http.MethodDelete, w.Header().Get("Location"), "")
		}
		_, there := a.records["a/b"]
		if w.Code == http.StatusOK && strings.Contains(path, "b") || !there {
			t.Errorf("%s: %d, %s", path, w.Code, keys(a.records))
		}
	}
}

func TestSourcesThatCannotBeWrittenTo(t *testing.T) {
	a := newAPI(recordA)
	a.noStore = true
	for _, method := range []string{"PUT", "PATCH", "DELETE"} {
		want(t, a.ask(method, clientsPath+"/a", `{"x509_thumbprints":"0a"}`), http.StatusConflict, "has no source of clients that can be written to; add 'clients_from storage' to it")
	}
	a.noStore = false
	a.failure = fmt.Errorf("storage: %w: disk on fire", clients.ErrUnavailable)
	want(t, a.ask("PATCH", clientsPath+"/a", `{}`), http.StatusServiceUnavailable, "the client has not been changed: storage: source is unavailable: disk on fire")
	a.failure = fmt.Errorf("%w: PostgreSQL does not store it: NUL", clients.ErrBadRecord)
	want(t, a.ask("PATCH", clientsPath+"/a", `{}`), http.StatusBadRequest, "invalid client record: PostgreSQL does not store it: NUL")
	a.failure = context.DeadlineExceeded
	want(t, a.ask("PATCH", clientsPath+"/a", `{}`), http.StatusServiceUnavailable, "has not been changed")
	a.failure = errors.New("out of luck")
	want(t, a.ask("PATCH", clientsPath+"/a", `{}`), http.StatusInternalServerError, "out of luck")
}

// TestWaitingClientsCanBeChanged checks that a record which is not in force can be
// reached although another client has its client_id.
func TestWaitingClientsCanBeChanged(t *testing.T) {
	const waiting = `{"client_id":"both","x509_thumbprints":"0b"}`
	a := newAPI(recordA)
	a.fixed = []Client{
		{ID: "both", Source: "config", Record: `{"client_id":"both","x509_thumbprints":"0a"}`},
		{ID: "both", Source: storeName, Record: waiting, Waits: &Waits{Holder: "both", Reason: "client_id 'both' twice"}},
		{ID: "alone", Source: storeName, Record: `{"client_id":"alone","x509_thumbprints":"0a"}`, Waits: &Waits{Holder: "both", Reason: "thumbprint"}},
	}
	w := a.ask("GET", clientsPath+"/both", "")
	want(t, w, http.StatusOK, `"0a"`)
	if w.Header().Get("Mtls-Source") != "config" || w.Header().Get("Mtls-Writable") != "false" || w.Header().Get("Mtls-Waits-For") != "" {
		t.Error(w.Header())
	}
	for _, path := range []string{"/both?source=storage", "/alone"} {
		w = a.ask("GET", clientsPath+path, "")
		want(t, w, http.StatusOK, "client_id")
		if w.Header().Get("Mtls-Source") != "storage" || w.Header().Get("Mtls-Writable") != "true" || w.Header().Get("Mtls-Waits-For") != "both" {
			t.Error(w.Header())
		}
	}
	want(t, a.ask("GET", clientsPath+"/both?source=file", ""), http.StatusNotFound, "source 'file' of realm 'default' has no client 'both'")
	want(t, a.ask("GET", clientsPath+"?waiting=true", ""), http.StatusOK, `"waits":{"holder":"both","reason":"client_id 'both' twice"}`)
	want(t, a.ask("DELETE", clientsPath+"/both", ""), http.StatusConflict, "add '?source=storage' for the one that waits")
	a.records["both"] = waiting
	want(t, a.ask("DELETE", clientsPath+"/both?source=storage", ""), http.StatusOK, waiting)
}

// TestStoredButNotInForce checks that the answer and the audit line do not call a change
// refused that has been stored, or may have been.
func TestStoredButNotInForce(t *testing.T) {
	a := newAPI(recordA)
	for status, cause := range map[int]error{
		http.StatusServiceUnavailable:  fmt.Errorf("%w: no answer yet; read it again", clients.ErrUnavailable),
		http.StatusInternalServerError: errors.New("stored, but not in force: conflict"),
	} {
		a.stored = &clients.StoredError{Err: cause}
		w := a.ask("PATCH", clientsPath+"/a", fmt.Sprintf(`{"client_name":"%d"}`, status))
		want(t, w, status, cause.Error())
		if strings.Contains(w.Body.String(), "not been changed") {
			t.Errorf("the answer is %s", w.Body)
		}
		lines := a.audit.TakeAll()
		if len(lines) != 1 || lines[0].Message != "client change not in force" {
			t.Fatalf("the audit lines are %v", lines)
		}
		fields := lines[0].ContextMap()
		if fields["status"] != int64(status) || fields["error"] != cause.Error() || fields["after"] != fmt.Sprintf(`{"client_name":"%d"}`, status) {
			t.Errorf("the audit line is %v", fields)
		}
	}
}

// TestCallerWhoHangsUp checks that a change is made although its caller no longer waits for
// the answer, and is not called one that has failed.
func TestCallerWhoHangsUp(t *testing.T) {
	a := newAPI(recordA)
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPatch, clientsPath+"/a", strings.NewReader(`{"disabled":true}`)))
	want(t, w, http.StatusOK, `"disabled":true`)
	if lines := a.audit.TakeAll(); len(lines) != 1 || lines[0].Message != "client changed" {
		t.Errorf("the audit lines are %v", lines)
	}
}

// TestWriterThatPanics checks that a source, which may be a guest module, cannot have a
// change audited that it has not made.
func TestWriterThatPanics(t *testing.T) {
	a := newAPI(recordA)
	for _, a.panics = range []string{"before", "after"} {
		want(t, a.ask("PATCH", clientsPath+"/a", `{"disabled":true}`), http.StatusInternalServerError, "storage panicked: a bug")
		lines := a.audit.TakeAll()
		if len(lines) != 1 || lines[0].Message != "client change not in force" {
			t.Errorf("%s: the audit lines are %v", a.panics, lines)
		}
	}
}

// TestETagOfNumbers checks that a record has the same ETag if its source writes the
// numbers in another way.
func TestETagOfNumbers(t *testing.T) {
	etag := func(number string) string {
		return newView([]byte(`{"claims":{"n":[` + number + `],"s":"1e2 \\\" 1e2"},"client_id":"a"}`)).etag
	}
	for number, other := range map[string]string{
		"1e2": "100", "1.50E+1": "15.0", "-12e-1": "-1.2", "0.00": "0", "-0": "0", "1e-400": "0." + strings.Repeat("0", 399) + "1",
		"12345678901234567890.5e1": "123456789012345678905",
	} {
		if etag(number) != etag(other) {
			t.Errorf("%s and %s", number, other)
		}
	}
	for _, broken := range []string{`"`, `"\`, `{"a`, "1e", "-", "e"} { // in a source that somebody else writes
		newView([]byte(broken))
	}
	seen := make(map[string]string)
	for _, number := range []string{"1", "-1", "10", "0.1", "0", "100", "12345678901234567890", "12345678901234567891", "1e99999999999", "1e99999999998", `"1"`, `"1e0"`, "1,0", "10,1"} {
		if other, twice := seen[etag(number)]; twice {
			t.Errorf("%s and %s", number, other)
		}
		seen[etag(number)] = number
	}
}

func TestAuditLines(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.CommonName("Op\u202eerator"))
	a := newAPI()
	for _, step := range []struct {
		method, body  string
		before, after any
	}{
		{"PUT", `{"x509_thumbprints":"0a","scope":"<api>"}`, nil, `{"client_id":"a","scope":"<api>","x509_thumbprints":"0a"}`},
		{"PATCH", `{"disabled":true,"scope":null}`, `{"scope":"<api>"}`, `{"disabled":true}`},
		{"PATCH", `{"client_name":"` + strings.Repeat("x", 60<<10) + `","scope":"a"}`, `{}`, `{"client_name":"` + strings.Repeat("x", 60<<10) + `","scope":"a"}`},
		{"PATCH", `{"client_name":null,"scope":null}`, `{"client_name":"` + strings.Repeat("x", 60<<10) + `","scope":"a"}`, `{}`},
		{"DELETE", ``, `{"client_id":"a","disabled":true,"x509_thumbprints":"0a"}`, nil},
	} {
		r := httptest.NewRequest(step.method, clientsPath+"/a", strings.NewReader(step.body))
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf.Cert}}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code > 299 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		line := a.audit.TakeAll()[0]
		fields := line.ContextMap()
		if line.Message != "client changed" || fields["action"] != strings.ToLower(step.method) || fields["client_id"] != "a" || fields["source"] != storeName ||
			fields["remote_ip"] != "192.0.2.1" || fields["admin"] != `CN=Op\E2\80\AEerator` || fields["before"] != step.before || fields["after"] != step.after {
			t.Errorf("%s: %.3000v", step.method, fields)
		}
	}
}
