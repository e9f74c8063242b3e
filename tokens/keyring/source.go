package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
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
	worker
	asked atomic.Int64 // when storage may be asked again, Unix nanoseconds
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
	s := &Source{}
	s.store, s.wait = store, ensureWait
	if running == nil || running.store == nil || running.store.Issuer != store.Issuer {
		return s, nil
	}
	if ring := running.current.Load(); ring != nil {
		s.current.Store(ring.schedule.ring(store.Now(), store.VerifyKeys))
		s.read.Store(running.read.Load())
	}
	return s, nil
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

// Interval returns how often storage is read, zero if the keys are fixed.
func (s *Source) Interval() time.Duration {
	if s.store == nil {
		return 0
	}
	return s.store.refreshInterval()
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
