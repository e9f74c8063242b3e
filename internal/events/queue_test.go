package events

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// handled records the events that a queue emits.
type handled struct {
	mu    sync.Mutex
	names []string
}

func (h *handled) add(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names = append(h.names, name)
}

func (h *handled) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.names)
}

// run returns a queue whose events "a" and "b" somebody listens to, functions that start
// and end it, and a channel that is closed when it has ended.
func run(t *testing.T, emit func(string, map[string]any), report func(string, error)) (q *Queue, start, end func(), ended chan struct{}) {
	t.Helper()
	q, ended = NewQueue("a", "b", "c"), make(chan struct{})
	ctx, end := context.WithCancel(t.Context())
	start = func() {
		go func() {
			defer close(ended)
			q.Run(ctx, Handlers{ShouldEmit: func(name string) bool { return name != "c" }, Emit: emit, Report: report})
		}()
	}
	return q, start, end, ended
}

// TestEventsWaitForTheStart checks that events from before the start are kept until it
// is known who listens, and that nothing is gathered for nobody after that.
func TestEventsWaitForTheStart(t *testing.T) {
	var seen handled
	q, start, _, _ := run(t, func(name string, _ map[string]any) { seen.add(name) }, nil)
	for _, name := range []string{"a", "c", "b"} {
		if !q.Wants(name) {
			t.Errorf("before the start, %q is not wanted", name)
		}
		q.Add(name, nil)
	}
	q.Flush(t.Context()) // does not wait
	if got := seen.all(); len(got) > 0 {
		t.Errorf("before the start: %q", got)
	}
	start()
	for q.Wants("c") || q.Len() > 0 {
		q.Flush(t.Context())
	}
	q.Add("a", nil)
	q.Flush(t.Context())
	if got := strings.Join(seen.all(), ""); got != "aba" {
		t.Errorf("handled %q, want aba", got)
	}
}

// TestHandlerThatHangs checks that a handler that does not return holds up nobody who
// adds events, and that what does not fit is counted.
func TestHandlerThatHangs(t *testing.T) {
	hanging, release := make(chan struct{}, 1), make(chan struct{})
	q, start, end, ended := run(t, func(string, map[string]any) {
		hanging <- struct{}{}
		<-release
	}, nil)
	var told atomic.Int64
	q.OnDrop = func() { told.Add(1) }
	start()
	q.Add("a", nil)
	<-hanging
	for range maxQueued + 5 {
		q.Add("b", nil)
	}
	if q.Len() != maxQueued || q.Dropped() != 5 {
		t.Errorf("%d events wait and %d were dropped, want %d and 5", q.Len(), q.Dropped(), maxQueued)
	}
	// neither of the two ways to wait outlasts the context
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.Flush(ctx)
	end()
	close(release)
	<-ended
	if q.Len() != 0 || q.Dropped() != maxQueued+5 || told.Load() != maxQueued+5 {
		t.Errorf("at the end %d events wait and %d were dropped, want 0 and %d", q.Len(), q.Dropped(), maxQueued+5)
	}
}

// TestHandlerThatPanics checks that a panic of a handler is reported, and that the next
// event is handled.
func TestHandlerThatPanics(t *testing.T) {
	var seen, reported handled
	q, start, _, _ := run(t, func(name string, _ map[string]any) {
		if name == "a" {
			panic("no mail server")
		}
		seen.add(name)
	}, func(name string, err error) { reported.add(name + ": " + err.Error()) })
	start()
	q.Add("a", nil)
	q.Add("b", nil)
	for len(seen.all()) == 0 {
		q.Flush(t.Context())
	}
	if got := reported.all(); len(got) != 1 || got[0] != "a: the handler panicked: no mail server" {
		t.Errorf("reported %q", got)
	}
}

// TestNobodyMissesUnheardEvents checks that an event that nobody listens to does not count
// as dropped when the configuration ends before it is handled.
func TestNobodyMissesUnheardEvents(t *testing.T) {
	q, start, end, ended := run(t, func(string, map[string]any) {}, nil)
	q.Add("c", nil)
	q.Add("a", nil)
	end()
	start()
	<-ended
	if q.Dropped() != 1 {
		t.Errorf("%d events were dropped, want 1", q.Dropped())
	}
}

// TestNoEventIsLostAtTheEnd checks that each event that a queue takes while it ends is
// handled or counted, and that the queue takes none after that.
func TestNoEventIsLostAtTheEnd(t *testing.T) {
	var emitted, taken atomic.Int64
	q, start, end, ended := run(t, func(string, map[string]any) { emitted.Add(1) }, nil)
	start()
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for q.Add("a", nil) {
				taken.Add(1)
			}
		})
	}
	for emitted.Load() == 0 {
		runtime.Gosched()
	}
	end()
	work.Wait()
	<-ended
	if handled := emitted.Load() + int64(q.Dropped()); handled != taken.Load() || q.Len() > 0 {
		t.Errorf("%d events were taken and %d handled or dropped, %d wait", taken.Load(), handled, q.Len())
	}
}
