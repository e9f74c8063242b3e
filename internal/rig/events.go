package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() { caddy.RegisterModule(new(eventHandler)) }

// eventSinks maps names to the [Events] that [eventHandler] tells.
var eventSinks sync.Map

// Events records the events that the handler `rig <name>` is called with. The name is the
// test's.
type Events struct {
	// Handle is called with each event, unless it is nil.
	Handle func(caddy.Event) error

	mu   sync.Mutex
	seen []caddy.Event
}

// NewEvents returns a recorder for `events { on <event> rig <name> }`.
func NewEvents(t *testing.T) *Events {
	sink := new(Events)
	eventSinks.Store(t.Name(), sink)
	t.Cleanup(func() { eventSinks.Delete(t.Name()) })
	return sink
}

// All returns the events of a name so far.
func (s *Events) All(name string) (found []caddy.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, event := range s.seen {
		if event.Name() == name {
			found = append(found, event)
		}
	}
	return found
}

// Wait waits for the n-th event of a name and returns its data.
func (s *Events) Wait(t *testing.T, n int, name string) map[string]any {
	t.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) {
		if found := s.All(name); len(found) >= n {
			return found[n-1].Data
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events %s within %v, want %d", len(s.All(name)), name, Patience, n)
		}
	}
}

// Check waits for the n-th event of a name and checks all its data, of which times,
// identifiers and the like are only checked to be there if they are wanted as "*".
func (s *Events) Check(t *testing.T, n int, name string, want map[string]any) {
	t.Helper()
	got := maps.Clone(s.Wait(t, n, name))
	for key, value := range want {
		if fmt.Sprint(got[key]) != fmt.Sprint(value) && (value != "*" || got[key] == nil || got[key] == "") {
			t.Errorf("%s: %s is %#v, want %#v", name, key, got[key], value)
		}
		delete(got, key)
	}
	if len(got) > 0 {
		t.Errorf("%s also has %v", name, got)
	}
}

// eventHandler is the event handler `rig <name>`.
type eventHandler struct {
	Sink string `json:"sink,omitempty"`

	sink *Events
}

// CaddyModule returns the module's ID.
func (*eventHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.rig", New: func() caddy.Module { return new(eventHandler) }}
}

// UnmarshalCaddyfile reads `rig <name>`.
func (h *eventHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&h.Sink) {
		return d.ArgErr()
	}
	return nil
}

// Provision finds the recorder.
func (h *eventHandler) Provision(caddy.Context) error {
	known, ok := eventSinks.Load(h.Sink)
	if !ok {
		return errors.New("there are no events '" + h.Sink + "'")
	}
	h.sink = known.(*Events)
	return nil
}

// Handle records an event.
func (h *eventHandler) Handle(_ context.Context, event caddy.Event) error {
	h.sink.mu.Lock()
	h.sink.seen = append(h.sink.seen, event)
	h.sink.mu.Unlock()
	if h.sink.Handle == nil {
		return nil
	}
	return h.sink.Handle(event)
}
