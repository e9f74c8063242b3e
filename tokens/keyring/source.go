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

const (
	// ensureWait is how long one request waits for keys at most.
	ensureWait = 5 * time.Second
	// attemptTimeout bounds one attempt to read or change keys. It is longer
	// than any request waits, so that an attempt can outlive a lock left
	// behind by a node that died.
	attemptTimeout = 30 * time.Second
	// retryPause is how long after a failure no request makes a new attempt.
	retryPause = 2 * time.Second
	// askPause is how often those who do not know a key can have storage read.
	askPause = 5 * time.Second
)

// Source hands out the keyring at run time: a fixed one, or one that is
// managed in storage and may not be there yet. It is safe for concurrent use.
type Source struct {
	current atomic.Pointer[Keyring]
	store   *Store // nil if fixed
	wait    time.Duration

	read  atomic.Int64 // when storage was last read, Unix seconds
	asked atomic.Int64 // when storage may be asked again, Unix nanoseconds

	mu      sync.Mutex
	running *attempt
	failure error // of the last attempt
	retryAt time.Time
	down    bool // it has been reported that storage fails
}

// attempt is one run of storage that several callers wait for.
type attempt struct {
	began time.Time
	done  chan struct{}
	ring  *Keyring
	kid   string // of the key that was made on demand
	err   error
}

// Fixed is the source of a keyring that never changes, such as that of a
// key file.
func Fixed(ring *Keyring) *Source {
	s := &Source{}
	s.current.Store(ring)
	return s
}

// Managed is the source of the keys in store. It reads nothing yet. running
// is the source that it takes the place of, or nil: its keys are used at once,
// so that a server that reloads its configuration while storage is away goes
// on signing and publishes what it did. Keys of another issuer and fixed ones
// are not taken over.
func Managed(store *Store, running *Source) *Source {
	s := &Source{store: store, wait: ensureWait}
	if running == nil || running.store == nil || running.store.Issuer != store.Issuer {
		return s
	}
	store.rememberAll(running.store)
	if ring := running.current.Load(); ring != nil {
		s.current.Store(ring.life.ring(store.now(), store.VerifyKeys))
		s.read.Store(running.read.Load())
	}
	return s
}

// Current returns the keyring, or nil if there is none yet. It never blocks. A
// key whose time has come signs from that moment on, whether or not storage
// can be reached.
func (s *Source) Current() *Keyring {
	ring := s.current.Load()
	if ring == nil || ring.until.IsZero() {
		return ring
	}
	now := s.store.now()
	if now.Before(ring.until) {
		return ring
	}
	return s.swap(ring, ring.life.ring(now, s.store.VerifyKeys))
}

// swap puts a keyring in the place of another, and returns the current one.
func (s *Source) swap(old, ring *Keyring) *Keyring {
	if !s.current.CompareAndSwap(old, ring) {
		return s.current.Load()
	}
	if old != nil && old.Signing().id != ring.Signing().id {
		s.store.report(EventActive, s.store.path(ring.Signing().id), nil)
	}
	return ring
}

// use makes the keys the current ones, unless there are none.
func (s *Source) use(keys lifeline) *Keyring {
	ring := keys.ring(s.store.now(), s.store.VerifyKeys)
	if ring == nil {
		return s.Current()
	}
	for old := s.current.Load(); s.swap(old, ring) != ring; {
		old = s.current.Load() // a request has just derived one from the keys of before
	}
	return ring
}

// held are the keys that this node has.
func (s *Source) held() lifeline {
	if ring := s.current.Load(); ring != nil {
		return ring.life
	}
	return nil
}

// Algorithm returns what new keys sign with.
func (s *Source) Algorithm() Algorithm {
	if s.store != nil {
		return s.store.algorithm()
	}
	return s.Current().Signing().Algorithm()
}

// Algorithms returns the algorithms of all published keys, that of the signing
// key first. While there are none it is what new keys will sign with.
func (s *Source) Algorithms() []Algorithm {
	if ring := s.Current(); ring != nil {
		return ring.Algorithms()
	}
	return []Algorithm{s.Algorithm()}
}

// Infos describes every published key, the signing key first.
func (s *Source) Infos() []Info {
	if ring := s.Current(); ring != nil {
		return ring.Infos()
	}
	var infos []Info
	for _, key := range s.store.VerifyKeys {
		infos = append(infos, key.info())
	}
	return infos
}

// Info describes the published key with that `kid`; it is zero if there is
// none.
func (s *Source) Info(kid string) Info {
	for _, info := range s.Infos() {
		if info.ID == kid {
			return info
		}
	}
	return Info{}
}

// MaxAge is how long the JWKS may be cached: 5 minutes, or less where keys are
// announced for less than 25.
func (s *Source) MaxAge() time.Duration {
	if s.store == nil {
		return maxJWKSAge
	}
	return s.store.maxAge()
}

// LastRead returns when storage was last read without an error; zero if never,
// or if the keys are fixed.
func (s *Source) LastRead() time.Time {
	if seconds := s.read.Load(); seconds != 0 {
		return time.Unix(seconds, 0)
	}
	return time.Time{}
}

// Load reads the keyring from storage, without changing anything there, and
// makes it the current one. It waits 5 s at most. If it fails the current one
// stays. It returns the errors of [Store.Load].
func (s *Source) Load(ctx context.Context) (*Keyring, error) {
	if s.store == nil {
		return s.Current(), nil
	}
	a, err := s.await(ctx, func(ctx context.Context, a *attempt) (lifeline, error) {
		found, err := s.store.look(ctx, s.held())
		if err == nil && len(found.keys) == 0 {
			err = ErrNoKey
		}
		return found.keys, err
	})
	if err != nil {
		return nil, err
	}
	return a.ring, a.err
}

// Ensure returns the keyring and, if there is none yet, loads or creates it.
// Any number of callers share one attempt; each waits for it until its ctx
// ends, 5 s at most. For 2 s after an attempt has failed its error is returned
// at once, so that requests do not hammer a storage that is down.
func (s *Source) Ensure(ctx context.Context) (*Keyring, error) {
	if ring := s.Current(); ring != nil {
		return ring, nil
	}
	s.mu.Lock()
	failure := s.failure
	if s.running != nil || !s.store.now().Before(s.retryAt) {
		failure = nil
	}
	s.mu.Unlock()
	if failure != nil {
		return nil, failure
	}
	a, err := s.waitFor(ctx, s.begin(s.upkeep))
	if err != nil {
		return nil, err
	}
	if a.ring == nil {
		return nil, a.err
	}
	return a.ring, nil
}

// upkeep reads storage and does what is due there.
func (s *Source) upkeep(ctx context.Context, _ *attempt) (lifeline, error) {
	return s.store.maintain(ctx, s.held())
}

// await runs work once nothing else runs.
func (s *Source) await(ctx context.Context, work func(context.Context, *attempt) (lifeline, error)) (*attempt, error) {
	for {
		a, mine := s.start(work)
		if _, err := s.waitFor(ctx, a); err != nil {
			return nil, err
		}
		if mine {
			return a, nil
		}
	}
}

// waitFor waits for an attempt, for as long as a request may.
func (s *Source) waitFor(ctx context.Context, a *attempt) (*attempt, error) {
	timeout := time.NewTimer(s.wait)
	defer timeout.Stop()
	select {
	case <-a.done:
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the signing keys: %w", ctx.Err())
	case <-timeout.C:
		return nil, fmt.Errorf("storage did not answer about the signing keys within %v", s.wait)
	}
}

// begin returns the running attempt, or starts one with that work.
func (s *Source) begin(work func(context.Context, *attempt) (lifeline, error)) *attempt {
	a, _ := s.start(work)
	return a
}

func (s *Source) start(work func(context.Context, *attempt) (lifeline, error)) (a *attempt, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return s.running, false
	}
	a = &attempt{began: s.store.now(), done: make(chan struct{})}
	s.running = a
	go s.run(a, work)
	return a, true
}

// run carries out one attempt. It belongs to no single request, so it ends
// with none.
func (s *Source) run(a *attempt, work func(context.Context, *attempt) (lifeline, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	keys, err := guard(ctx, a, work)
	a.ring, a.err = s.use(keys), err

	s.finished(a.err)
	close(a.done)
}

// finished notes how an attempt ended, and reports it if storage worked before
// and does not any more, or the other way round. That there is no key yet, or
// a next one already, is no failure.
func (s *Source) finished(err error) {
	if errors.Is(err, ErrNoKey) || errors.Is(err, ErrAnnounced) {
		err = nil
	}
	if err == nil {
		s.read.Store(s.store.now().Unix())
	}
	s.mu.Lock()
	s.running = nil
	s.failure, s.retryAt = err, s.store.now().Add(retryPause)
	changed := s.down != (err != nil)
	s.down = err != nil
	s.mu.Unlock()
	switch {
	case changed && err != nil:
		s.store.report(EventUnavailable, s.store.prefix(), err)
	case changed:
		s.store.report(EventReadable, s.store.prefix(), nil)
	}
}

// guard is work whose panic is an error.
func guard(ctx context.Context, a *attempt, work func(context.Context, *attempt) (lifeline, error)) (keys lifeline, err error) {
	defer source.Recover("storage", &err)
	return work(ctx, a)
}

// Wait returns when no attempt to read or change keys is running, or when ctx
// is done. Whoever shuts down calls it, so that no key is half written.
func (s *Source) Wait(ctx context.Context) {
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
