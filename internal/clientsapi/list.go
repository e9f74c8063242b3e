package clientsapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
	// maxVisited is how many clients are looked at for a page, and maxPage how large
	// the records of one get, in bytes. The rest is for the next page.
	maxVisited = 10_000
	maxPage    = 4 << 20
	// maxFilter bounds the text of a filter, in bytes.
	maxFilter = 200
)

// page is a part of the clients of a realm.
type page struct {
	Clients []listed `json:"clients"`
	// Next is the client_id after which the next page begins, "" if there is none.
	Next string `json:"next,omitempty"`
}

// listed is a client in a list.
type listed struct {
	ClientID string          `json:"client_id"`
	Source   string          `json:"source"`
	Writable bool            `json:"writable"`
	ETag     string          `json:"etag"`
	Waits    *Waits          `json:"waits,omitempty"`
	Record   json.RawMessage `json:"record"`
}

// List answers with a page of clients.
func List(w http.ResponseWriter, r *http.Request, realm Realm) error {
	q, err := parseListQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	return WriteJSON(w, q.page(realm.Clients))
}

// listQuery says which clients are listed.
type listQuery struct {
	after   string // the client_id before the first one
	limit   int
	filter  string // in lower case
	waiting bool
}

// page returns the clients that the query asks for, as far as they are found within
// the bounds of a page.
func (q listQuery) page(directory Directory) page {
	list := directory.From
	if q.waiting {
		list = directory.Waiting
	}
	result := page{Clients: []listed{}}
	visited, size, last := 0, 0, ""
	for client := range list(q.after) {
		if client.ID == q.after {
			continue
		}
		full := len(result.Clients) >= q.limit || visited >= maxVisited || size >= maxPage
		if full && client.ID != last { // several sources may have one that waits
			result.Next = last
			break
		}
		visited++
		last = client.ID
		if !q.fits(client) {
			continue
		}
		v := newView([]byte(client.Record))
		size += len(v.shown)
		result.Clients = append(result.Clients, listed{
			ClientID: client.ID, Source: client.Source, Writable: isWritable(directory, client.Source),
			ETag: v.etag, Waits: client.Waits, Record: v.shown,
		})
	}
	return result
}

func (q listQuery) fits(client Client) bool {
	return q.filter == "" || strings.Contains(strings.ToLower(client.ID), q.filter) || strings.Contains(strings.ToLower(clients.NameIn(client.Record)), q.filter)
}

// parseListQuery parses the query of a list. It refuses what it does not know, because
// a misspelt filter must not list everything.
func parseListQuery(raw string) (listQuery, error) {
	q := listQuery{limit: defaultLimit}
	err := EachParameter(raw, func(name, value string) error {
		switch name {
		case "after":
			q.after = value
			if value != "" && clients.CheckID(value) != nil {
				return apiError(http.StatusBadRequest, "after is %.100q, which is not a client_id; use the 'next' of the previous page", value)
			}
		case "limit":
			limit, err := strconv.Atoi(value)
			if err != nil || limit < 1 || limit > maxLimit {
				return apiError(http.StatusBadRequest, "limit is %.100q; use a number from 1 to %d", value, maxLimit)
			}
			q.limit = limit
		case "q":
			if len(value) > maxFilter {
				return apiError(http.StatusBadRequest, "q has more than %d bytes; shorten it", maxFilter)
			}
			q.filter = strings.ToLower(value)
		case "waiting":
			if value != "true" && value != "false" {
				return apiError(http.StatusBadRequest, "waiting is %.100q; use true or false", value)
			}
			q.waiting = value == "true"
		default:
			return apiError(http.StatusBadRequest, "unknown parameter %.100q; known are after, limit, q and waiting", name)
		}
		return nil
	})
	return q, err
}

// sourceParameter returns the source that a request for one client names, or "".
func sourceParameter(r *http.Request) (name string, err error) {
	err = EachParameter(r.URL.RawQuery, func(parameter, value string) error {
		if parameter != "source" || value == "" {
			return apiError(http.StatusBadRequest, "unknown parameter %.100q; the only one is source, which names one", parameter)
		}
		name = value
		return nil
	})
	return name, err
}

// EachParameter parses a query in which no parameter may appear twice.
func EachParameter(raw string, use func(name, value string) error) error {
	parameters, err := url.ParseQuery(raw)
	if err != nil {
		return apiError(http.StatusBadRequest, "the query cannot be read: %w", err)
	}
	for name, values := range parameters {
		if len(values) > 1 {
			return apiError(http.StatusBadRequest, "parameter %.100q appears %d times; name it once", name, len(values))
		}
		if err := use(name, values[0]); err != nil {
			return err
		}
	}
	return nil
}
