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

// reading is the content of the storage, by object names without suffix.
type reading struct {
	keys    []scheduledKey       // every usable key of this issuer, retired or not
	objects map[string]bool      // all key objects, usable or not
	retired map[string]time.Time // when the keys were retired
}

// load reads storage and merges it with the keys that this node has. The error
// names what could not be read; there may still be keys. The reading is nil if
// the folder could not be listed.
func (s *store) load(ctx context.Context, local schedule) (*reading, schedule, error) {
	found, err := s.readAll(ctx)
	if ctxErr := ctx.Err(); ctxErr != nil {
		return nil, schedule{}, fmt.Errorf("reading '%s' in storage: %w", s.folder(), ctxErr)
	}
	if found == nil {
		return nil, schedule{}, err
	}
	return found, local.merge(found, s.Now()), err
}

// readAll reads all objects. The error is that of listing the folder, in which
// case there is no reading, or of the last object that could not be loaded. It
// reports what is wrong with an object once.
func (s *store) readAll(ctx context.Context) (*reading, error) {
	names, err := storage.List(ctx, s.Storage, s.folder())
	if err != nil {
		return nil, err
	}
	found := &reading{objects: make(map[string]bool), retired: make(map[string]time.Time)}
	problems := make(map[string]problem)
	var readErr error
	for _, name := range names {
		isKey := strings.HasSuffix(name, keySuffix)
		if !isKey && !strings.HasSuffix(name, retirementSuffix) {
			continue
		}
		data, err := s.Storage.Load(ctx, name)
		if isKey && errors.Is(err, fs.ErrNotExist) { // deleted since it was listed
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			readErr = fmt.Errorf("reading '%s' in storage: %w", name, err)
			problems[name] = problem{EventUnreadable, err}
		}
		object := strings.TrimSuffix(path.Base(name), path.Ext(name))
		if !isKey {
			// The existence of the object is enough; its content only says how
			// long ago.
			found.retired[object] = s.Now()
			if at, err := decodeRetirement(data); err == nil {
				found.retired[object] = at
			}
			continue
		}
		found.objects[object] = true
		if err != nil {
			continue
		}
		key, event, err := decodeStoredKey(data, s.Issuer)
		if err == nil && object != objectName(key.ID) {
			event, err = EventUnreadable, fmt.Errorf("the object's name is not that of its key '%s'", key.ID)
		}
		if err != nil {
			problems[name] = problem{event, err}
			continue
		}
		found.keys = append(found.keys, key)
	}
	s.reportOnce(problems)
	return found, readErr
}

// problem is what is wrong with an object.
type problem struct {
	event string
	err   error
}

// reportOnce reports the problems that the previous reading did not have.
func (s *store) reportOnce(problems map[string]problem) {
	before := s.reported
	s.reported = make(map[string]string, len(problems))
	for _, name := range slices.Sorted(maps.Keys(problems)) {
		p := problems[name]
		s.reported[name] = p.event + p.err.Error()
		if before[name] != s.reported[name] {
			s.Report(p.event, name, p.err)
		}
	}
}
