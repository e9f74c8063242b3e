package statuspage

import (
	"net/url"
	"strings"
	"unicode"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

const (
	// maxQuery bounds the query of a request, and maxValue each of its values, in
	// bytes. A client_id has at most 200.
	maxQuery = 4096
	maxValue = 256
)

// query is what a request asks for. Other parameters are ignored.
type query struct {
	realm   string
	text    string
	after   string
	never   bool
	errorID string
	all     bool
}

func parseQuery(raw string) (query, error) {
	if len(raw) > maxQuery {
		return query{}, ErrQuery
	}
	values, _ := url.ParseQuery(raw) // what can be read of it
	for _, name := range []string{"realm", "q", "after", "error_id"} {
		if len(values.Get(name)) > maxValue {
			return query{}, ErrQuery
		}
	}
	get := func(name string) string { return printable(values.Get(name)) }
	return query{
		realm: get("realm"), text: get("q"), after: get("after"),
		never: get("never") != "", errorID: errorID(get("error_id")), all: get("show") == "all",
	}, nil
}

// errorID returns the error id in what somebody has pasted, or all of it if there is none.
func errorID(pasted string) string {
	if id, err := refusals.ErrorIDIn(pasted); err == nil {
		return id
	}
	return pasted
}

// printable trims a value, and removes what no name has and nobody types.
func printable(value string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, value))
}

func (q query) status() status.Query {
	return status.Query{Realm: q.realm, After: q.after, Text: q.text, Never: q.never, Most: many}
}

// link returns the query of a link to the realm, with these names and values. Those that
// are empty, or longer than a request may have, are left out.
func (q query) link(pairs ...string) string {
	values := make(url.Values)
	pairs = append(pairs, "realm", q.realm)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" && len(pairs[i+1]) <= maxValue {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	return "?" + values.Encode()
}
