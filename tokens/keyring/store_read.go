package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/storage"
)

const (
	keySuffix        = ".json"
	retirementSuffix = ".retired"
)

// reading is what was found in storage.
type reading struct {
	keys    lifeline
	objects map[string]bool       // storage keys of all key objects, readable or not
	retired map[string]retirement // by storage key of the retirement
}

// retirement says that a key is retired.
type retirement struct {
	at      time.Time
	object  string        // storage key of the retired key, while there is one
	longest time.Duration // the lifetime of its tokens
	// lost is the id of a key that is known to be retired, though storage has
	// lost its retirement
	lost string
}

// read returns every usable key of this issuer that is not retired. The error
// is that of listing, then there is no reading, or of the last object that
// storage did not hand out. What is wrong with an object is reported once.
func (s *Store) read(ctx context.Context) (*reading, error) {
	names, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	found := &reading{objects: make(map[string]bool), retired: make(map[string]retirement)}
	wrong := make(map[string]problem)
	var readErr error
	load := func(name string) ([]byte, bool) {
		data, err := s.Storage.Load(ctx, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			readErr = fmt.Errorf("reading '%s' in storage: %w", name, err)
			wrong[name] = problem{EventUnreadable, err}
		}
		return data, err == nil
	}
	for _, name := range names {
		if !strings.HasSuffix(name, retirementSuffix) {
			continue
		}
		// That it is there says enough; its content says how long ago.
		at := s.now()
		if data, ok := load(name); ok {
			if at, err = decodeRetirement(data); err != nil {
				at = s.now()
			}
		}
		found.retired[name] = retirement{at: at}
		s.rememberRetired(name)
	}
	var keys []managedKey
	for _, name := range names {
		if !strings.HasSuffix(name, keySuffix) {
			continue
		}
		data, ok := load(name)
		if !ok && wrong[name].err == nil { // deleted since it was listed
			continue
		}
		found.objects[name] = true
		if !ok {
			continue
		}
		key, event, err := decodeStoredKey(data, s.Issuer)
		if err == nil && path.Base(name) != path.Base(s.path(key.id)) {
			event, err = EventUnreadable, fmt.Errorf("the object's name is not that of its key '%s'", key.id)
		}
		if err != nil {
			wrong[name] = problem{event, err}
			continue
		}
		retired := s.retirementPath(key.id)
		r, ok := found.retired[retired]
		if !ok && s.wasRetired(retired) {
			r, ok = retirement{at: s.now(), lost: key.id}, true
		}
		if ok {
			r.object, r.longest = name, key.longest
			found.retired[retired] = r
			continue
		}
		keys = append(keys, key)
	}
	found.keys = newLifeline(keys)
	s.reportOnce(wrong)
	return found, readErr
}

// list returns the names of all objects.
func (s *Store) list(ctx context.Context) ([]string, error) {
	return storage.List(ctx, s.Storage, s.prefix())
}

// merge brings what was found together with what this node had. What cannot be
// read now, or has vanished, is still the key it was. A key that is new to a
// running node does not sign before the others have had time to see it, unless
// it is needed: whoever stored it may have been slow, or its clock behind.
func (s *Store) merge(found *reading, held lifeline) lifeline {
	now := s.now()
	settled := now.Add(2 * s.RefreshInterval())
	var keys []managedKey
	var signing *managedKey
	for n, key := range held {
		name := s.path(key.id)
		if _, retired := found.retired[s.retirementPath(key.id)]; retired {
			continue
		}
		if n == held.active(now) {
			signing = &key
		}
		if found.keys.index(key.id) >= 0 {
			continue
		}
		key.unread, key.missing = found.objects[name], !found.objects[name]
		if key.unread || held.published(n, now) {
			keys = append(keys, key)
		}
	}
	for _, key := range found.keys {
		if n := held.index(key.id); n >= 0 {
			key.from = later(key.from, held[n].from)
		} else if signing != nil && key.signsFrom.After(signing.signsFrom) {
			key.from = later(key.from, settled)
		}
		keys = append(keys, key)
	}
	return newLifeline(keys)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// problem is what is wrong with an object.
type problem struct {
	event string
	err   error
}

// reportOnce reports the problems that were not there at the last reading.
func (s *Store) reportOnce(wrong map[string]problem) {
	s.mu.Lock()
	before := s.reported
	s.reported = make(map[string]string, len(wrong))
	for name, p := range wrong {
		s.reported[name] = p.event + p.err.Error()
	}
	now := s.reported
	s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		if before[name] != now[name] {
			s.report(wrong[name].event, name, wrong[name].err)
		}
	}
}
