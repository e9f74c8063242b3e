// Package clients_test checks how clients are seen and changed while Caddy runs.
package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	_ "github.com/caddymtls/caddy-mtls-auth"
	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

func TestMain(m *testing.M) {
	caddy.RegisterModule(new(memory))
	rig.Main(m)
}

// memory is a source of clients that can be written to.
type memory struct{ store *shared }

// shared is what sources of all configurations share, as they would a database.
type shared struct {
	mu      sync.Mutex
	records map[string]string
	failure error
	// loading is called in the middle of each Load, if set
	loading func()
}

// stored is what the sources have now. Each test begins with an empty one.
var stored *shared

func newStore(t *testing.T, records map[string]string) *shared {
	stored = &shared{records: maps.Clone(records)}
	if stored.records == nil {
		stored.records = make(map[string]string)
	}
	t.Cleanup(func() { stored = nil })
	return stored
}

func (*memory) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mtls.clients.memory", New: func() caddy.Module { return new(memory) }}
}

func (*memory) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (m *memory) Provision(caddy.Context) error {
	m.store = stored
	return nil
}

func (m *memory) ClientSources(clients.Host) ([]clients.Source, error) {
	return []clients.Source{&memorySource{shared: m.store}}, nil
}

// memorySource hands over what it changes itself. It hears nothing of others, so what
// another configuration changes is only seen when Caddy passes it on.
type memorySource struct {
	*shared
	handing sync.Mutex
	sink    clients.Sink
}

func (s *memorySource) Info() clients.SourceInfo { return clients.SourceInfo{Name: "memory"} }

func (s *memorySource) Load(ctx context.Context, sink clients.Sink) error {
	s.handing.Lock()
	defer s.handing.Unlock()
	s.sink = sink
	s.mu.Lock()
	records, loading := maps.Clone(s.records), s.loading
	s.mu.Unlock()
	if loading != nil {
		loading()
	}
	return sink.Replace(ctx, func(yield func(clients.Entry, error) bool) {
		for _, id := range slices.Sorted(maps.Keys(records)) {
			if !yield(clients.Entry{ID: id, Record: []byte(records[id])}, nil) {
				return
			}
		}
	})
}

func (s *memorySource) Watch(ctx context.Context, _ clients.Sink) { <-ctx.Done() }

func (s *memorySource) Change(ctx context.Context, id string, decide func([]byte) ([]byte, error)) error {
	s.handing.Lock()
	defer s.handing.Unlock()
	if s.sink == nil {
		return clients.ErrUnavailable
	}
	next, err := s.decide(id, decide)
	if err != nil {
		return err
	}
	return s.sink.Update(ctx, []clients.Entry{{ID: id, Record: next}})
}

func (s *shared) decide(id string, decide func([]byte) ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return nil, s.failure
	}
	var current []byte
	if text, ok := s.records[id]; ok {
		current = []byte(text)
	}
	next, err := decide(current)
	switch {
	case err != nil:
		return nil, err
	case next == nil:
		delete(s.records, id)
	default:
		s.records[id] = string(next)
	}
	return next, nil
}

// has reports whether any record has this text.
func (s *shared) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, record := range s.records {
		if strings.Contains(record, text) {
			return true
		}
	}
	return false
}

func (s *shared) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

// reply is an answer of the admin endpoint.
type reply struct {
	status int
	header http.Header
	body   string
}

func (got reply) want(t *testing.T, status int, texts ...string) reply {
	t.Helper()
	for _, text := range append(texts, "") {
		if got.status != status || !bytes.Contains([]byte(got.body), []byte(text)) {
			t.Fatalf("the answer is %d %s, want %d %s", got.status, got.body, status, text)
		}
	}
	return got
}

// admin sends a request to the admin endpoint. Headers are pairs of a name and a value.
func admin(t *testing.T, r *rig.Rig, method, path, body string, headers ...string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:"+r.Admin+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	client := http.Client{Transport: rig.AdminClient.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(text)}
}

const (
	realmPath   = "/mtls/realms/default"
	clientsPath = realmPath + "/clients"
)

// pages returns the members of all pages of a list.
func pages(t *testing.T, r *rig.Rig, query string) iter.Seq[map[string]any] {
	return func(yield func(map[string]any) bool) {
		for after := ""; ; {
			var page struct {
				Clients []map[string]any `json:"clients"`
				Next    string           `json:"next"`
			}
			got := admin(t, r, http.MethodGet, fmt.Sprintf("%s?%s&after=%s", clientsPath, query, url.QueryEscape(after)), "").want(t, http.StatusOK)
			if err := json.Unmarshal([]byte(got.body), &page); err != nil {
				t.Fatal(err)
			}
			for _, client := range page.Clients {
				if !yield(client) {
					return
				}
			}
			if after = page.Next; after == "" {
				return
			}
		}
	}
}
