package clients

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
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
)

// CopyStore keeps copies of JWKS in storage, one object for each client. Nodes
// that share the storage share them. They are as good as what they are copies
// of: whoever can write to the storage decides who is a client.
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
	names, err := s.names(ctx)
	if err != nil {
		return nil, err
	}
	var (
		mu     sync.Mutex
		loads  sync.WaitGroup
		copies []Copy
		failed error
	)
	free := make(chan struct{}, maxCopyLoads)
	for _, id := range clientIDs {
		name := s.object(id)
		if _, known := names[name]; !known {
			continue
		}
		free <- struct{}{}
		loads.Go(func() {
			defer func() { <-free }()
			found, ok, err := s.load(ctx, name, id)
			mu.Lock()
			defer mu.Unlock()
			if ok {
				copies = append(copies, found)
			}
			if err != nil {
				failed = err
			}
		})
	}
	loads.Wait()
	return copies, failed
}

// load reads one copy. The error is that of the storage; what cannot be
// understood is reported.
func (s *CopyStore) load(ctx context.Context, name, clientID string) (found Copy, ok bool, err error) {
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

// Save stores a copy. If another node has seen one of the certificates earlier,
// that stays known. An object of a later release is left as it is.
func (s *CopyStore) Save(ctx context.Context, c Copy) error {
	name := s.object(c.ClientID)
	text, err := s.Storage.Load(ctx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("reading '%s' from storage: %w", name, err)
	default:
		before, err := parseCopy(text)
		if errors.Is(err, errNewerCopy) {
			return nil
		}
		if err == nil && before.ClientID == c.ClientID {
			c.merge(before)
		}
	}
	if text, err = c.encode(); err != nil {
		return err
	}
	if err := s.Storage.Store(ctx, name, text); err != nil {
		return fmt.Errorf("writing '%s' to storage: %w", name, err)
	}
	return nil
}

// Sweep deletes the copies of clients that nobody has had for a month. It
// returns which of those that there should be are missing.
func (s *CopyStore) Sweep(ctx context.Context, clientIDs []string) (missing []string, err error) {
	names, err := s.names(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range clientIDs {
		name := s.object(id)
		if _, known := names[name]; !known {
			missing = append(missing, id)
		}
		delete(names, name)
	}
	for name := range names {
		info, err := s.Storage.Stat(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return missing, fmt.Errorf("reading about '%s' from storage: %w", name, err)
		}
		if s.Now().Sub(info.Modified) < copyUnused {
			continue
		}
		if err := s.Storage.Delete(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return missing, fmt.Errorf("deleting '%s' from storage: %w", name, err)
		}
	}
	return missing, nil
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
