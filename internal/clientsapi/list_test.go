package clientsapi

import (
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

func (a *api) list(t *testing.T, query string) (result page, ids string) {
	t.Helper()
	w := a.ask(http.MethodGet, clientsPath+query, "")
	want(t, w, http.StatusOK, `{"clients":[`)
	if err := json.Unmarshal(w.Body.Bytes(), &result); err != nil {
		t.Fatal(err)
	}
	for _, c := range result.Clients {
		ids += " " + c.ClientID
	}
	return result, strings.TrimSpace(ids)
}

func TestList(t *testing.T) {
	var records []string
	for _, id := range []string{"a", "b", "c/1", "d", "e"} {
		records = append(records, fmt.Sprintf(`{"client_id":%q,"client_name":"Partner %s","x509_thumbprints":"0a"}`, id, strings.ToUpper(id)))
	}
	a := newAPI(records...)
	a.fixed = []Client{
		{ID: "aa", Source: "config", Record: `{"client_id":"aa"}`},
		{ID: "w", Source: storeName, Record: `{"client_id":"w"}`, Waits: &Waits{"aa", "why"}},
		{ID: "w", Source: "file", Record: `{"client_id":"w"}`, Waits: &Waits{"aa", "why"}},
		{ID: "x", Source: "file", Record: `{"client_id":"x"}`, Waits: &Waits{"aa", "why"}},
	}
	for query, want := range map[string][2]string{
		"":                         {"a aa b c/1 d e", ""},
		"?":                        {"a aa b c/1 d e", ""},
		"?limit=2":                 {"a aa", "aa"},
		"?limit=2&after=aa":        {"b c/1", "c/1"},
		"?limit=2&after=ab":        {"b c/1", "c/1"},
		"?limit=2&after=c%2F1":     {"d e", ""},
		"?limit=2&after=d":         {"e", ""},
		"?after=zz":                {"", ""},
		"?limit=6":                 {"a aa b c/1 d e", ""},
		"?q=PARTNER+c":             {"c/1", ""},
		"?q=aa&limit=1000":         {"aa", ""},
		"?q=a&limit=1":             {"a", "a"},
		"?q=a&limit=1&after=a":     {"aa", "aa"},
		"?q=nobody":                {"", ""},
		"?waiting=true":            {"w w x", ""},
		"?waiting=true&limit=1":    {"w w", "w"},
		"?waiting=false&after=&q=": {"a aa b c/1 d e", ""},
	} {
		result, ids := a.list(t, query)
		if ids != want[0] || result.Next != want[1] {
			t.Errorf("%s: %s, next %s; want %s", query, ids, result.Next, want)
		}
	}
	result, _ := a.list(t, "?limit=2")
	if got := result.Clients[0]; got.Source != storeName || !got.Writable || got.ETag != a.etag(t, "a") || string(got.Record) != records[0] || got.Waits != nil {
		t.Errorf("%+v", got)
	}
	if got := result.Clients[1]; got.Source != "config" || got.Writable {
		t.Errorf("%+v", got)
	}
}

// TestBadQueries checks that a query which is not understood lists nothing.
func TestBadQueries(t *testing.T) {
	a := newAPI(recordA)
	for query, text := range map[string]string{
		"?limit=0": "use a number from 1 to 1000", "?limit=1001": "use a number", "?limit=-1": "use a number", "?limit=1e2": "use a number",
		"?limit=": "use a number", "?limit=99999999999999999999": "use a number", "?limit=1&limit=2": `parameter "limit" appears 2 times`,
		"?after=a%00b": "not a client_id", "?after=%2525": "not a client_id", "?after=" + strings.Repeat("a", 201): "not a client_id",
		"?q=" + strings.Repeat("a", 201): "q has more than 200 bytes", "?Q=a": `unknown parameter "Q"`, "?disabled=true": `unknown parameter "disabled"`,
		"?waiting=yes": "use true or false", "?waiting": "use true or false", "?a;b": "cannot be read", "?q=%zz": "cannot be read", "?%00=1": "unknown parameter",
	} {
		w := a.ask(http.MethodGet, clientsPath+query, "")
		want(t, w, http.StatusBadRequest, text)
	}
}

func TestGet(t *testing.T) {
	a := newAPI(` {"x509_thumbprints":"0a" , "client_id":"a"}`)
	w := a.ask(http.MethodGet, clientsPath+"/a", "")
	etag := w.Header().Get("ETag")
	want(t, w, http.StatusOK, recordA+"\n")
	if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Error(w.Header())
	}
	for header, status := range map[string]int{
		etag: 304, "W/" + etag: 304, `"x", ` + etag: 304, "*": 304, `"x"`: 200, `W/"x"`: 200, "": 200, ` , ,` + etag + ` , `: 304,
		strings.Trim(etag, `"`): 400, `"x" y`: 400,
	} {
		w = a.ask(http.MethodGet, clientsPath+"/a", "", "If-None-Match", header)
		if w.Code != status || status == 304 && (w.Body.Len() > 0 || w.Header().Get("ETag") != etag) {
			t.Errorf("If-None-Match %s: %d %s", header, w.Code, w.Body)
		}
	}
	want(t, a.ask(http.MethodGet, clientsPath+"/b", ""), http.StatusNotFound, "realm 'default' has no client 'b'")
	want(t, a.ask(http.MethodPost, clientsPath+"/a", ""), http.StatusMethodNotAllowed, "")
	a.fixed = []Client{{ID: "f", Source: "file:é\n.json", Record: "[1]"}}
	w = a.ask(http.MethodGet, clientsPath+"/f", "")
	want(t, w, http.StatusOK, "null")
	if w.Header().Get("Mtls-Source") != `file:\u00e9\n.json` {
		t.Error(w.Header())
	}
}

// manyClients is a directory of a million clients, made as they are asked for.
type manyClients struct {
	Directory
	visited int
}

func (*manyClients) Writer() (clients.Writer, bool) { return nil, false }

func (m *manyClients) From(id string) iter.Seq[Client] {
	return func(yield func(Client) bool) {
		first := 0
		_, _ = fmt.Sscanf(id, "c%d", &first)
		for i := first; i < 1_000_000; i++ {
			m.visited++
			id := fmt.Sprintf("c%06d", i)
			if !yield(Client{ID: id, Source: "many", Record: `{"client_id":"` + id + `"}`}) {
				return
			}
		}
	}
}

// TestPagesAreBounded checks that no page costs a walk over all clients, whatever the
// filter.
func TestPagesAreBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		query   listQuery
		pages   int
		found   int
		visited int // of a page, at most
	}{
		"all":           {listQuery{limit: maxLimit, after: "c979999"}, 20, 20_000, maxLimit + 2},
		"one":           {listQuery{limit: 1000, filter: "c999999"}, 100, 1, maxVisited + 2},
		"nothing":       {listQuery{limit: 1, filter: "x"}, 100, 0, maxVisited + 2},
		"from a cursor": {listQuery{limit: 10, after: "c999900"}, 10, 99, 12},
	} {
		t.Run(name, func(t *testing.T) {
			many := new(manyClients)
			pages, found := 0, 0
			for q := tc.query; ; pages++ {
				many.visited = 0
				result := q.page(many)
				found += len(result.Clients)
				if many.visited > tc.visited {
					t.Fatalf("a page after %s visits %d clients", q.after, many.visited)
				}
				if q.after = result.Next; q.after == "" {
					break
				}
			}
			if found != tc.found || pages+1 != tc.pages {
				t.Errorf("%d clients on %d pages", found, pages+1)
			}
		})
	}
	large := newAPI()
	for i := range 100 {
		id := fmt.Sprintf("c%02d", i)
		large.fixed = append(large.fixed, Client{ID: id, Record: `{"client_id":"` + id + `","client_name":"` + strings.Repeat("x", 60<<10) + `"}`})
	}
	result, _ := large.list(t, "?limit=1000")
	if len(result.Clients) != 69 || result.Next != "c68" { // as many as reach 4 MiB
		t.Errorf("%d clients, next %s", len(result.Clients), result.Next)
	}
}

// FuzzListQuery checks that every query is refused or within the bounds.
func FuzzListQuery(f *testing.F) {
	for _, seed := range []string{"", "after=a&limit=10", "q=%C3%A9&waiting=true", "limit=1&limit=2", "after=%00", "q=%zz", "a;b", "source=x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseListQuery(raw)
		if err != nil {
			if status := statusOf(err); status != http.StatusBadRequest {
				t.Errorf("%q: %d %v", raw, status, err)
			}
			return
		}
		if q.limit < 1 || q.limit > maxLimit || q.after != "" && clients.CheckID(q.after) != nil || len(q.filter) > 4*maxFilter {
			t.Errorf("%q is %+v", raw, q)
		}
	})
}

// FuzzPath checks that a path is refused, or names the client that its last segment
// says once unescaped.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"a", "a/b", "a%2Fb", "%2e%2e", "..", "a%252F", "a//b", "%00", "a?x", "%41", "a%2F..%2Fb", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, segment string) {
		u, err := url.ParseRequestURI(clientsPath + "/" + segment)
		if err != nil {
			return
		}
		a := newAPI()
		r, err := http.NewRequest(http.MethodPut, "http://localhost"+u.RequestURI(), strings.NewReader(`{"x509_thumbprints":"0a"}`))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if len(a.records) == 0 {
			return
		}
		last := u.EscapedPath()[len(clientsPath)+1:]
		want, err := url.PathUnescape(last)
		if got := keys(a.records); err != nil || strings.Contains(last, "/") || len(got) != 1 || got[0] != want {
			t.Errorf("%q creates %q", segment, got)
		}
	})
}

// FuzzPreconditions checks that a header with ETags is refused, or matches only if the
// ETag is in it.
func FuzzPreconditions(f *testing.F) {
	for _, seed := range []string{`"a"`, `W/"a"`, `"b", "a"`, `*`, `"a`, `"a""b"`, `,`, `W/`, `"b" , W/"a",`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, weak := range []bool{false, true} {
			matches, given, err := matchesAny(http.Header{ifMatch: {value}}, ifMatch, `"a"`, weak)
			if !given || matches && err == nil && strings.TrimSpace(value) != "*" && !strings.Contains(value, `"a"`) {
				t.Errorf("%q: %t, %t, %v", value, matches, given, err)
			}
		}
	})
}

// gone is a connection whose client has hung up.
type gone struct{ *httptest.ResponseRecorder }

func (gone) Write([]byte) (int, error) { return 0, net.ErrClosed }

// TestCallerWhoHasGoneIsNoError checks that an answer for which nobody waits any more is not
// an error, which Caddy would log.
func TestCallerWhoHasGoneIsNoError(t *testing.T) {
	shown := &view{shown: []byte(`{"client_id":"a"}`)}
	for name, answer := range map[string]func(http.ResponseWriter) error{
		"a value":  func(w http.ResponseWriter) error { return WriteJSON(w, shown) },
		"a record": func(w http.ResponseWriter) error { return writeRecord(w, http.StatusOK, shown) },
	} {
		if err := answer(gone{httptest.NewRecorder()}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if WriteJSON(httptest.NewRecorder(), func() {}) == nil {
		t.Error("a value that is not JSON is no error")
	}
}
