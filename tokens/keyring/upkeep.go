package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RefreshInterval is how often [Source.Keep] wants to be told to read
// storage; see [Store.RefreshInterval]. It is zero if the keys are fixed.
func (s *Source) RefreshInterval() time.Duration {
	if s.store == nil {
		return 0
	}
	return s.store.RefreshInterval()
}

// Keep reads storage at once and at every tick, and does there what is due,
// until ctx is done. Storage that hangs is asked nothing more until it answers;
// that is reported like any failure. With fixed keys it returns at once.
func (s *Source) Keep(ctx context.Context, ticks <-chan time.Time) {
	if s.store == nil {
		return
	}
	for {
		a := s.begin(s.upkeep)
		if waited := s.store.now().Sub(a.began); waited >= attemptTimeout {
			s.overdue(a, waited)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
	}
}

// overdue reports that storage hangs, deaf to the end of the attempt.
func (s *Source) overdue(a *attempt, waited time.Duration) {
	s.mu.Lock()
	changed := s.running == a && !s.down
	s.down = s.down || changed
	s.mu.Unlock()
	if changed {
		s.store.report(EventUnavailable, s.store.prefix(), fmt.Errorf("storage has not answered for %v", waited.Truncate(time.Second)))
	}
}

// RefreshSoon asks for storage to be read in the background, because a token
// has a `kid` that is not known here: another node may have made the key. It
// costs next to nothing and does something every 5 s at most, for anybody can
// invent a `kid`.
func (s *Source) RefreshSoon() {
	if s.store == nil {
		return
	}
	now := s.store.now().UnixNano()
	next := s.asked.Load()
	if now < next || !s.asked.CompareAndSwap(next, now+int64(askPause)) {
		return
	}
	go s.begin(s.upkeep)
}

// LimitLifetime returns the lifetime of a token of that keyring, in seconds. It is
// never longer than storage says tokens of the signing key last, for the key
// is published no longer than that; a longer one is asked for.
func (s *Source) LimitLifetime(ring *Keyring, seconds int64) int64 {
	longest := int64(ring.longest / time.Second)
	if longest == 0 || seconds <= longest {
		return seconds
	}
	s.store.raise(time.Duration(min(seconds, int64(maxLongestToken/time.Second))) * time.Second)
	s.RefreshSoon()
	return longest
}

// ErrFixedKeys is the answer to who wants to rotate keys that are not managed.
var ErrFixedKeys = errors.New("the signing key is a file: replace the file and reload the configuration")

// Rotate announces the next key now, and returns its `kid`. With retire it is
// the emergency instead: a new key signs at once, and every other managed key
// is retired, so that its tokens are refused: here when Rotate returns, on
// other nodes when they next read storage. It waits for other work on storage
// and for its own, 5 s each or until ctx is done; what it has begun goes on.
func (s *Source) Rotate(ctx context.Context, retire bool) (kid string, err error) {
	if s.store == nil {
		return "", ErrFixedKeys
	}
	change := s.store.announce
	if retire {
		change = s.store.replace
	}
	a, err := s.await(ctx, func(ctx context.Context, a *attempt) (keys lifeline, err error) {
		keys, a.kid, err = change(ctx, s.held())
		return keys, err
	})
	if err != nil {
		return "", err
	}
	return a.kid, a.err
}
