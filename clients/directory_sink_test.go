package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"
)

// guestSource is a source whose records a test chooses.
type guestSource struct {
	name    string
	entries []Entry
	fail    error
	sink    chan Sink // gets the sink of Watch
}

func newGuest(name string, records ...Record) *guestSource {
	return &guestSource{name: name, entries: entriesOf(records...), sink: make(chan Sink, 1)}
}

func entriesOf(records ...Record) (entries []Entry) {
	for i, record := range records {
		text, err := json.Marshal(record)
		if err != nil {
			panic(err)
		}
		entries = append(entries, Entry{ID: record.ClientID, Record: text, Place: fmt.Sprintf("line %d", i+1)})
	}
	return entries
}

// all hands over entries, and then the error, if any.
func all(entries []Entry, err error) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(Entry{}, err)
		}
	}
}

func (g *guestSource) Info() SourceInfo { return SourceInfo{Name: g.name} }

func (g *guestSource) Load(ctx context.Context, sink Sink) error {
	if g.fail != nil {
		return g.fail
	}
	return sink.Replace(ctx, all(g.entries, nil))
}

func (g *guestSource) Watch(ctx context.Context, sink Sink) {
	g.sink <- sink
	<-ctx.Done()
}

// watch returns the sink that the source gets.
func (w *world) watch(g *guestSource) Sink {
	w.t.Helper()
	w.Directory.Watch(w.t.Context())
	select {
	case sink := <-g.sink:
		return sink
	case <-time.After(10 * time.Second):
		w.t.Fatal("nobody watches the source")
		return nil
	}
}

// TestSourceHandsOverChanges: what a source hands over is in force when its sink
// returns.
func TestSourceHandsOverChanges(t *testing.T) {
	w := newWorld(t)
	guest := newGuest("guest", pinned("a"), pinned("b"))
	w.config.Sources = []Source{guest}
	w.mustLoad()
	w.wantClients("a b")
	sink := w.watch(guest)
	if err := sink.Update(t.Context(), append(entriesOf(pinned("c")), Entry{ID: "a"})); err != nil {
		t.Error(err)
	}
	w.wantClients("b c")
	if err := sink.Replace(t.Context(), all(entriesOf(pinned("d")), nil)); err != nil {
		t.Error(err)
	}
	w.wantClients("d")
	if err := sink.Replace(t.Context(), all(entriesOf(pinned("e")), errors.New("cut off"))); err == nil {
		t.Error("half of the records")
	}
	wrong := []Entry{{ID: "f", Place: "line 7", Wrong: errors.New("an alias")}}
	if err := sink.Replace(t.Context(), all(wrong, nil)); err == nil || err.Error() != "line 7: record 'f': an alias" {
		t.Error(err)
	}
	w.wantClients("d")
}
