package keyring

import (
	"context"
	"sync"
	"time"
)

// attempt is one run of work on storage that several callers may wait for.
type attempt struct {
	began time.Time
	done  chan struct{}
	ring  *Keyring
	err   error
}

// attempts runs one attempt at a time.
type attempts struct {
	mu      sync.Mutex
	running *attempt
}

// join returns the running attempt, or starts one that calls run. An attempt
// does not belong to any single request, so it does not end with one.
func (a *attempts) join(now time.Time, run func() (*Keyring, error)) (one *attempt, started bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running != nil {
		return a.running, false
	}
	one = &attempt{began: now, done: make(chan struct{})}
	a.running = one
	go func() {
		one.ring, one.err = run()
		a.mu.Lock()
		a.running = nil
		a.mu.Unlock()
		close(one.done)
	}()
	return one, true
}

// wait returns when no attempt is running, or when ctx is done.
func (a *attempts) wait(ctx context.Context) {
	a.mu.Lock()
	running := a.running
	a.mu.Unlock()
	if running == nil {
		return
	}
	select {
	case <-running.done:
	case <-ctx.Done():
	}
}
