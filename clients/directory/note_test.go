package directory

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// manyPinned returns the entries of as many clients.
func manyPinned(count int) []clients.Entry {
	list := make([]clients.Record, count)
	for i := range list {
		list[i] = pinned(fmt.Sprint("c", i))
	}
	return entriesOf(list...)
}

// TestShrunkSourceIsLogged: an export that was cut off between two records cannot be told
// from a shorter one, so it takes effect. The log says how many clients are gone.
func TestShrunkSourceIsLogged(t *testing.T) {
	const inForce, fewer = "client source in force", "client source has far fewer clients than before"
	for _, test := range []struct {
		before, after int
		warns         bool
	}{
		{100, 49, true}, {100, 50, false}, {101, 50, true}, {99, 1, false}, {100, 0, true}, {10, 200, false},
	} {
		core, logs := observer.New(zapcore.InfoLevel)
		w := newWorld(t)
		w.config.Logger = zap.New(core)
		guest := newGuest("guest")
		guest.entries = manyPinned(test.before)
		w.config.Sources = []clients.Source{guest}
		w.mustLoad()
		if logs.Len() != 0 {
			t.Errorf("at the start: %v", logs.All())
		}
		sink := w.watch(guest)
		for range 2 { // the second time, nothing changes
			if err := sink.Replace(t.Context(), all(manyPinned(test.after), nil)); err != nil {
				t.Fatal(err)
			}
		}
		want := map[string]any{"source": "clients:guest", "place": "guest", "clients": int64(test.after), "before": int64(test.before)}
		lines := logs.FilterMessage(inForce).All()
		if len(lines) != 1 || fmt.Sprint(lines[0].ContextMap()) != fmt.Sprint(want) {
			t.Errorf("%d to %d: %v, want %v", test.before, test.after, lines, want)
		}
		lines = logs.FilterMessage(fewer).All()
		switch {
		case !test.warns && len(lines) > 0:
			t.Errorf("%d to %d: %v", test.before, test.after, lines)
		case test.warns && (len(lines) != 1 || lines[0].Level != zap.WarnLevel || fmt.Sprint(lines[0].ContextMap()) != fmt.Sprint(want)):
			t.Errorf("%d to %d: %v, want %v", test.before, test.after, lines, want)
		}

		logs.TakeAll()
		if err := sink.Update(t.Context(), entriesOf(pinned("another"))); err != nil {
			t.Fatal(err)
		}
		if lines := logs.All(); len(lines) != 1 || lines[0].ContextMap()["clients"] != int64(test.after+1) || lines[0].ContextMap()["before"] != nil {
			t.Errorf("an update: %v", lines)
		}
	}
}

// TestEndOfTheConfigurationIsNoFailure: the end of a configuration interrupts what its
// sources are reading. Nothing is wrong with them.
func TestEndOfTheConfigurationIsNoFailure(t *testing.T) {
	for name, fail := range map[string]func(ctx context.Context, sink clients.Sink){
		"all records": func(ctx context.Context, sink clients.Sink) { _ = sink.Replace(ctx, all(nil, ctx.Err())) },
		"one record":  func(ctx context.Context, sink clients.Sink) { _ = sink.Update(ctx, manyPinned(1)) },
		"no record":   func(ctx context.Context, sink clients.Sink) { sink.Note(ctx.Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			guest := newGuest("guest", pinned("a"))
			var ended atomic.Bool
			failures := 0
			w.config.Sources, w.config.Ended = []clients.Source{guest}, ended.Load
			w.config.Failed = func(string) { failures++ }
			w.mustLoad()
			sink := w.watch(guest)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			ended.Store(true)
			fail(ctx, sink)
			w.saw()
			if failures > 0 {
				t.Errorf("%d failures are counted", failures)
			}
			ended.Store(false)
			sink.Note(nil)
			fail(ctx, sink)
			if failures != 1 {
				t.Errorf("%d failures are counted before the end", failures)
			}
		})
	}
}

// TestChangeOfAnotherClientEndsNoFailure: a source hands over a wrong record again and
// again, and a change of another client in between. That is one failure.
func TestChangeOfAnotherClientEndsNoFailure(t *testing.T) {
	w := newWorld(t)
	guest := newGuest("guest", pinned("a"))
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	sink := w.watch(guest)
	wrong := []clients.Entry{{ID: "b", Record: []byte(`{"client_id":"b"}`)}}
	fail := func() {
		t.Helper()
		if err := sink.Update(t.Context(), wrong); err == nil {
			t.Fatal("the wrong record is in force")
		}
	}
	put := func(id string) {
		t.Helper()
		if err := sink.Update(t.Context(), entriesOf(pinned(id))); err != nil {
			t.Fatal(err)
		}
	}
	const failed, inForce = "clients:guest, guest: client 'b': no credential", "clients:guest, guest: <nil>"
	fail()
	w.saw(failed)
	for _, id := range []string{"c", "d"} {
		put(id)
		fail()
		if w.Registry().Client(id) == nil || w.state("clients:guest").Failure == "" {
			t.Errorf("after a change of %s: %+v", id, w.state("clients:guest"))
		}
	}
	w.saw()
	put("b")
	w.saw(inForce)

	// what is wrong has gone
	for name, end := range map[string]func(){
		"nothing has changed": func() { sink.Note(nil) },
		"another change":      func() { put("f") },
		"it is removed":       func() { _ = sink.Update(t.Context(), []clients.Entry{{ID: "b"}}) },
	} {
		fail()
		w.saw(failed)
		put("e" + name[:2])
		w.saw()
		end()
		w.saw(inForce)
		if failure := w.state("clients:guest").Failure; failure != "" {
			t.Errorf("%s: %s", name, failure)
		}
	}
}

// stubborn is a source that takes no notice of the end of its Load.
type stubborn struct {
	clients.SourceInfo
	calls atomic.Int64
	end   chan struct{}
}

func (s *stubborn) Info() clients.SourceInfo { return s.SourceInfo }

func (s *stubborn) Load(_ context.Context, sink clients.Sink) error {
	for {
		select {
		case <-s.end:
			return nil
		case <-time.After(50 * time.Microsecond):
			sink.Note(nil)
			s.calls.Add(1)
		}
	}
}

func (s *stubborn) Watch(context.Context, clients.Sink) {}

// TestSourceThatIsNotWaitedFor is for the race detector: a source still hands over when
// the clients of the running configuration have been taken over.
func TestSourceThatIsNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	now := w.now
	w.config.Now, w.config.Logger = func() time.Time { return now }, nil // which have a lock
	w.config.Sources = []clients.Source{newGuest("guest", pinned("a"))}
	w.mustLoad()
	source := &stubborn{SourceInfo: clients.SourceInfo{Name: "guest", LoadTimeout: time.Nanosecond}, end: make(chan struct{})}
	defer close(source.end)
	w.config.Before, w.config.Sources = w.Directory, []clients.Source{source}
	w.mustLoad()
	w.wantClients("a")
	for before := source.calls.Load(); source.calls.Load() < before+2; {
		time.Sleep(time.Millisecond)
	}
}
