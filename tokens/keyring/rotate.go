package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrAnnounced means that a next key is already announced.
	ErrAnnounced = errors.New("the next key is already announced")
	// ErrFixedKeys means that the keys are not managed, so they do not rotate.
	ErrFixedKeys = errors.New("the signing key is a file; replace the file and reload the configuration")
)

// Rotate announces the next key now, and returns its `kid`. With retire it is
// for emergencies: a new key signs at once and every other managed key is
// retired, so that its tokens are refused, on this node when Rotate returns
// and on others when they next read storage. It waits for other work on
// storage and for its own, 5 s each or until ctx is done; work that has
// started continues. The error is [ErrFixedKeys], [ErrAnnounced], or that of
// storage.
func (s *Source) Rotate(ctx context.Context, retire bool) (kid string, err error) {
	if s.store == nil {
		return "", ErrFixedKeys
	}
	change := s.store.announceNext
	if retire {
		change = s.store.replaceAll
	}
	var created string
	a, err := s.runAlone(ctx, func(ctx context.Context) (keys schedule, err error) {
		keys, created, err = change(ctx, s.localKeys())
		return keys, err
	})
	if err != nil {
		return "", err
	}
	return created, a.err
}

// announceNext makes the next key now. It returns the resulting keys and the
// id of the new one.
func (s *store) announceNext(ctx context.Context, local schedule) (keys schedule, kid string, err error) {
	keys, err = s.change(ctx, local, func(_ *reading, keys schedule, readErr error) (schedule, error) {
		if readErr != nil {
			return keys, readErr
		}
		if n := keys.pending(s.Now(), s.AnnounceFor); n >= 0 {
			next := keys.keys[n]
			return keys, fmt.Errorf("%w: '%s' signs from %s", ErrAnnounced, next.ID, next.signsFrom.UTC().Format(time.RFC3339))
		}
		key, err := s.create(ctx, len(keys.keys) > 0)
		if err != nil {
			return keys, err
		}
		kid = key.ID
		return keys.with(key), nil
	})
	return keys, kid, err
}

// replaceAll makes a key that signs at once and retires every other, including
// the next one and past ones, because whoever could read one could read all.
// It stores the new key first, so that there is always one. After an error it
// returns the keys that are left, and can be repeated.
func (s *store) replaceAll(ctx context.Context, local schedule) (keys schedule, kid string, err error) {
	keys, err = s.change(ctx, local, func(_ *reading, keys schedule, readErr error) (schedule, error) {
		if readErr != nil && len(keys.keys) == 0 {
			return keys, readErr
		}
		key, err := s.create(ctx, false)
		if err != nil {
			return keys, err
		}
		kid = key.ID
		old := keys.keys
		keys = keys.with(key)
		for _, key := range old {
			if err := s.retire(ctx, key); err != nil {
				return keys, err
			}
			keys = keys.withoutRetired(key)
		}
		if readErr != nil {
			return keys, fmt.Errorf("the keys that can be read are retired, but not all can: %w", readErr)
		}
		return keys, nil
	})
	return keys, kid, err
}

// retire records in storage that a key is retired.
func (s *store) retire(ctx context.Context, key scheduledKey) error {
	data, err := json.Marshal(storedRetirement{KeyID: key.ID, Retired: s.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return fmt.Errorf("encoding the retirement of a key: %w", err)
	}
	if err := s.write(ctx, s.retirementPath(key.ID), data); err != nil {
		return err
	}
	s.touched.Store(touch{key.ID, true}, true)
	s.Report(EventRetired, s.keyPath(key.ID), nil)
	return nil
}
