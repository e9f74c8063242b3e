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

// The events that [Config.Report] is called with.
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

// errEnded means that the configuration of the source has ended.
var errEnded = errors.New("the configuration of the signing keys has ended")

// Config describes where the managed keys of an issuer are kept and how they
// rotate.
type Config struct {
	// Storage holds the keys, one JSON object a key, under
	// mtls/<realm>/keys/<kid>.json. Required.
	Storage certmagic.Storage
	// Realm is the folder of the keys. Required.
	Realm string
	// Issuer is the issuer URL that the stored keys must name. Required.
	Issuer string
	// Algorithm is the algorithm of new keys. Default: ES256. When it changes,
	// a key of the new algorithm is announced like any other.
	Algorithm Algorithm
	// RotateEvery is how long a key signs, at least 1h. Default: 90 days.
	RotateEvery time.Duration
	// AnnounceFor is how long a key is published before it signs, at least 5s
	// and less than RotateEvery. Default: 24h.
	AnnounceFor time.Duration
	// LongestToken is the longest lifetime that tokens are expected to have;
	// for longer ones see [Source.LimitLifetime]. Default: 1h.
	LongestToken time.Duration
	// VerifyKeys are published alongside the managed keys, but never sign.
	VerifyKeys []*VerifyKey
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Report is called with what a log should show: an event, the storage key
	// it is about, and the error if any. Default: nothing is reported.
	Report func(event string, key string, err error)
	// ReportChange is called with each change of the keys, whichever node has made it.
	// Default: nothing is reported.
	ReportChange func(Change)
}

// store is the managed keys of an issuer in storage. Every node that shares
// the storage determines the signing key from the stored keys and its clock:
// it is the key whose time to sign came last. Keys are published before they
// sign and until their last token has expired. One node at a time, under a
// storage lock, announces the next key, records how long tokens may last, and
// deletes keys that are no longer needed.
//
// A key is retired by the object <kid>.retired. A node that has read it no
// longer uses or publishes the key.
//
// Objects that are damaged or belong to another issuer are reported once and
// skipped. They are neither overwritten nor deleted.
type store struct {
	Config
	// extended is the longest lifetime of tokens requested since the start, in
	// nanoseconds.
	extended atomic.Int64
	// ended is set once nothing may be written any more.
	ended atomic.Bool
	// touched has each [touch] of this node.
	touched sync.Map
	// reported is what is wrong with each object. Only one attempt at a time
	// reads storage, so it needs no lock.
	reported map[string]string
}

// newStore checks the settings and fills in the defaults. Errors name the
// value that is wrong and the remedy.
func newStore(cfg Config) (*store, error) {
	cfg.Algorithm = cmp.Or(cfg.Algorithm, defaultAlgorithm)
	cfg.RotateEvery = cmp.Or(cfg.RotateEvery, defaultRotateEvery)
	cfg.AnnounceFor = cmp.Or(cfg.AnnounceFor, defaultAnnounceFor)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Report == nil {
		cfg.Report = func(string, string, error) {}
	}
	if cfg.ReportChange == nil {
		cfg.ReportChange = func(Change) {}
	}
	switch {
	case cfg.Storage == nil:
		return nil, errors.New("managed keys need a storage")
	case strings.Trim(certmagic.StorageKeys.Safe(cfg.Realm), ".") == "":
		return nil, fmt.Errorf("realm '%s' cannot name a folder in storage; use letters, digits and hyphens", cfg.Realm)
	case cfg.Issuer == "":
		return nil, errors.New("managed keys need an issuer")
	}
	if _, err := ParseAlgorithm(string(cfg.Algorithm)); err != nil {
		return nil, err
	}
	if err := CheckRotation(cfg.RotateEvery, cfg.AnnounceFor); err != nil {
		return nil, err
	}
	return &store{Config: cfg}, nil
}

// folder returns the storage key of the folder, which is also the name of its
// lock.
func (s *store) folder() string {
	return path.Join("mtls", certmagic.StorageKeys.Safe(s.Realm), "keys")
}

// objectName returns the name of a key's object without its suffix.
func objectName(kid string) string { return certmagic.StorageKeys.Safe(kid) }

func (s *store) keyPath(kid string) string { return path.Join(s.folder(), objectName(kid)+keySuffix) }

func (s *store) retirementPath(kid string) string {
	return path.Join(s.folder(), objectName(kid)+retirementSuffix)
}

// refreshInterval is how often a node reads the keys: every 30 s, or five
// times while a key is announced if that is more often.
func (s *store) refreshInterval() time.Duration {
	return min(maxRefreshInterval, s.AnnounceFor/readsPerAnnouncement)
}

// longestToken is the lifetime of tokens that keys must record.
func (s *store) longestToken() time.Duration {
	return min(maxLongestToken, max(minLongestToken, s.LongestToken, time.Duration(s.extended.Load())))
}

// change calls decide while this node holds the storage lock. decide gets what
// storage has at that point, because another node may have changed it in the
// meantime, and the error of a part that could not be read. change returns the
// resulting keys.
func (s *store) change(ctx context.Context, local schedule, decide func(*reading, schedule, error) (schedule, error)) (schedule, error) {
	if s.ended.Load() {
		return schedule{}, errEnded
	}
	lock := s.folder()
	if err := s.Storage.Lock(ctx, lock); err != nil {
		return schedule{}, fmt.Errorf("locking '%s' in storage: %w", lock, err)
	}
	defer s.unlock(ctx, lock)
	found, keys, err := s.load(ctx, local)
	if found == nil {
		return schedule{}, err
	}
	return decide(found, keys, err)
}

// unlock releases the lock even if ctx has ended, because a lock left behind
// would stop every other node.
func (s *store) unlock(ctx context.Context, lock string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	if err := s.Storage.Unlock(ctx, lock); err != nil {
		s.Report(EventUnlockFailed, lock, err)
	}
}

// maintain reads storage and does what is due, unless the source has ended. It
// returns the resulting keys, none if storage could not be read, and what went
// wrong.
func (s *store) maintain(ctx context.Context, local schedule) (schedule, error) {
	found, keys, err := s.load(ctx, local)
	if err == nil && s.ended.Load() {
		if len(keys.keys) == 0 {
			err = errNoKey
		}
		return keys, err
	}
	// An object that could not be read may be the signing key, so none is
	// made.
	if err != nil || s.due(found, keys, s.Now()).none() {
		return keys, err
	}
	changed, err := s.change(ctx, local, func(found *reading, keys schedule, readErr error) (schedule, error) {
		if readErr != nil {
			return keys, readErr
		}
		return s.carryOut(ctx, found, keys)
	})
	if len(changed.keys) == 0 { // storage failed meanwhile
		return keys, err
	}
	return changed, err
}

// carryOut does what is due, the most urgent first, and returns the resulting
// keys. The first error ends it.
func (s *store) carryOut(ctx context.Context, found *reading, keys schedule) (schedule, error) {
	t := s.due(found, keys, s.Now())
	for _, key := range t.retire {
		if err := s.retire(ctx, key); err != nil {
			return keys, err
		}
	}
	for _, key := range t.write {
		if err := s.writeKey(ctx, key); err != nil {
			return keys, err
		}
		keys = keys.with(key)
		if !found.objects[objectName(key.ID)] {
			s.Report(EventRestored, s.keyPath(key.ID), nil)
		}
	}
	if t.create || t.announce {
		key, err := s.create(ctx, t.announce)
		if err != nil {
			return keys, err
		}
		keys = keys.with(key)
	}
	for _, name := range t.remove {
		if s.ended.Load() {
			return keys, errEnded
		}
		name = path.Join(s.folder(), name)
		if err := s.Storage.Delete(ctx, name); err != nil {
			return keys, fmt.Errorf("deleting '%s' from storage: %w", name, err)
		}
		s.Report(EventDeleted, name, nil)
	}
	return keys, nil
}

// create makes and stores a key that signs at once or after its announcement.
// The object's name derives from the public key, so it replaces nothing.
func (s *store) create(ctx context.Context, announce bool) (scheduledKey, error) {
	private, err := Generate(s.Algorithm)
	if err != nil {
		return scheduledKey{}, fmt.Errorf("generating a signing key: %w", err)
	}
	created := s.Now().UTC().Truncate(time.Second)
	key, err := NewKey(private, s.Algorithm, created)
	if err != nil {
		return scheduledKey{}, err
	}
	from, event := created, EventCreated
	if announce {
		from, event = created.Add(s.AnnounceFor+time.Second), EventAnnounced
	}
	scheduled := scheduledKey{key, from, s.longestToken()}
	if err := s.writeKey(ctx, scheduled); err != nil {
		return scheduledKey{}, err
	}
	s.touched.Store(touch{key.ID, false}, true)
	s.Report(event, s.keyPath(key.ID), nil)
	return scheduled, nil
}

func (s *store) writeKey(ctx context.Context, key scheduledKey) error {
	data, err := encodeStoredKey(key, s.Issuer)
	if err != nil {
		return fmt.Errorf("encoding the signing key: %w", err)
	}
	return s.write(ctx, s.keyPath(key.ID), data)
}

func (s *store) write(ctx context.Context, name string, data []byte) error {
	if s.ended.Load() {
		return errEnded
	}
	if err := s.Storage.Store(ctx, name, data); err != nil {
		return fmt.Errorf("writing '%s' to storage: %w", name, err)
	}
	return nil
}
