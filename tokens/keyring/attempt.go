package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// attempt is one run of work on storage that several callers may wait for.
type attempt struct {
	began time.Time
	done  chan struct{}
	ring  *Keyring
	err   error
}

// worker does the work on storage, one attempt at a time.
type worker struct {
	live
	wait time.Duration // of a request
	read atomic.Int64  // when storage was last read, Unix seconds

	mu      sync.Mutex
	running *attempt
	failure error // of the last attempt
	retryAt time.Time
}

// Wait returns when no attempt to read or change keys is running, or when ctx
// is done. Call it before [Source.End], so that no key is half written.
func (w *worker) Wait(ctx context.Context) {
	w.mu.Lock()
	running := w.running
	w.mu.Unlock()
	if running == nil {
		return
	}
	select {
	case <-running.done:
	case <-ctx.Done():
	}
}

// runAlone does work on storage once no other work is running.
func (w *worker) runAlone(ctx context.Context, work func(context.Context) (schedule, error)) (*attempt, error) {
	for {
		a, started := w.attempt(work)
		if err := w.waitFor(ctx, a); err != nil {
			return nil, err
		}
		if started {
			return a, nil
		}
	}
}

// waitFor waits for an attempt, as long as a request may.
func (w *worker) waitFor(ctx context.Context, a *attempt) error {
	timeout := time.NewTimer(w.wait)
	defer timeout.Stop()
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the signing keys: %w", ctx.Err())
	case <-timeout.C:
		return fmt.Errorf("storage did not answer about the signing keys within %v", w.wait)
	}
}

// attempt joins the running attempt, or starts one that does work and makes
// its keys the current ones. An attempt does not belong to any single request,
// so it does not end with one.
func (w *worker) attempt(work func(context.Context) (schedule, error)) (a *attempt, started bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running != nil {
		return w.running, false
	}
	a = &attempt{began: w.store.Now(), done: make(chan struct{})}
	w.running = a
	go func() {
		defer close(a.done)
		ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
		defer cancel()
		keys, err := guard(ctx, work)
		a.ring, a.err = w.use(keys), err
		if errors.Is(err, errNoKey) || errors.Is(err, ErrAnnounced) {
			err = nil // storage has answered
		}
		w.noteOutcome(err)
		w.mu.Lock()
		w.running = nil
		w.mu.Unlock()
	}()
	return a, true
}

// guard calls work and turns a panic into an error.
func guard(ctx context.Context, work func(context.Context) (schedule, error)) (keys schedule, err error) {
	defer source.Recover("storage", &err)
	return work(ctx)
}

// noteOutcome remembers the outcome of an attempt, and reports it when storage
// starts to fail or works again.
func (w *worker) noteOutcome(err error) {
	w.mu.Lock()
	changed := (w.failure != nil) != (err != nil)
	w.failure, w.retryAt = err, w.store.Now().Add(retryPause)
	w.mu.Unlock()
	if err == nil {
		w.read.Store(w.store.Now().Unix())
	}
	switch {
	case w.store.ended.Load(): // the storage may have been closed too
	case changed && err != nil:
		w.store.Report(EventUnavailable, w.store.folder(), err)
	case changed:
		w.store.Report(EventReadable, w.store.folder(), nil)
	}
}

// LastRead returns when storage was last read without an error, the zero time
// if never or if the keys are fixed.
func (w *worker) LastRead() time.Time {
	if seconds := w.read.Load(); seconds != 0 {
		return time.Unix(seconds, 0)
	}
	return time.Time{}
}

// Failure returns why storage could not be read or changed last, or nil.
func (w *worker) Failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure
}
