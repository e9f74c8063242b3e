package directory

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/go-jose/go-jose/v4"

	"github.com/caddymtls/caddy-mtls-auth/internal/storage"
)

const (
	// copyLifetime is how long after its fetch a copy may be used.
	copyLifetime = 24 * time.Hour
	// copyRenewal is the age at which the copy of an unchanged JWK Set is stored
	// again, so that it does not become too old to be used.
	copyRenewal = copyLifetime / 4
	// maxCopyBytes is the size of the largest copy, and maxCopiesBytes that of all
	// copies together. JWK Sets that do not fit have no copy.
	maxCopyBytes   = 256 << 10
	maxCopiesBytes = 16 << 20
	// copyTimeout bounds how long reading or storing the copies may take.
	copyTimeout = 10 * time.Second
)

// KeySetCopies keeps copies of the JWK Sets behind URLs in storage, so that a
// restart does not have to wait for their servers. They are one object for each
// realm, which nodes that share the storage share; the last writer wins. Whoever can
// write to the storage can change them.
type KeySetCopies struct {
	Storage certmagic.Storage
	// Realm is the name of the realm, which is part of the object's name.
	Realm string
}

// keySetCopy is a JWK Set of the certificates alone: other keys are not needed, and
// private ones must not be kept.
type keySetCopy struct {
	Fetched time.Time       `json:"fetched"`
	KeySet  json.RawMessage `json:"jwks"`
}

func (c *KeySetCopies) object() string {
	return path.Join("mtls", certmagic.StorageKeys.Safe(c.Realm), "jwks.json")
}

// copyName returns what the copy of a URL is called. The URL may contain a password.
func copyName(address string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(address))) }

// load returns the copies by name, as far as storage provides them in time.
func (c *KeySetCopies) load(ctx context.Context) (copies map[string]keySetCopy, err error) {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	text, err := storage.Within(ctx, func(ctx context.Context) ([]byte, error) { return c.Storage.Load(ctx, c.object()) })
	if err == nil {
		err = json.Unmarshal(text, &copies)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return copies, fmt.Errorf("reading '%s' from storage: %w", c.object(), err)
	}
	return copies, nil
}

func (c *KeySetCopies) save(ctx context.Context, copies map[string]keySetCopy) error {
	text, err := json.Marshal(copies)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	_, err = storage.Within(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.Storage.Store(ctx, c.object(), text)
	})
	if err != nil {
		return fmt.Errorf("writing '%s' to storage: %w", c.object(), err)
	}
	return nil
}

// saveCopies is [Directory.SaveCopies].
func (s *documents) saveCopies(ctx context.Context) error {
	if s.config.Copies == nil {
		return nil
	}
	fetched, due := s.fetchedKeySets()
	if !due {
		return nil
	}
	copies := make(map[string]keySetCopy, len(fetched))
	size := 0
	for _, f := range fetched {
		var set jose.JSONWebKeySet
		for _, certificate := range f.certificates {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: certificate.PublicKey, Certificates: []*x509.Certificate{certificate}})
		}
		text, err := json.Marshal(set)
		if err != nil {
			return err
		}
		if len(text) <= maxCopyBytes && size+len(text) <= maxCopiesBytes {
			size += len(text)
			copies[copyName(f.place)] = keySetCopy{f.at.UTC(), text}
		}
	}
	if err := s.config.Copies.save(ctx, copies); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range fetched {
		if f.contents == f.watchedDocument.contents {
			f.saved = f.at
		}
	}
	return nil
}

// fetchedKeySet is a document with the content that is to be stored.
type fetchedKeySet struct {
	*watchedDocument
	*contents
	at time.Time
}

// fetchedKeySets returns what is known of the JWK Sets behind URLs, and whether it is
// time to store it.
func (s *documents) fetchedKeySets() (fetched []fetchedKeySet, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, document := range s.urls.all {
		if len(document.certificates) > 0 {
			at := document.url.Success()
			fetched = append(fetched, fetchedKeySet{document, document.contents, at})
			due = due || at.Sub(document.saved) >= copyRenewal
		}
	}
	return fetched, due
}
