package keyring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

// ErrNoKey means that storage could be read and holds no key of this issuer.
var ErrNoKey = errors.New("there is no signing key in storage")

// The events that a [Store] and its [Source] report.
const (
	EventCreated   = "key_created"   // a key was stored that signs at once
	EventAnnounced = "key_announced" // a key was stored that signs later
	EventActive    = "key_active"    // another key signs from now on
	EventRetired   = "key_retired"   // a key was retired before its time
	EventRestored  = "key_restored"  // storage had lost a key, it was written again
	EventDeleted   = "key_deleted"   // the last token of a key has ended long ago
	EventReadable  = "keys_readable" // storage can be read again

	// These come with an error.
	EventUnavailable    = "keys_unavailable"    // storage cannot be read or written; the keys in memory stay in use
	EventUnreadable     = "key_unreadable"      // the object cannot be read or is damaged
	EventVersionUnknown = "key_version_unknown" // a later release wrote the object
	EventForeign        = "key_foreign"         // the object belongs to another issuer
	EventUnlockFailed   = "key_unlock_failed"   // the storage lock could not be released
)

const unlockTimeout = 5 * time.Second

// Store keeps the managed signing keys of one issuer in a
// certmagic.Storage, one JSON object a key, under mtls/<realm>/keys/<kid>.json.
// Every node that shares the storage works out by what is stored and by its
// clock which key signs: the one whose time to sign came last. Keys to come are
// published before they sign, and keys of the past until their last token has
// ended. One node at a time, under a storage lock, announces the next key,
// records how long tokens may last, and deletes what has ended.
//
// A key is retired by an object beside it, <kid>.retired; no node uses or
// publishes it any more once it has read that.
//
// Objects that are damaged or belong to another issuer are reported when they
// are first seen and skipped; they are neither overwritten nor deleted.
type Store struct {
	// Storage holds the keys. Mandatory.
	Storage certmagic.Storage
	// Realm is the folder of the keys. Mandatory.
	Realm string
	// Issuer is the issuer URL that the stored keys must name. Mandatory.
	Issuer string
	// Algorithm is what new keys sign with. Default: [DefaultAlgorithm]. When
	// it changes, a key of the new algorithm is announced like any other.
	Algorithm Algorithm
	// RotateEvery is how long a key signs. Default: [DefaultRotateEvery], at
	// least [MinRotateEvery].
	RotateEvery time.Duration
	// AnnounceFor is how long a key is published before it signs. Default:
	// [DefaultAnnounceFor], at least [MinAnnounceFor] and less than
	// RotateEvery.
	AnnounceFor time.Duration
	// LongestToken is the longest lifetime of tokens that is asked for. A
	// longer one can be asked for later. Default: 1h.
	LongestToken time.Duration
	// VerifyKeys are published beside the managed keys, but never sign.
	VerifyKeys []*VerifyKey
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Report is told of what a log should show: an event, the storage key
	// it is about, and the error if any. Default: nobody is told.
	Report func(event string, key string, err error)

	raised atomic.Int64 // the longest lifetime asked for since, in nanoseconds

	mu       sync.Mutex
	reported map[string]string // what is wrong with which object
	// retirements are the storage keys of those that have been seen. Storage
	// that loses one, as when a backup takes its place, brings no key back.
	retirements map[string]bool
}

// Load reads the keyring and changes nothing. It returns [ErrNoKey] if there is
// no key, or the error of a storage that cannot be read.
func (s *Store) Load(ctx context.Context) (*Keyring, error) {
	found, err := s.look(ctx, nil)
	return s.ring(found.keys, err)
}

// LoadOrCreate reads the keyring and does what is due under a storage lock: it
// makes the first key, so that several nodes that start together end up with
// the same one, or announces the next. It returns the error of a storage that
// cannot be read, locked or written, also if there is a keyring nonetheless.
func (s *Store) LoadOrCreate(ctx context.Context) (*Keyring, error) {
	keys, err := s.maintain(ctx, nil)
	return s.ring(keys, err)
}

func (s *Store) ring(keys lifeline, err error) (*Keyring, error) {
	ring := keys.ring(s.now(), s.VerifyKeys)
	if ring == nil && err == nil {
		err = ErrNoKey
	}
	return ring, err
}

// look reads storage, beside the keys that this node already has. The error
// says what could not be read; there may be keys nonetheless.
func (s *Store) look(ctx context.Context, held lifeline) (*reading, error) {
	if err := s.check(); err != nil {
		return new(reading), err
	}
	found, err := s.read(ctx)
	if ctxErr := ctx.Err(); ctxErr != nil {
		return new(reading), fmt.Errorf("reading '%s' in storage: %w", s.prefix(), ctxErr)
	}
	if found == nil {
		return new(reading), err
	}
	found.keys = s.merge(found, held)
	return found, err
}

// maintain reads storage and does what is due. It returns the keys as they are
// then, none if storage could not be read, and what went wrong.
func (s *Store) maintain(ctx context.Context, held lifeline) (lifeline, error) {
	found, err := s.look(ctx, held)
	// An object that could not be read may be the key: making another one
	// would be rash.
	if err != nil || s.due(found, s.now()).none() {
		return found.keys, err
	}
	keys := found.keys
	err = s.locked(ctx, func() error {
		// Another node may have done it while this one waited for the lock.
		found, err := s.look(ctx, held)
		if err != nil {
			return err
		}
		keys, err = s.carryOut(ctx, found, s.due(found, s.now()))
		return err
	})
	return keys, err
}

// locked calls f while this node holds the storage lock.
func (s *Store) locked(ctx context.Context, f func() error) error {
	lock := s.prefix()
	if err := s.Storage.Lock(ctx, lock); err != nil {
		return fmt.Errorf("locking '%s' in storage: %w", lock, err)
	}
	defer s.unlock(ctx, lock)
	return f()
}

// unlock releases the lock even if ctx has ended meanwhile: a reload cancels
// it, and a lock left behind would stop every other node.
func (s *Store) unlock(ctx context.Context, lock string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	if err := s.Storage.Unlock(ctx, lock); err != nil {
		s.report(EventUnlockFailed, lock, err)
	}
}

// carryOut does what is due and returns the keys as they are then. What is most
// needed comes first; the first error ends it.
func (s *Store) carryOut(ctx context.Context, found *reading, t tasks) (lifeline, error) {
	keys := found.keys
	for _, kid := range t.retire {
		if err := s.retire(ctx, kid); err != nil {
			return keys, err
		}
	}
	for _, key := range t.restore {
		key.missing = false
		if err := s.put(ctx, key); err != nil {
			return keys, err
		}
		keys = keys.with(key)
		s.report(EventRestored, s.path(key.id), nil)
	}
	for _, kid := range t.raise {
		key := keys[keys.index(kid)]
		key.longest = s.longest()
		if err := s.put(ctx, key); err != nil {
			return keys, err
		}
		keys = keys.with(key)
	}
	if t.create || t.announce {
		key, err := s.create(ctx, t.announce)
		if err != nil {
			return keys, err
		}
		keys = keys.with(key)
	}
	for _, name := range t.remove {
		if err := s.Storage.Delete(ctx, name); err != nil {
			return keys, fmt.Errorf("deleting '%s' from storage: %w", name, err)
		}
		s.report(EventDeleted, name, nil)
	}
	return keys, nil
}

// create makes and stores a key that signs at once or after its announcement.
// Its name derives from its public key, so no object can be in its place.
func (s *Store) create(ctx context.Context, announce bool) (managedKey, error) {
	private, err := Generate(s.algorithm())
	if err != nil {
		return managedKey{}, fmt.Errorf("generating a signing key: %w", err)
	}
	created := s.now().UTC().Truncate(time.Second)
	key, err := NewKey(private, s.algorithm(), created)
	if err != nil {
		return managedKey{}, err
	}
	from, event := created, EventCreated
	if announce {
		from, event = created.Add(s.announceFor()+time.Second), EventAnnounced
	}
	managed := newManagedKey(key, from, s.longest())
	if err := s.put(ctx, managed); err != nil {
		return managedKey{}, err
	}
	s.report(event, s.path(key.id), nil)
	return managed, nil
}

func (s *Store) put(ctx context.Context, key managedKey) error {
	data, err := encodeStoredKey(key, s.Issuer)
	if err != nil {
		return fmt.Errorf("encoding the signing key: %w", err)
	}
	name := s.path(key.id)
	if err := s.Storage.Store(ctx, name, data); err != nil {
		return fmt.Errorf("writing '%s' to storage: %w", name, err)
	}
	return nil
}

func (s *Store) check() error {
	switch {
	case s.Storage == nil:
		return errors.New("the key store has no storage")
	case strings.Trim(certmagic.StorageKeys.Safe(s.Realm), ".") == "":
		return fmt.Errorf("the key store's realm '%s' cannot name a folder: use letters, digits and hyphens", s.Realm)
	case s.Issuer == "":
		return errors.New("the key store has no issuer")
	}
	if err := CheckRotation(s.RotateEvery, s.AnnounceFor); err != nil {
		return err
	}
	_, err := ParseAlgorithm(string(s.algorithm()))
	return err
}

func (s *Store) prefix() string {
	return path.Join("mtls", certmagic.StorageKeys.Safe(s.Realm), "keys")
}

func (s *Store) path(kid string) string {
	return path.Join(s.prefix(), certmagic.StorageKeys.Safe(kid)+keySuffix)
}

func (s *Store) algorithm() Algorithm {
	return cmp.Or(s.Algorithm, DefaultAlgorithm)
}

// longest is the lifetime of tokens that keys have to record.
func (s *Store) longest() time.Duration {
	return min(maxLongestToken, max(minLongestToken, s.LongestToken, time.Duration(s.raised.Load())))
}

// raise asks for a longer lifetime of tokens.
func (s *Store) raise(lifetime time.Duration) {
	for {
		old := s.raised.Load()
		if int64(lifetime) <= old || s.raised.CompareAndSwap(old, int64(lifetime)) {
			return
		}
	}
}

func (s *Store) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func (s *Store) report(event, key string, err error) {
	if s.Report != nil {
		s.Report(event, key, err)
	}
}
