// Package page_test looks at the status page as people do, in a browser, and as HTML.
package page_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/internal/statuspage"
)

// serve serves each report at its path.
func serve(t *testing.T, paths map[string]*reports) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		source := paths[r.URL.Path]
		if source == nil { // a browser may ask for an icon
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if err := statuspage.Serve(w, r, source); err != nil {
			t.Errorf("%s: %v", r.URL, err)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// ask answers a request with the page of a report.
func ask(t *testing.T, source statuspage.Source, method, target string) (*httptest.ResponseRecorder, string, error) {
	t.Helper()
	w := httptest.NewRecorder()
	err := statuspage.Serve(w, httptest.NewRequest(method, target, nil), source)
	body, readErr := io.ReadAll(w.Result().Body)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return w, string(body), err
}

func mustAsk(t *testing.T, source statuspage.Source, target string) string {
	t.Helper()
	_, body, err := ask(t, source, http.MethodGet, target)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestHeaders checks that the page allows nothing but its own style.
func TestHeaders(t *testing.T) {
	w, body, err := ask(t, busy(), http.MethodGet, "/")
	if err != nil {
		t.Fatal(err)
	}
	_, style, _ := strings.Cut(body, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	for name, want := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff",
		"Referrer-Policy":         "no-referrer",
		"Cache-Control":           "no-store",
		"Content-Length":          fmt.Sprint(len(body)),

		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := w.Header().Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	head, nothing, err := ask(t, busy(), http.MethodHead, "/")
	if err != nil || nothing != "" || head.Header().Get("Content-Length") != w.Header().Get("Content-Length") {
		t.Errorf("HEAD: %q, %v, length %s", nothing, err, head.Header().Get("Content-Length"))
	}
}

// TestMethods checks that the page can only be read.
func TestMethods(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
		w, body, err := ask(t, busy(), method, "/?error_id=k3f9x2m7q")
		if !errors.Is(err, statuspage.ErrMethod) || w.Header().Get("Allow") != "GET, HEAD" || body != "" {
			t.Errorf("%s: %v, Allow %q, %q", method, err, w.Header().Get("Allow"), body)
		}
	}
}

// TestQueries checks what a request asks for, and that odd ones do no harm.
func TestQueries(t *testing.T) {
	for query, want := range map[string]status.Query{
		"realm=default": {Realm: "default", Most: 200},
		"realm=default&q=+ware+&never=1&after=a%2F": {Realm: "default", Text: "ware", Never: true, After: "a/", Most: 200},
		"realm=default&other=1&limit=99999&q=a&q=b": {Realm: "default", Text: "a", Most: 200},
		"realm=default&%zz=1&q=a;b":                 {Realm: "default", Most: 200},
		"":                                          {Limit: 1},
	} {
		source := busy()
		mustAsk(t, source, "/?"+query)
		if !slices.Equal(source.asked, []status.Query{want}) {
			t.Errorf("%q asks for %+v, want %+v", query, source.asked, want)
		}
	}
	for _, query := range []string{"q=" + strings.Repeat("a", 257), "realm=" + strings.Repeat("a", 257), "x=" + strings.Repeat("a", 5000)} {
		if _, body, err := ask(t, busy(), http.MethodGet, "/?"+query); !errors.Is(err, statuspage.ErrQuery) || body != "" {
			t.Errorf("%.20s: %v, %q", query, err, body)
		}
	}
	w, body, err := ask(t, busy(), http.MethodGet, "/?realm=%3Cb%3E")
	if err != nil || w.Code != http.StatusNotFound || !strings.Contains(body, "No realm of this name") || strings.Contains(body, "<b>") && !strings.Contains(body, "&lt;b&gt;") {
		t.Errorf("an unknown realm: %d, %v", w.Code, err)
	}
}

// TestPastedErrorID checks that the error id is found in what a caller got.
func TestPastedErrorID(t *testing.T) {
	for _, pasted := range []string{"K3F9X2M7Q", "certificate_refused (error id: k3f9x2m7q)", `error_id="k3f9x2m7q"`} {
		if body := mustAsk(t, busy(), "/?error_id="+url.QueryEscape(pasted)); !strings.Contains(body, "To register it") || !strings.Contains(body, `value="k3f9x2m7q"`) {
			t.Errorf("%q is not found", pasted)
		}
	}
}

// TestClaimedClient checks that the page takes nobody for a client because the request
// says so.
func TestClaimedClient(t *testing.T) {
	source := busy()
	refusal := &source.report.Realms[0].Refusals[0]
	refusal.ClientID, refusal.Claimed = "impostor", true
	if body := mustAsk(t, source, "/?realm=default"); strings.Contains(body, "impostor") {
		t.Error("the list of refusals names the client that a request claims to be")
	}
	if body := mustAsk(t, source, "/?realm=default&error_id=k3f9x2m7q"); !strings.Contains(body, "<bdi>impostor</bdi>, as the request says") {
		t.Error("the explanation does not say that the request only claims to be the client")
	}
}

// TestRefusalsOfNoRealm checks that what mtls_bearer without a realm has refused is listed
// next to the keys of the servers whose tokens it takes.
func TestRefusalsOfNoRealm(t *testing.T) {
	source := busy()
	source.report.Refusals = []refusals.Record{{ErrorID: "n3r9a2m7q", At: now, Directive: "mtls_bearer", Reason: "token_expired", RemoteIP: "192.0.2.9", Times: 1}}
	body := mustAsk(t, source, "/")
	_, others, _ := strings.Cut(body, `id="others"`)
	for _, want := range []string{`href="?error_id=n3r9a2m7q"`, "token_expired", "192.0.2.9"} {
		if !strings.Contains(others, want) {
			t.Errorf("no %s among what belongs to no realm", want)
		}
	}
}

// TestLinksKeepTheView checks that the links and forms of a view lead to what they say.
func TestLinksKeepTheView(t *testing.T) {
	body := mustAsk(t, busy(), "/status?realm=default&q=ware&never=1")
	for _, want := range []string{
		`href="?after=warehouse-07&amp;never=1&amp;q=ware&amp;realm=default#clients"`, `value="ware"`, ` checked`,
		`<input type="hidden" name="realm" value="default">`, `href="?realm=partners"`, `href="?error_id=k3f9x2m7q&amp;realm=default"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestPageIsBounded checks that a report with many of everything is a page of a bounded
// size, which says what it leaves out.
func TestPageIsBounded(t *testing.T) {
	source := hostile(strings.Repeat("é", 2048))
	realm := &source.report.Realms[0]
	times(&realm.Expiring)
	times(&realm.Strangers)
	times(&realm.Refusals)
	times(&realm.Sources)
	times(&realm.Clients.List)
	times(&realm.Traffic.Reasons)
	times(&realm.Shadow.Failing)
	times(&realm.Issuer.Keys)
	times(&source.report.Realms)
	source.report.Realms[0] = *realm
	for query, most := range map[string]int{"realm=default": 1 << 20, "realm=default&show=all": 4 << 20, "realm=default&error_id=hostile": 1 << 20, "": 1 << 18} {
		body := mustAsk(t, source, "/?"+query)
		if len(body) > most {
			t.Errorf("%q: %d bytes, want at most %d", query, len(body), most)
		}
		if query == "realm=default" && (!strings.Contains(body, "more are not listed") || !strings.Contains(body, "Show longer lists")) {
			t.Error("it does not say that something is left out")
		}
	}
}

// times repeats a list until it has thousands.
func times[T any](list *[]T) {
	*list = slices.Repeat(*list, 5000)
}

// TestHostileTexts checks the HTML of pages whose every text is hostile: they have the
// elements and attributes that a page without them has, and no character that could
// change how the rest reads.
func TestHostileTexts(t *testing.T) {
	harmless := hostile("x")
	queries := []string{"/?realm=default", "/?realm=default&error_id=hostile", "/", "/?realm=default&q=QUERY&after=QUERY&error_id=QUERY!", "/?realm=QUERY!"}
	tag := regexp.MustCompile(`<[/!]?[a-z][^>]*>`)
	value := regexp.MustCompile(`="[^"]*"`)
	shape := func(body string) string {
		return strings.Join(tag.FindAllString(value.ReplaceAllString(body, "=v"), -1), "\n")
	}
	for _, query := range queries {
		want := shape(mustAsk(t, harmless, strings.ReplaceAll(query, "QUERY", "x")))
		for _, text := range hostileTexts {
			// the text of a request is bounded
			body := mustAsk(t, hostile(text), strings.ReplaceAll(query, "QUERY", url.QueryEscape(text[:min(len(text), 200)])))
			if got := shape(body); got != want {
				t.Errorf("%s: %.40q changes the page:\n%s", query, text, firstDifference(got, want))
			}
			for _, character := range body {
				if character < ' ' && character != '\n' && character != '\t' || strings.ContainsRune("\u007f\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", character) {
					t.Errorf("%s: %.40q leaves %q in the page", query, text, character)
				}
			}
			if strings.Contains(body, "{{") {
				t.Errorf("%s: %.40q leaves an action for Caddy's templates", query, text)
			}
		}
	}
}

func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[i] + "\nwant\n" + b[i]
		}
	}
	return fmt.Sprintf("%d tags, want %d", len(a), len(b))
}

// BenchmarkPage measures what a page costs.
func BenchmarkPage(b *testing.B) {
	source := busy()
	for b.Loop() {
		if err := statuspage.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/?realm=default", nil), source); err != nil {
			b.Fatal(err)
		}
	}
}
