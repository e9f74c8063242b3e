package keyring

import (
	"context"
	"errors"
	"fmt"
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

// Keep reads storage at once and then every 30 s, or more often where keys are
// announced for less than 150 s, and does what is due, until ctx is done.
// While storage hangs it starts nothing more, and reports that like any
// failure. With fixed keys it returns at once.
func (s *Source) Keep(ctx context.Context) {
	if s.store == nil {
		return
	}
	source.Poll(ctx, s.store.refreshInterval(), func(context.Context) error {
		a, _ := s.attempt(s.upkeep)
		if waited := s.store.Now().Sub(a.began); waited >= attemptTimeout {
			s.noteOutcome(fmt.Errorf("storage has not answered for %v", waited.Truncate(time.Second)))
		}
		return nil
	}, nil)
}

// refreshSoon reads storage in the background, at most every 5 s, because
// anybody can invent a `kid`.
func (s *Source) refreshSoon() {
	if s.store == nil {
		return
	}
	now := s.store.Now().UnixNano()
	next := s.asked.Load()
	// a wait that is too long comes from a clock that has gone back
	if wait := next - now; wait > 0 && wait <= int64(askPause) || !s.asked.CompareAndSwap(next, now+int64(askPause)) {
		return
	}
	s.attempt(s.upkeep)
}

// Wait returns when no attempt to read or change keys is running, or when ctx
// is done. Call it before [Source.End], so that no key is half written.
func (s *Source) Wait(ctx context.Context) {
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	if running == nil {
		return
	}
	select {
	case <-running.done:
	case <-ctx.Done():
	}
}

// End ends all changes to storage, because they are now up to another source:
// this one creates, retires and deletes no more keys. It still reads storage, so
// that it learns which keys have been retired, but reports no failure of that.
func (s *Source) End() {
	if s.store != nil {
		s.store.ended.Store(true)
	}
}

// upkeep reads storage and does what is due there.
func (s *Source) upkeep(ctx context.Context) (schedule, error) {
	return s.store.maintain(ctx, s.localKeys())
}

// runAlone does work on storage once no other work is running.
func (s *Source) runAlone(ctx context.Context, work func(context.Context) (schedule, error)) (*attempt, error) {
	for {
		a, started := s.attempt(work)
		if err := s.waitFor(ctx, a); err != nil {
			return nil, err
		}
		if started {
			return a, nil
		}
	}
}

// waitFor waits for an attempt, as long as a request may.
func (s *Source) waitFor(ctx context.Context, a *attempt) error {
	timeout := time.NewTimer(s.wait)
	defer timeout.Stop()
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the signing keys: %w", ctx.Err())
	case <-timeout.C:
		return fmt.Errorf("storage did not answer about the signing keys within %v", s.wait)
	}
}

// attempt joins the running attempt, or starts one that does work and makes
// its keys the current ones. An attempt does not belong to any single request,
// so it does not end with one.
func (s *Source) attempt(work func(context.Context) (schedule, error)) (a *attempt, started bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return s.running, false
	}
	a = &attempt{began: s.store.Now(), done: make(chan struct{})}
	s.running = a
	go func() {
		defer close(a.done)
		ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
		defer cancel()
		keys, err := guard(ctx, work)
		a.ring, a.err = s.use(keys), err
		if errors.Is(err, errNoKey) || errors.Is(err, ErrAnnounced) {
			err = nil // storage has answered
		}
		s.noteOutcome(err)
		s.mu.Lock()
		s.running = nil
		s.mu.Unlock()
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
func (s *Source) noteOutcome(err error) {
	s.mu.Lock()
	changed := (s.failure != nil) != (err != nil)
	s.failure, s.retryAt = err, s.store.Now().Add(retryPause)
	s.mu.Unlock()
	if err == nil {
		s.read.Store(s.store.Now().Unix())
	}
	switch {
	case s.store.ended.Load(): // the storage may have been closed too
	case changed && err != nil:
		s.store.Report(EventUnavailable, s.store.folder(), err)
	case changed:
		s.store.Report(EventReadable, s.store.folder(), nil)
	}
}
