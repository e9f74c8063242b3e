// Package statuspage renders the state of the realms as an HTML page for the people
// who run them. It takes no script, no image and no other resource, and changes
// nothing.
package statuspage

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"slices"
	"strconv"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

// Source is what the page shows.
type Source interface {
	// Names returns the names of all realms in order.
	Names() []string
	// Status returns the part of the report that a query selects.
	Status(query status.Query) status.Report
	// Refusal returns the refusal that has an error id, if it is remembered.
	Refusal(errorID string) (refusals.Record, bool)
}

// Methods are the methods of a request for the page, as in the header Allow.
const Methods = "GET, HEAD"

var (
	// ErrMethod is the error of a request that is neither GET nor HEAD.
	ErrMethod = errors.New("method_not_allowed")
	// ErrQuery is the error of a request whose query is longer than any link of the page.
	ErrQuery = errors.New("query_too_long")
)

//go:embed templates
var files embed.FS

var (
	style  = readStyle()
	policy = "default-src 'none'; style-src 'sha256-" + hashOf(style) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	pages  = template.Must(template.New("").Funcs(functions).ParseFS(files, "templates/*.gohtml"))
)

func readStyle() string {
	text, err := files.ReadFile("templates/style.css")
	if err != nil {
		panic(err)
	}
	return string(text)
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Serve answers a request with the page. If it returns an error, it has written
// nothing but headers.
func Serve(w http.ResponseWriter, r *http.Request, source Source) error {
	header := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", Methods)
		return ErrMethod
	}
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	view := newView(source, query)
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, "page.gohtml", view); err != nil {
		return err
	}
	body := hideActions(page.Bytes())
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	// no other site may learn from a window or an element whether a realm exists
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	code := http.StatusOK
	if query.realm != "" && !slices.Contains(view.Realms, query.realm) {
		code = http.StatusNotFound
	}
	w.WriteHeader(code)
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(body) // a caller who has gone is not an error
	return nil
}

// hideActions keeps Caddy's `templates` directive from running what a stranger wrote
// into a name, if a route has both.
func hideActions(page []byte) []byte {
	return bytes.ReplaceAll(page, []byte("{{"), []byte("&#123;&#123;"))
}
