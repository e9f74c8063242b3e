package clients

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/storage"
)

const (
	// maxCopyLoads is how many copies are read at a time.
	maxCopyLoads = 16
	// copyUnused is how long a copy stays after its client has gone, for a node
	// whose configuration is older may know it.
	copyUnused = 30 * 24 * time.Hour
	// copyTimeout bounds how long storage may take for one copy, and sweepTimeout
	// how long for looking through all of them.
	copyTimeout  = 30 * time.Second
	sweepTimeout = 5 * time.Minute
)

// CopyStore keeps copies of JWKS in storage, one object for each client. Nodes
// that share the storage share them. They are as good as what they are copies
// of: whoever can write to the storage decides who is a client. No method waits
// for a storage that hangs, and a panic of a storage module is an error.
type CopyStore struct {
	// Storage is where the copies are kept.
	Storage certmagic.Storage
	// Realm is the name of the realm, which becomes part of the objects' names.
	Realm string
	// Now is the clock.
	Now func() time.Time
	// Report is told of an object that cannot be read.
	Report func(object string, err error)
}

// Load returns those copies that there are of the JWKS of some clients. An
// error says that some are missing.
func (s *CopyStore) Load(ctx context.Context, clientIDs []string) ([]Copy, error) {
	if len(clientIDs) == 0 {
		return nil, nil
	}
	var mu sync.Mutex
	var copies []Copy
	_, err := storage.Within(ctx, s.Storage, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.loadAll(ctx, clientIDs, func(found Copy) {
			mu.Lock()
			defer mu.Unlock()
			copies = append(copies, found)
		})
	})
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(copies), err
}

func (s *CopyStore) loadAll(ctx context.Context, clientIDs []string, add func(Copy)) error {
	names, err := s.names(ctx)
	if err != nil {
		return err
	}
	var loads sync.WaitGroup
	var failed atomic.Pointer[error]
	free := make(chan struct{}, maxCopyLoads)
	for _, id := range clientIDs {
		name := s.object(id)
		if _, known := names[name]; !known {
			continue
		}
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		loads.Go(func() {
			defer func() { <-free }()
			found, ok, err := s.load(ctx, name, id)
			if ok {
				add(found)
			}
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	loads.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// load reads one copy. The error is that of the storage; what cannot be
// understood is reported.
func (s *CopyStore) load(ctx context.Context, name, clientID string) (found Copy, ok bool, err error) {
	defer storage.Guard(&err)
	if err := ctx.Err(); err != nil {
		return Copy{}, false, err
	}
	text, err := s.Storage.Load(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return Copy{}, false, nil
	}
	if err != nil {
		return Copy{}, false, fmt.Errorf("reading '%s' from storage: %w", name, err)
	}
	found, err = parseCopy(text)
	if err == nil && found.ClientID != clientID {
		err = fmt.Errorf("it is of client '%s'", found.ClientID)
	}
	if err != nil {
		s.Report(name, err)
		return Copy{}, false, nil
	}
	return found, true, nil
}

// Save stores a copy and returns it with what other nodes have stored of it: they
// may have seen a certificate earlier, or fetched the JWKS later. An object of a
// later release is left as it is.
func (s *CopyStore) Save(ctx context.Context, c Copy) (Copy, error) {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	return storage.Within(ctx, s.Storage, func(ctx context.Context) (Copy, error) { return s.save(ctx, c) })
}

func (s *CopyStore) save(ctx context.Context, c Copy) (Copy, error) {
	name := s.object(c.ClientID)
	stored, err := s.Storage.Load(ctx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return c, fmt.Errorf("reading '%s' from storage: %w", name, err)
	default:
		before, err := parseCopy(stored)
		if errors.Is(err, errNewerCopy) {
			return c, nil
		}
		if err == nil && before.ClientID == c.ClientID {
			c = c.merge(before, s.Now())
		}
	}
	if len(c.Listed) == 0 && c.Content == nil {
		return c, nil // nothing is known of it
	}
	text, err := c.encode()
	if err != nil || bytes.Equal(text, stored) {
		return c, err
	}
	if err := s.Storage.Store(ctx, name, text); err != nil {
		return c, fmt.Errorf("writing '%s' to storage: %w", name, err)
	}
	return c, nil
}

// Delete removes the copy of a client that has no JWKS any more.
func (s *CopyStore) Delete(ctx context.Context, clientID string) error {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	_, err := storage.Within(ctx, s.Storage, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.remove(ctx, s.object(clientID))
	})
	return err
}

func (s *CopyStore) remove(ctx context.Context, name string) error {
	if err := s.Storage.Delete(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting '%s' from storage: %w", name, err)
	}
	return nil
}

// Sweep deletes the copies of clients that nobody has had for a month, but for
// the spared. It returns which of those that there should be are missing.
func (s *CopyStore) Sweep(ctx context.Context, wanted, spared []string) (missing []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	return storage.Within(ctx, s.Storage, func(ctx context.Context) ([]string, error) { return s.sweep(ctx, wanted, spared) })
}

func (s *CopyStore) sweep(ctx context.Context, wanted, spared []string) (missing []string, err error) {
	names, err := s.names(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range wanted {
		name := s.object(id)
		if _, known := names[name]; !known {
			missing = append(missing, id)
		}
		delete(names, name)
	}
	for _, id := range spared {
		delete(names, s.object(id))
	}
	var failed failures
	for name := range names {
		if ctx.Err() != nil {
			break
		}
		failed.add(s.sweepOne(ctx, name))
	}
	return missing, failed.join()
}

func (s *CopyStore) sweepOne(ctx context.Context, name string) error {
	info, err := s.Storage.Stat(ctx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("reading about '%s' from storage: %w", name, err)
	case info.Modified.IsZero(), s.Now().Sub(info.Modified) < copyUnused: // not every storage tells
		return nil
	}
	return s.remove(ctx, name)
}

func (s *CopyStore) names(ctx context.Context) (map[string]struct{}, error) {
	list, err := storage.List(ctx, s.Storage, s.prefix())
	if err != nil {
		return nil, err
	}
	names := make(map[string]struct{}, len(list))
	for _, name := range list {
		if path.Ext(name) == ".json" { // else of a storage that is about to write
			names[name] = struct{}{}
		}
	}
	return names, nil
}

func (s *CopyStore) prefix() string {
	return path.Join("mtls", certmagic.StorageKeys.Safe(s.Realm), "jwks")
}

// object is the name of a client's object. An identifier may be too long for a
// file name, or differ from another in case alone.
func (s *CopyStore) object(clientID string) string {
	sum := sha256.Sum256([]byte(clientID))
	return path.Join(s.prefix(), fmt.Sprintf("%x.json", sum[:16]))
}

// maxFailures is how many errors are told one by one.
const maxFailures = 5

// failures are errors that did not end what was going on.
type failures struct {
	list []error
	more int
}

func (f *failures) add(err error) {
	switch {
	case err == nil:
	case len(f.list) < maxFailures:
		f.list = append(f.list, err)
	default:
		f.more++
	}
}

func (f *failures) join() error {
	if f.more == 0 {
		return errors.Join(f.list...)
	}
	return errors.Join(append(f.list, fmt.Errorf("%d more", f.more))...)
}
