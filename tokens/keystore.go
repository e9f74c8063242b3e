package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// ErrNoKey means that storage could be read and holds no key of this issuer
// that signs with the wanted algorithm.
var ErrNoKey = errors.New("there is no signing key in storage")

// The events that a [KeyStore] reports. All but KeyCreated come with an error.
const (
	KeyCreated        = "key_created"         // a new key was stored
	KeyUnreadable     = "key_unreadable"      // the object cannot be read or is damaged
	KeyVersionUnknown = "key_version_unknown" // a later release wrote the object
	KeyForeign        = "key_foreign"         // the object belongs to another issuer
	KeyUnlockFailed   = "key_unlock_failed"   // the storage lock could not be released
)

const (
	// futureTolerance is how far ahead of this node's clock a key may have
	// been created and still count as the newest.
	futureTolerance = 5 * time.Minute

	unlockTimeout = 5 * time.Second
)

// KeyStore keeps the managed signing keys of one issuer in a
// certmagic.Storage, one JSON object a key, under mtls/<realm>/keys/<kid>.json.
// Every node that shares the storage signs with the same key: the newest with
// the wanted algorithm. Keys of other algorithms stay published. Objects that
// are damaged or belong to another issuer are reported and skipped; nothing is
// ever overwritten or deleted.
//
// A key created in the future, by a node whose clock was wrong, ranks below
// every other: it would else stay the newest for years, whatever is created
// after it.
type KeyStore struct {
	// Storage holds the keys. Mandatory.
	Storage certmagic.Storage
	// Realm is the folder of the keys. Mandatory.
	Realm string
	// Issuer is the issuer URL that the stored keys must name. Mandatory.
	Issuer string
	// Algorithm is what new keys sign with. Default: [DefaultAlgorithm].
	Algorithm Algorithm
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Report is told of what a log should show: an event, the storage key
	// it is about, and the error if any. Default: nobody is told.
	Report func(event string, key string, err error)
}

type reportFunc func(event, key string, err error)

func silent(string, string, error) {}

// Load reads the keyring and changes nothing. It returns [ErrNoKey] if no
// stored key can sign, or the error of a storage that cannot be read.
func (s *KeyStore) Load(ctx context.Context) (*Keyring, error) {
	ring, _, err := s.load(ctx, s.report)
	return ring, err
}

// LoadOrCreate reads the keyring and, if no stored key can sign, makes one
// under a storage lock, so that several nodes that start together end up with
// the same key. It returns the error of a storage that cannot be read, locked
// or written; then no key was made, or none that this node uses.
func (s *KeyStore) LoadOrCreate(ctx context.Context) (*Keyring, error) {
	ring, _, err := s.load(ctx, s.report)
	if !errors.Is(err, ErrNoKey) {
		return ring, err
	}
	lock := s.prefix()
	if err := s.Storage.Lock(ctx, lock); err != nil {
		return nil, fmt.Errorf("locking '%s' in storage: %w", lock, err)
	}
	defer s.unlock(ctx, lock)

	// Another node may have made a key while this one waited for the lock.
	ring, others, err := s.load(ctx, silent)
	if !errors.Is(err, ErrNoKey) {
		return ring, err
	}
	key, err := s.create(ctx)
	if err != nil {
		return nil, err
	}
	return NewKeyring(key, others...), nil
}

// load returns the keyring, or ErrNoKey and the keys that do not sign.
func (s *KeyStore) load(ctx context.Context, report reportFunc) (*Keyring, []*Key, error) {
	if err := s.check(); err != nil {
		return nil, nil, err
	}
	keys, readErr := s.read(ctx, report)
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("reading '%s' in storage: %w", s.prefix(), err)
	}
	s.rank(keys)
	for _, key := range keys {
		if key.algorithm == s.algorithm() {
			return NewKeyring(key, keys...), nil, nil
		}
	}
	// An object that could not be read may be the key: making another one
	// would be rash.
	if readErr != nil {
		return nil, nil, readErr
	}
	return nil, keys, ErrNoKey
}

func (s *KeyStore) check() error {
	switch {
	case s.Storage == nil:
		return errors.New("the key store has no storage")
	case strings.Trim(certmagic.StorageKeys.Safe(s.Realm), ".") == "":
		return fmt.Errorf("the key store's realm '%s' cannot name a folder: use letters, digits and hyphens", s.Realm)
	case s.Issuer == "":
		return errors.New("the key store has no issuer")
	}
	_, err := ParseAlgorithm(string(s.algorithm()))
	return err
}

// read returns every usable key of this issuer. The error is that of listing,
// or of the last object that storage did not hand out.
func (s *KeyStore) read(ctx context.Context, report reportFunc) (keys []*Key, readErr error) {
	names, err := s.Storage.List(ctx, s.prefix(), false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing '%s' in storage: %w", s.prefix(), err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		data, err := s.Storage.Load(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			readErr = fmt.Errorf("reading '%s' in storage: %w", name, err)
			report(KeyUnreadable, name, err)
			continue
		}
		key, event, err := decodeStoredKey(data, s.Issuer)
		if err == nil && path.Base(name) != path.Base(s.path(key.id)) {
			event, err = KeyUnreadable, fmt.Errorf("the object's name is not that of its key '%s'", key.id)
		}
		if err != nil {
			report(event, name, err)
			continue
		}
		keys = append(keys, key)
	}
	return keys, readErr
}

// rank sorts the newest key first, keys of the future last; the id decides
// between keys of the same age, so that all nodes agree.
func (s *KeyStore) rank(keys []*Key) {
	limit := s.now().Add(futureTolerance)
	age := func(k *Key) time.Time {
		if k.created.After(limit) {
			return time.Time{}
		}
		return k.created
	}
	slices.SortFunc(keys, func(a, b *Key) int {
		return cmp.Or(age(b).Compare(age(a)), strings.Compare(b.id, a.id))
	})
}

// create makes and stores a new key. Its name derives from its public key, so
// no existing object can be in its place.
func (s *KeyStore) create(ctx context.Context) (*Key, error) {
	private, err := Generate(s.algorithm())
	if err != nil {
		return nil, fmt.Errorf("generating a signing key: %w", err)
	}
	key, err := NewKey(private, s.algorithm(), s.now().UTC().Truncate(time.Second))
	if err != nil {
		return nil, err
	}
	data, err := encodeStoredKey(key, s.Issuer)
	if err != nil {
		return nil, fmt.Errorf("encoding the signing key: %w", err)
	}
	name := s.path(key.id)
	if err := s.Storage.Store(ctx, name, data); err != nil {
		return nil, fmt.Errorf("writing '%s' to storage: %w", name, err)
	}
	s.report(KeyCreated, name, nil)
	return key, nil
}

// unlock releases the lock even if ctx has ended meanwhile: a reload cancels
// it, and a lock left behind would stop every other node.
func (s *KeyStore) unlock(ctx context.Context, lock string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	if err := s.Storage.Unlock(ctx, lock); err != nil {
		s.report(KeyUnlockFailed, lock, err)
	}
}

func (s *KeyStore) prefix() string {
	return path.Join("mtls", certmagic.StorageKeys.Safe(s.Realm), "keys")
}

func (s *KeyStore) path(kid string) string {
	return path.Join(s.prefix(), certmagic.StorageKeys.Safe(kid)+".json")
}

func (s *KeyStore) algorithm() Algorithm {
	return cmp.Or(s.Algorithm, DefaultAlgorithm)
}

func (s *KeyStore) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func (s *KeyStore) report(event, key string, err error) {
	if s.Report != nil {
		s.Report(event, key, err)
	}
}
