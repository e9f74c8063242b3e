package clientsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// store is a source that can be written to, and the directory that has its clients and
// those of other sources.
type store struct {
	mu      sync.Mutex
	records map[string]string // of the source that is written to
	fixed   []Client          // of others, or waiting
	failure error
	stored  error  // what is wrong after a record has been stored
	panics  string // "before" or "after" it decides
	noStore bool
	visited int
}

const storeName = "storage"

func (*store) Info() clients.SourceInfo                 { return clients.SourceInfo{Name: storeName} }
func (*store) Load(context.Context, clients.Sink) error { return nil }
func (*store) Watch(context.Context, clients.Sink)      {}

func (s *store) Change(ctx context.Context, id string, decide func([]byte) ([]byte, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.failure != nil {
		return s.failure
	}
	if s.panics == "before" {
		panic("a bug")
	}
	var current []byte
	if text, ok := s.records[id]; ok {
		current = []byte(text)
	}
	next, err := decide(current)
	if err != nil {
		return err
	}
	if s.panics == "after" {
		panic("a bug")
	}
	if next == nil {
		delete(s.records, id)
	} else {
		s.records[id] = string(next)
	}
	return s.stored
}

func (s *store) Writer() (clients.Writer, bool) { return s, !s.noStore }

func (s *store) all(waiting bool) []Client {
	var list []Client
	for id, text := range s.records {
		list = append(list, Client{ID: id, Source: storeName, Record: text})
	}
	list = slices.DeleteFunc(append(list, s.fixed...), func(c Client) bool { return (c.Waits != nil) != waiting })
	slices.SortFunc(list, func(a, b Client) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func (s *store) Client(id, source string) (Client, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range append(s.all(false), s.all(true)...) {
		if c.ID == id && (source == "" || c.Source == source) {
			return c, true
		}
	}
	return Client{}, false
}

func (s *store) from(id string, waiting bool) iter.Seq[Client] {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.all(waiting)
	return func(yield func(Client) bool) {
		for _, c := range list {
			if c.ID >= id {
				s.visited++
				if !yield(c) {
					return
				}
			}
		}
	}
}

func (s *store) From(id string) iter.Seq[Client]    { return s.from(id, false) }
func (s *store) Waiting(id string) iter.Seq[Client] { return s.from(id, true) }

func (s *store) CheckRecord(_, _ string, text []byte) error {
	var record clients.Record
	switch err := json.Unmarshal(text, &record); {
	case err != nil:
		return err
	case slices.Contains(record.Thumbprints, "taken"):
		return fmt.Errorf("thumbprint 'taken' is that of client 'other' too: %w", new(clients.ConflictError))
	case !record.HasCredential():
		return errors.New("client has no credential; add one")
	}
	return nil
}

// api serves a realm as Caddy's admin endpoint does.
type api struct {
	*store
	http.Handler
	audit *observer.ObservedLogs
}

func newAPI(records ...string) *api {
	s := &store{records: make(map[string]string)}
	for _, record := range records {
		var r clients.Record
		if err := json.Unmarshal([]byte(record), &r); err != nil {
			panic(err)
		}
		s.records[r.ClientID] = record
	}
	core, logs := observer.New(zapcore.InfoLevel)
	realm := Realm{Name: "default", Clients: s, Logger: zap.New(core)}
	mux := http.NewServeMux()
	handle := func(pattern string, serve func(http.ResponseWriter, *http.Request, Realm) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			err := serve(w, r, realm)
			if err == nil {
				return
			}
			var api caddy.APIError
			if !errors.As(err, &api) {
				panic(err)
			}
			w.WriteHeader(api.HTTPStatus)
			_, _ = io.WriteString(w, api.Message)
		})
	}
	handle("GET /mtls/realms/{realm}/clients", List)
	handle("GET /mtls/realms/{realm}/clients/{id...}", Get)
	handle("PUT /mtls/realms/{realm}/clients/{id...}", Put)
	handle("PATCH /mtls/realms/{realm}/clients/{id...}", Patch)
	handle("DELETE /mtls/realms/{realm}/clients/{id...}", Delete)
	return &api{s, mux, logs}
}

const clientsPath = "/mtls/realms/default/clients"

// ask sends a request. Headers are pairs of a name and a value.
func (a *api) ask(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

func (a *api) etag(t *testing.T, id string) string {
	t.Helper()
	w := a.ask(http.MethodGet, clientsPath+"/"+escapeID(id), "")
	if w.Code != http.StatusOK || w.Header().Get("ETag") == "" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Header().Get("ETag")
}

func want(t *testing.T, w *httptest.ResponseRecorder, status int, text string) {
	t.Helper()
	if w.Code != status || !strings.Contains(w.Body.String(), text) {
		t.Errorf("the answer is %d %s, want %d %q", w.Code, w.Body, status, text)
	}
}

func keys(records map[string]string) []string { return slices.Sorted(maps.Keys(records)) }
