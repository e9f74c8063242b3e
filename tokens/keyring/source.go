package keyring

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ensureWait is how long a request waits for keys at most.
	ensureWait = 5 * time.Second
	// attemptTimeout bounds one attempt to read or change keys. It is longer
	// than any request waits, so that an attempt can outlast a lock left
	// behind by a node that died.
	attemptTimeout = 30 * time.Second
	// retryPause is how long after a failure requests start no new attempt.
	retryPause = 2 * time.Second
	// askPause is how often an unknown `kid` can trigger a read of storage.
	askPause = 5 * time.Second
)

// errNoKey means that storage holds no key of this issuer.
var errNoKey = errors.New("there is no signing key in storage")

// Source provides the keyring at run time: a fixed one, or one that is managed
// in storage and may not be there yet. It is safe for concurrent use.
type Source struct {
	current atomic.Pointer[Keyring]
	store   *store // nil if fixed
	wait    time.Duration

	read  atomic.Int64 // when storage was last read, Unix seconds
	asked atomic.Int64 // when storage may be asked again, Unix nanoseconds

	mu      sync.Mutex
	running *attempt
	failure error // of the last attempt
	retryAt time.Time
}

// Fixed returns a source whose keyring never changes, such as that of a key
// file.
func Fixed(ring *Keyring) *Source {
	s := &Source{}
	s.current.Store(ring)
	return s
}

// Managed returns a source of the keys in a storage, which it does not read
// yet. running is the source that it replaces, or nil: its keys are used at
// once, so that a server that reloads its configuration while storage is down
// continues to sign. Keys of another issuer and fixed ones are not taken over.
// Errors name the setting that is wrong and the remedy.
func Managed(cfg Config, running *Source) (*Source, error) {
	store, err := newStore(cfg)
	if err != nil {
		return nil, err
	}
	s := &Source{store: store, wait: ensureWait}
	if running == nil || running.store == nil || running.store.Issuer != store.Issuer {
		return s, nil
	}
	if ring := running.current.Load(); ring != nil {
		s.current.Store(ring.schedule.ring(store.Now(), store.VerifyKeys))
		s.read.Store(running.read.Load())
	}
	return s, nil
}

// Current returns the keyring, or nil if there is none yet. It never blocks. A
// key whose time has come signs from that moment on, even while storage is
// down.
func (s *Source) Current() *Keyring {
	ring := s.current.Load()
	if ring == nil || ring.until.IsZero() {
		return ring
	}
	now := s.store.Now()
	if now.Before(ring.until) {
		return ring
	}
	return s.swap(ring, ring.schedule.ring(now, s.store.VerifyKeys))
}

// swap replaces one keyring by another, and returns the current one.
func (s *Source) swap(old, ring *Keyring) *Keyring {
	if !s.current.CompareAndSwap(old, ring) {
		return s.current.Load()
	}
	if old != nil && old.Signing().ID != ring.Signing().ID {
		s.store.Report(EventActive, s.store.keyPath(ring.Signing().ID), nil)
	}
	s.reportChanges(old, ring)
	return ring
}

// use makes the keys the current ones, unless there are none.
func (s *Source) use(keys schedule) *Keyring {
	ring := keys.ring(s.store.Now(), s.store.VerifyKeys)
	if ring == nil {
		return s.Current()
	}
	for old := s.current.Load(); s.swap(old, ring) != ring; {
		old = s.current.Load() // a request has just replaced the previous keyring
	}
	return ring
}

// localKeys returns the keys that this node has.
func (s *Source) localKeys() schedule {
	if ring := s.current.Load(); ring != nil {
		return ring.schedule
	}
	return schedule{}
}

// Algorithm returns the algorithm that new keys sign with.
func (s *Source) Algorithm() Algorithm {
	if s.store != nil {
		return s.store.Algorithm
	}
	return s.Current().Signing().Algorithm
}

// Algorithms returns the algorithms of all published keys, that of the signing
// key first. Without keys it is the algorithm that new keys will sign with.
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
		infos = append(infos, key.info(StateVerify))
	}
	return infos
}

// Owns reports whether the `kid` is that of one of the issuer's own keys, also of one
// that is retired.
func (s *Source) Owns(kid string) bool {
	ring := s.Current()
	return ring != nil && ring.owns(kid)
}

// PublicKey returns the key of the current keyring with that `kid`, whatever
// the algorithm. If there is none, another node may have made it, so the
// source reads storage soon, in the background.
func (s *Source) PublicKey(kid string, _ Algorithm) (key PublicKey, known bool) {
	if ring := s.Current(); ring != nil {
		key, known = ring.publicKey(kid)
	} else {
		key, known = findVerifyKey(s.store.VerifyKeys, kid)
	}
	if !known {
		s.refreshSoon()
	}
	return key, known
}

// Ready reports whether there is a keyring.
func (s *Source) Ready() bool { return s.Current() != nil }

// MaxAge is how long the JWKS may be cached: 5 minutes, or less where keys are
// announced for less than 25.
func (s *Source) MaxAge() time.Duration {
	if s.store == nil {
		return maxJWKSAge
	}
	return min(maxJWKSAge, s.store.AnnounceFor/readsPerAnnouncement)
}

// LimitLifetime returns the lifetime of a token of that keyring, in seconds:
// the given one, but never longer than the lifetime that storage records for
// the signing key, because the key is published no longer than that. A longer
// lifetime is recorded in the background, for later tokens.
func (s *Source) LimitLifetime(ring *Keyring, seconds int64) int64 {
	longest := int64(ring.longest / time.Second)
	if longest == 0 || seconds <= longest {
		return seconds
	}
	longer := time.Duration(min(seconds, int64(maxLongestToken/time.Second))) * time.Second
	s.store.extended.Store(max(s.store.extended.Load(), int64(longer))) // a lost race is repeated by the next token
	s.refreshSoon()
	return longest
}

// LastRead returns when storage was last read without an error, the zero time
// if never or if the keys are fixed.
func (s *Source) LastRead() time.Time {
	if seconds := s.read.Load(); seconds != 0 {
		return time.Unix(seconds, 0)
	}
	return time.Time{}
}

// Interval returns how often storage is read, zero if the keys are fixed.
func (s *Source) Interval() time.Duration {
	if s.store == nil {
		return 0
	}
	return s.store.refreshInterval()
}

// Failure returns why storage could not be read or changed last, or nil.
func (s *Source) Failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// NextRotation returns when another key begins to sign: the next one, or the one that
// will be made. It is zero if the keys are fixed or there are none.
func (s *Source) NextRotation() time.Time {
	ring := s.Current()
	if s.store == nil || ring == nil {
		return time.Time{}
	}
	keys := ring.schedule.keys
	active := ring.schedule.active(s.store.Now())
	if active+1 < len(keys) {
		return keys[active+1].signsFrom.UTC()
	}
	return keys[active].signsFrom.Add(s.store.RotateEvery).UTC()
}

// Load reads the keyring from storage, without changing anything there, and
// makes it the current one. It waits 5 s at most. If it fails, the current one
// stays. It is an error if storage has no key.
func (s *Source) Load(ctx context.Context) (*Keyring, error) {
	if s.store == nil {
		return s.Current(), nil
	}
	a, err := s.runAlone(ctx, func(ctx context.Context) (schedule, error) {
		_, keys, err := s.store.load(ctx, s.localKeys())
		if err == nil && len(keys.keys) == 0 {
			err = errNoKey
		}
		return keys, err
	})
	if err != nil {
		return nil, err
	}
	return a.ring, a.err
}

// Ensure returns the keyring and, if there is none yet, loads or creates it.
// Any number of callers share one attempt; each waits for it until its ctx
// ends, 5 s at most. For 2 s after an attempt has failed it returns the same
// error, to spare a storage that is down.
func (s *Source) Ensure(ctx context.Context) (*Keyring, error) {
	if ring := s.Current(); ring != nil {
		return ring, nil
	}
	s.mu.Lock()
	failure, retryAt := s.failure, s.retryAt
	s.mu.Unlock()
	if failure != nil && s.store.Now().Before(retryAt) {
		return nil, failure
	}
	a, _ := s.attempt(s.upkeep)
	if err := s.waitFor(ctx, a); err != nil {
		return nil, err
	}
	if a.ring == nil {
		return nil, a.err
	}
	return a.ring, nil
}
