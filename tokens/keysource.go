package tokens

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ensureWait is how long one request waits for keys at most.
	ensureWait = 5 * time.Second
	// attemptTimeout bounds one attempt to load or create keys. It is longer
	// than any request waits, so that an attempt can outlive a lock left
	// behind by a node that died.
	attemptTimeout = 30 * time.Second
	// retryPause is how long after a failure no new attempt is made.
	retryPause = 2 * time.Second
)

// KeySource hands out the keyring at run time: a fixed one, or one that is
// managed in storage and may not be there yet. It is safe for concurrent use.
type KeySource struct {
	current atomic.Pointer[Keyring]
	store   *KeyStore // nil if fixed
	wait    time.Duration

	mu      sync.Mutex
	running *attempt
	failure error
	retryAt time.Time
}

// attempt is one run of KeyStore.LoadOrCreate that several callers wait for.
type attempt struct {
	done chan struct{}
	ring *Keyring
	err  error
}

// FixedKeys is the source of a keyring that never changes, such as that of a
// key file.
func FixedKeys(ring *Keyring) *KeySource {
	s := &KeySource{}
	s.current.Store(ring)
	return s
}

// ManagedKeys is the source of the keys in store. It reads nothing yet. first
// is used until then, so that a server that reloads its configuration while
// storage is away goes on signing; it must be of the same issuer and algorithm,
// or nil.
func ManagedKeys(store *KeyStore, first *Keyring) *KeySource {
	s := &KeySource{store: store, wait: ensureWait}
	s.current.Store(first)
	return s
}

// Current returns the keyring, or nil if there is none yet. It never blocks.
func (s *KeySource) Current() *Keyring { return s.current.Load() }

// Algorithm returns what the source's signing key signs with.
func (s *KeySource) Algorithm() Algorithm {
	if s.store != nil {
		return s.store.algorithm()
	}
	return s.Current().Signing().Algorithm()
}

// Load reads the keyring from storage, without changing anything there, and
// makes it the current one. If that fails the current one stays. It returns
// the errors of [KeyStore.Load].
func (s *KeySource) Load(ctx context.Context) (*Keyring, error) {
	if s.store == nil {
		return s.Current(), nil
	}
	ring, err := s.store.Load(ctx)
	if err != nil {
		return nil, err
	}
	s.current.Store(ring)
	return ring, nil
}

// Ensure returns the keyring and, if there is none yet, loads or creates it.
// Any number of callers share one attempt; each waits for it until its ctx
// ends, 5 s at most. For 2 s after an attempt has failed its error is returned
// at once, so that requests do not hammer a storage that is down.
func (s *KeySource) Ensure(ctx context.Context) (*Keyring, error) {
	if ring := s.Current(); ring != nil {
		return ring, nil
	}
	a, err := s.join()
	if err != nil {
		return nil, err
	}
	timeout := time.NewTimer(s.wait)
	defer timeout.Stop()
	select {
	case <-a.done:
		return a.ring, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the signing keys: %w", ctx.Err())
	case <-timeout.C:
		return nil, fmt.Errorf("storage did not hand out the signing keys within %v", s.wait)
	}
}

// join returns the running attempt and starts one if there is none, or returns
// the error of the last one if that is too recent.
func (s *KeySource) join() (*attempt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return s.running, nil
	}
	if s.failure != nil && s.store.now().Before(s.retryAt) {
		return nil, s.failure
	}
	a := &attempt{done: make(chan struct{})}
	if ring := s.Current(); ring != nil { // it arrived while we waited for mu
		a.ring = ring
		close(a.done)
		return a, nil
	}
	s.running = a
	go s.run(a)
	return a, nil
}

// run carries out one attempt. It belongs to no single request, so it ends
// with none.
func (s *KeySource) run(a *attempt) {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	a.ring, a.err = s.loadOrCreate(ctx)
	if a.err == nil {
		s.current.Store(a.ring)
	}

	s.mu.Lock()
	s.running = nil
	s.failure = a.err
	s.retryAt = s.store.now().Add(retryPause)
	s.mu.Unlock()
	close(a.done)
}

// Wait returns when no attempt to load or create keys is running, or when ctx
// is done. Whoever shuts down calls it, so that no key is half written.
func (s *KeySource) Wait(ctx context.Context) {
	s.mu.Lock()
	a := s.running
	s.mu.Unlock()
	if a == nil {
		return
	}
	select {
	case <-a.done:
	case <-ctx.Done():
	}
}

// loadOrCreate turns a panic of a storage module into an error: outside of a
// request it would end the whole server.
func (s *KeySource) loadOrCreate(ctx context.Context) (ring *Keyring, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("storage panicked: %v", p)
		}
	}()
	return s.store.LoadOrCreate(ctx)
}
