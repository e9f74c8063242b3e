package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

const maxRetirement = 4 << 10 // bytes

// storedRetirement is the JSON object beside the object of a key.
type storedRetirement struct {
	KeyID   string    `json:"kid"`
	Retired time.Time `json:"retired"` // RFC 3339
}

func decodeRetirement(data []byte) (time.Time, error) {
	var stored storedRetirement
	if len(data) > maxRetirement {
		return time.Time{}, fmt.Errorf("the object has %d bytes, more than any retirement", len(data))
	}
	if err := json.Unmarshal(data, &stored); err != nil {
		return time.Time{}, err
	}
	if stored.Retired.IsZero() {
		return time.Time{}, errors.New("the object does not say when the key was retired")
	}
	return stored.Retired, nil
}

func (s *Store) retirementPath(kid string) string {
	return strings.TrimSuffix(s.path(kid), keySuffix) + retirementSuffix
}

// announce makes the next key now. It returns the keys as they are then and the
// new key's id.
func (s *Store) announce(ctx context.Context, held lifeline) (keys lifeline, kid string, err error) {
	err = s.locked(ctx, func() error {
		found, err := s.look(ctx, held)
		keys = found.keys
		if err != nil {
			return err
		}
		if n := keys.pending(s.now(), s.announceFor()); n >= 0 {
			return alreadyAnnounced(keys[n])
		}
		key, err := s.create(ctx, len(keys) > 0)
		if err == nil {
			keys, kid = keys.with(key), key.id
		}
		return err
	})
	return keys, kid, err
}

// replace makes a key that signs at once and retires every other, the one to
// come and those of the past too: whoever could read one could read all. The
// new key is stored first, so that there is always one. If an error ends it the
// keys that are left are returned, and it can be done again.
func (s *Store) replace(ctx context.Context, held lifeline) (keys lifeline, kid string, err error) {
	err = s.locked(ctx, func() error {
		found, readErr := s.look(ctx, held)
		keys = found.keys
		if readErr != nil && len(keys) == 0 {
			return readErr
		}
		old := keys
		key, err := s.create(ctx, false)
		if err != nil {
			return err
		}
		kid = key.id
		keys = keys.with(key)
		for _, key := range old {
			if err := s.retire(ctx, key.id); err != nil {
				return err
			}
			keys = keys.without(key.id)
		}
		if readErr != nil {
			return fmt.Errorf("the keys that can be read are retired, but not all can: %w", readErr)
		}
		return nil
	})
	return keys, kid, err
}

func (s *Store) retire(ctx context.Context, kid string) error {
	data, err := json.Marshal(storedRetirement{KeyID: kid, Retired: s.now().UTC().Truncate(time.Second)})
	if err != nil {
		return fmt.Errorf("encoding the retirement of a key: %w", err)
	}
	name := s.retirementPath(kid)
	if err := s.Storage.Store(ctx, name, data); err != nil {
		return fmt.Errorf("writing '%s' to storage: %w", name, err)
	}
	s.rememberRetired(name)
	s.report(EventRetired, s.path(kid), nil)
	return nil
}

// rememberRetired notes the storage key of a retirement.
func (s *Store) rememberRetired(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retirements == nil {
		s.retirements = make(map[string]bool)
	}
	s.retirements[name] = true
}

// wasRetired reports whether storage had that retirement once.
func (s *Store) wasRetired(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retirements[name]
}

// rememberAll takes over what the store before has seen.
func (s *Store) rememberAll(before *Store) {
	before.mu.Lock()
	defer before.mu.Unlock()
	s.retirements = maps.Clone(before.retirements)
}

// with returns the lifeline with a key that is new or changed.
func (l lifeline) with(key managedKey) lifeline {
	return newLifeline(append(l.without(key.id), key))
}

// without returns a copy of the lifeline without a key.
func (l lifeline) without(kid string) lifeline {
	others := make([]managedKey, 0, len(l)+1)
	for _, key := range l {
		if key.id != kid {
			others = append(others, key)
		}
	}
	return others
}
