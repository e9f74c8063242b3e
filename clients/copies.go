package clients

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/go-jose/go-jose/v4"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/storage"
)

const (
	// copyLifetime is how long after its fetch a copy may be used.
	copyLifetime = 24 * time.Hour
	// copyRenewal is the age at which the copy of an unchanged JWK Set is stored
	// again, so that it does not become too old to be used.
	copyRenewal = copyLifetime / 4
	// copyUnused is the age at which a copy is deleted.
	copyUnused = 30 * 24 * time.Hour
	// maxCopyBytes is the size of the largest copy.
	maxCopyBytes = 256 << 10
	// maxCopyLoads is how many copies are read at a time.
	maxCopyLoads = 16
	// copyTimeout bounds how long reading all copies, storing one, or deleting
	// the unused ones may take.
	copyTimeout = 10 * time.Second
)

// KeySetCopies keeps copies of the JWK Sets behind URLs in storage, one object
// for each URL, so that a restart does not have to wait for their servers. Nodes
// that share the storage share the copies. Whoever can write to the storage can
// change them.
type KeySetCopies struct {
	Storage certmagic.Storage
	// Realm is the name of the realm, which is part of the objects' names.
	Realm string
	// Report is called if copies cannot be read. Their JWK Sets count once they
	// have been fetched.
	Report func(error)
}

// keySetCopy is the content of an object.
type keySetCopy struct {
	Fetched time.Time       `json:"fetched"`
	KeySet  json.RawMessage `json:"jwks"`
}

func (c *KeySetCopies) folder() string {
	return path.Join("mtls", certmagic.StorageKeys.Safe(c.Realm), "jwks")
}

// object returns the name of a URL's object. The URL may contain a password.
func (c *KeySetCopies) object(address string) string {
	return path.Join(c.folder(), fmt.Sprintf("%x.json", sha256.Sum256([]byte(address))))
}

// load returns the copies of the JWK Sets behind some URLs, as far as there are
// any and storage provides them in time.
func (c *KeySetCopies) load(ctx context.Context, addresses []string) map[string]keySetCopy {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	var mu sync.Mutex
	copies := make(map[string]keySetCopy)
	var failed error
	_, err := storage.Within(ctx, func(ctx context.Context) (struct{}, error) {
		var loads sync.WaitGroup
		free := make(chan struct{}, maxCopyLoads)
		for _, address := range addresses {
			select {
			case free <- struct{}{}:
			case <-ctx.Done():
				return struct{}{}, ctx.Err()
			}
			loads.Go(func() {
				defer func() { <-free }()
				found, err := c.loadOne(ctx, c.object(address))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					copies[address] = found
				} else if failed == nil && !errors.Is(err, fs.ErrNotExist) {
					failed = err
				}
			})
		}
		loads.Wait()
		return struct{}{}, nil
	})
	mu.Lock()
	defer mu.Unlock()
	if err == nil {
		err = failed
	}
	if err != nil {
		c.Report(err)
	}
	return maps.Clone(copies)
}

func (c *KeySetCopies) loadOne(ctx context.Context, object string) (found keySetCopy, err error) {
	defer source.Recover("storage", &err)
	text, err := c.Storage.Load(ctx, object)
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	if err != nil {
		return found, fmt.Errorf("reading '%s' from storage: %w", object, err)
	}
	return found, nil
}

// save stores a JWK Set of the certificates alone: other keys are not needed, and
// private ones must not be kept.
func (c *KeySetCopies) save(ctx context.Context, address string, certificates []*x509.Certificate, fetched time.Time) error {
	var set jose.JSONWebKeySet
	for _, certificate := range certificates {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: certificate.PublicKey, Certificates: []*x509.Certificate{certificate}})
	}
	keys, err := json.Marshal(set)
	if err != nil {
		return err
	}
	text, err := json.Marshal(keySetCopy{fetched.UTC(), keys})
	if err != nil || len(text) > maxCopyBytes {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	_, err = storage.Within(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.Storage.Store(ctx, c.object(address), text)
	})
	if err != nil {
		return fmt.Errorf("writing '%s' to storage: %w", c.object(address), err)
	}
	return nil
}

// deleteUnused deletes copies that have not been stored again for a month,
// because their URLs are no longer used. If that fails, nothing is lost.
func (c *KeySetCopies) deleteUnused(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	_, _ = storage.Within(ctx, func(ctx context.Context) (struct{}, error) {
		objects, err := storage.List(ctx, c.Storage, c.folder())
		for _, object := range objects {
			info, err := c.Storage.Stat(ctx, object)
			if err == nil && !info.Modified.IsZero() && now.Sub(info.Modified) > copyUnused {
				_ = c.Storage.Delete(ctx, object)
			}
		}
		return struct{}{}, err
	})
}

// SaveCopies stores the JWK Sets behind URLs of which storage has no copy, or an
// old one, and deletes unused copies once a day. It does nothing without
// [DirectoryConfig.Copies]. A copy that cannot be stored does not affect the
// others, unless storage does not answer at all; the first error is returned.
// It must not be called concurrently.
func (d *Directory) SaveCopies(ctx context.Context) (failed error) {
	copies, now := d.config.Copies, d.config.Now()
	if copies == nil {
		return nil
	}
	if now.Sub(d.copiesDeleted) >= 24*time.Hour {
		d.copiesDeleted = now
		copies.deleteUnused(ctx, now)
	}
	for _, unsaved := range d.unsavedKeySets() {
		err := copies.save(ctx, unsaved.place, unsaved.certificates, unsaved.at)
		if err == nil {
			d.mu.Lock()
			if unsaved.contents == unsaved.watchedDocument.contents {
				unsaved.saved = unsaved.at
			}
			d.mu.Unlock()
		} else if failed == nil {
			failed = err
		}
		if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return failed
}

// unsavedKeySet is a document with the content that is to be stored.
type unsavedKeySet struct {
	*watchedDocument
	*contents
	at time.Time
}

func (d *Directory) unsavedKeySets() (unsaved []unsavedKeySet) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, document := range d.documents.urls {
		if at := document.fetchedAt(); at.Sub(document.saved) >= copyRenewal {
			unsaved = append(unsaved, unsavedKeySet{document, document.contents, at})
		}
	}
	return unsaved
}
