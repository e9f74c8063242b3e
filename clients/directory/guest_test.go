package directory

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// guestSource is a source whose records a test chooses.
type guestSource struct {
	clients.SourceInfo
	entries []clients.Entry
	fail    error // of Load
	panics  bool
	hangs   chan struct{}     // Load waits for it, whatever its context says
	sink    chan clients.Sink // gets the sink of Watch
}

func newGuest(name string, records ...clients.Record) *guestSource {
	return &guestSource{SourceInfo: clients.SourceInfo{Name: name}, entries: entriesOf(records...), sink: make(chan clients.Sink, 1)}
}

func entriesOf(records ...clients.Record) (entries []clients.Entry) {
	for i, record := range records {
		text, err := json.Marshal(record)
		if err != nil {
			panic(err)
		}
		entries = append(entries, clients.Entry{ID: record.ClientID, Record: text, Place: fmt.Sprintf("line %d", i+1)})
	}
	return entries
}

// all hands over entries, and then the error, if any.
func all(entries []clients.Entry, err error) iter.Seq2[clients.Entry, error] {
	return func(yield func(clients.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(clients.Entry{}, err)
		}
	}
}

func (g *guestSource) Info() clients.SourceInfo { return g.SourceInfo }

func (g *guestSource) Load(ctx context.Context, sink clients.Sink) error {
	if g.panics {
		panic("a bug")
	}
	if g.hangs != nil {
		<-g.hangs
	}
	if g.fail != nil {
		return g.fail
	}
	return sink.Replace(ctx, all(g.entries, nil))
}

func (g *guestSource) Watch(ctx context.Context, sink clients.Sink) {
	if g.panics {
		panic("a bug")
	}
	g.sink <- sink
	<-ctx.Done()
}

// watch returns the sink that the source gets.
func (w *world) watch(g *guestSource) clients.Sink {
	w.t.Helper()
	w.Directory.Watch(w.t.Context())
	select {
	case sink := <-g.sink:
		return sink
	case <-time.After(time.Minute):
		w.t.Fatal("nobody watches the source")
		return nil
	}
}

// waitFor waits until a line with a text has been said.
func (w *world) waitFor(text string) {
	w.t.Helper()
	said := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.said, func(line string) bool { return strings.Contains(line, text) })
	}
	for deadline := time.Now().Add(time.Minute); !said(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("nobody said %q", text)
		}
	}
}

// tookNote takes what was said and wants a line with the text among it.
func (w *world) tookNote(text string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.ContainsFunc(w.said, func(line string) bool { return strings.Contains(line, text) }) {
		w.t.Errorf("said %q, want %q", w.said, text)
	}
	w.said = nil
}
