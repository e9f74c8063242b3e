// Package clientsapi serves the clients of a realm on Caddy's admin API: it lists and
// shows them, and changes those of the source that can be written to.
package clientsapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// maxRecord bounds a record and a patch, in bytes.
const maxRecord = 64 << 10

// Realm is a realm whose clients are served.
type Realm struct {
	Name    string
	Clients Directory
	// Logger gets a line for each change, and for each that is refused.
	Logger *zap.Logger
	// Changed is told each change, unless it is nil.
	Changed func(Changed)
}

// Directory has the clients of a realm.
type Directory interface {
	// Client returns the client with that ID from the source of that name. With the
	// name "", it is the one in force, or else one that waits.
	Client(id, source string) (Client, bool)
	// From returns the clients in force in the order of their IDs, from id on.
	From(id string) iter.Seq[Client]
	// Waiting returns those that are not in force, in that order.
	Waiting(id string) iter.Seq[Client]
	// Writer returns the source that changes are written to.
	Writer() (clients.Writer, bool)
	// CheckRecord returns what is wrong with a record of that source: what an update
	// with it would be refused for, or a [clients.ConflictError] if it would wait.
	CheckRecord(source, id string, record []byte) error
}

// Client is a client of one source.
type Client struct {
	ID, Source string
	// Record is the JSON text of its record.
	Record string
	// Waits is set if the record is not in force, because a client of a source with a
	// higher rank has its ID or one of its credentials.
	Waits *Waits
}

// Waits says what a record waits for.
type Waits struct {
	Holder string `json:"holder"` // the client_id of the other client
	Reason string `json:"reason"`
}

func apiError(status int, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return caddy.APIError{HTTPStatus: status, Err: err, Message: err.Error()}
}

// statusOf returns the HTTP status of an error.
func statusOf(err error) int {
	if api := (caddy.APIError{}); errors.As(err, &api) {
		return api.HTTPStatus
	}
	return http.StatusInternalServerError
}

// clientID returns the client_id in the path of a request. A slash in it must be
// escaped: Go's router redirects a path with `//` or `/../` to one without, which may
// be that of another client.
func clientID(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if strings.Count(r.URL.EscapedPath(), "/") != strings.Count("/mtls/realms/x/clients/x", "/") {
		return "", apiError(http.StatusBadRequest, `the client_id in the path has a "/"; write it as %%2F`)
	}
	if err := clients.CheckID(id); err != nil {
		return "", apiError(http.StatusBadRequest, "%w", err)
	}
	return id, nil
}

// Get answers with the record of a client.
func Get(w http.ResponseWriter, r *http.Request, realm Realm) error {
	id, err := clientID(r)
	if err != nil {
		return err
	}
	from, err := sourceParameter(r)
	if err != nil {
		return err
	}
	client, ok := realm.Clients.Client(id, from)
	if !ok {
		return unknownClient(realm, id, from)
	}
	current := newView([]byte(client.Record))
	unchanged, err := matchesNone(r.Header, current.etag)
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Mtls-Source", headerText(client.Source))
	header.Set("Mtls-Writable", strconv.FormatBool(isWritable(realm.Clients, client.Source)))
	if client.Waits != nil {
		header.Set("Mtls-Waits-For", headerText(client.Waits.Holder))
	}
	if unchanged {
		header.Set("ETag", current.etag)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return writeRecord(w, http.StatusOK, current)
}

func unknownClient(realm Realm, id, from string) error {
	if from != "" {
		return apiError(http.StatusNotFound, "source '%s' of realm '%s' has no client '%s'", from, realm.Name, id)
	}
	return apiError(http.StatusNotFound, "realm '%s' has no client '%s'", realm.Name, id)
}

// isWritable reports whether changes are written to the source of that name.
func isWritable(directory Directory, source string) bool {
	writer, ok := directory.Writer()
	return ok && writer.Info().Name == source
}

// writeRecord answers with a record as it is shown.
func writeRecord(w http.ResponseWriter, status int, v *view) error {
	w.Header().Set("ETag", v.etag)
	setJSON(w)
	w.WriteHeader(status)
	writeLine(w, v.shown)
	return nil
}

// writeLine answers with a line. A caller who has gone is not an error, which Caddy would
// log as one of the request.
func writeLine(w http.ResponseWriter, text []byte) { _, _ = w.Write(append(text, '\n')) }

func setJSON(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
}

// WriteJSON answers with a value.
func WriteJSON(w http.ResponseWriter, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	setJSON(w)
	writeLine(w, text)
	return nil
}

// headerText returns text for a header: printable ASCII.
func headerText(text string) string {
	return strings.Trim(strconv.QuoteToASCII(text), `"`)
}
