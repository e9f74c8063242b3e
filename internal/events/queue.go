// Package events tells the handlers of Caddy's events what happens, off the request path.
// Handlers run programs and call servers, so they may be slow, and some never return.
package events

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxQueued is how many events may wait for their handlers.
const maxQueued = 1024

// Handlers are those who get the events.
type Handlers struct {
	// ShouldEmit reports whether anybody listens to an event. It is asked once for each
	// name, when the queue starts to run.
	ShouldEmit func(name string) bool
	// Emit calls the handlers of an event, one after another.
	Emit func(name string, data map[string]any)
	// Report is called with what a handler panicked with.
	Report func(name string, err error)
}

// Queue is a bounded queue of events. It may be used by several goroutines at once.
type Queue struct {
	names   []string
	waiting chan event
	// unheard are the events that nobody listens to, nil before the queue runs
	unheard atomic.Pointer[[]string]
	dropped atomic.Uint64
	// ending is held while an event is added; it guards ended
	ending sync.RWMutex
	ended  bool
	// OnDrop is called for every event that is dropped, unless it is nil.
	OnDrop func()
}

type event struct {
	name string
	data map[string]any
	// reached is closed instead of emitting an event, unless it is nil
	reached chan struct{}
}

// NewQueue returns a queue of the events of these names, which wait for [Queue.Run].
func NewQueue(names ...string) *Queue {
	return &Queue{names: names, waiting: make(chan event, maxQueued)}
}

// Wants reports whether somebody may listen to an event, so that its data must be
// gathered. Nobody knows before the queue runs.
func (q *Queue) Wants(name string) bool {
	unheard := q.unheard.Load()
	return unheard == nil || !slices.Contains(*unheard, name)
}

// Add queues an event. It never waits: if the queue is full, the event is dropped and
// counted. The data must not be changed any more. Add reports whether the queue is still
// there; one that has ended takes no event.
func (q *Queue) Add(name string, data map[string]any) bool {
	q.ending.RLock()
	defer q.ending.RUnlock()
	if q.ended {
		return false
	}
	select {
	case q.waiting <- event{name: name, data: data}:
	default:
		q.countDropped()
	}
	return true
}

func (q *Queue) end() {
	q.ending.Lock()
	defer q.ending.Unlock()
	q.ended = true
}

func (q *Queue) countDropped() {
	q.dropped.Add(1)
	if q.OnDrop != nil {
		q.OnDrop()
	}
}

// Run has the events handled until ctx is done. Those that still wait then are dropped
// and counted.
func (q *Queue) Run(ctx context.Context, handlers Handlers) {
	unheard := slices.DeleteFunc(slices.Clone(q.names), handlers.ShouldEmit)
	q.unheard.Store(&unheard)
	for ctx.Err() == nil {
		select {
		case e := <-q.waiting:
			if ctx.Err() != nil { // Caddy logs that as an error
				q.drop(e)
				break
			}
			q.handle(e, handlers)
		case <-ctx.Done():
		}
	}
	q.end()
	for {
		select {
		case e := <-q.waiting:
			q.drop(e)
		default:
			return
		}
	}
}

func (q *Queue) handle(e event, handlers Handlers) {
	if e.reached != nil {
		close(e.reached)
		return
	}
	if !q.Wants(e.name) { // it was added before that was known
		return
	}
	if err := emitSafely(e, handlers); err != nil {
		handlers.Report(e.name, err)
	}
}

// emitSafely turns a panic of a handler into an error; outside of a request, it would
// end the process.
func emitSafely(e event, handlers Handlers) (err error) {
	defer source.Recover("the handler", &err)
	handlers.Emit(e.name, e.data)
	return nil
}

func (q *Queue) drop(e event) {
	if e.reached != nil {
		close(e.reached)
		return
	}
	if q.Wants(e.name) { // else nobody misses it
		q.countDropped()
	}
}

// Flush waits until the handlers of the events that have been added so far have
// returned, or until ctx is done. It waits only if the queue runs.
func (q *Queue) Flush(ctx context.Context) {
	if q.unheard.Load() == nil {
		return
	}
	reached := make(chan struct{})
	select {
	case q.waiting <- event{reached: reached}:
	case <-ctx.Done():
		return
	}
	select {
	case <-reached:
	case <-ctx.Done():
	}
}

// Len returns how many events wait.
func (q *Queue) Len() int { return len(q.waiting) }

// Dropped returns how many events have been dropped.
func (q *Queue) Dropped() uint64 { return q.dropped.Load() }
