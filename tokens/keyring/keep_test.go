package keyring

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

func TestKeepReadsAtEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newStorage(t)
		store, _ := newTestStore(t, storage)
		source := mustManaged(t, store, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { source.Keep(ctx); close(done) }()
		synctest.Wait()
		// at once, and again while holding the lock
		for want := 2; want < 6; want++ {
			if got := storage.Count("list"); got != want {
				t.Errorf("storage was read %d times, want %d", got, want)
			}
			time.Sleep(30 * time.Second)
			synctest.Wait()
		}
		cancel()
		<-done
	})
	Fixed(New(exampleKey(t))).Keep(t.Context()) // returns
}

// TestStorageThatHangs covers a storage that ignores its context: it is called
// once and reported once, and signing goes on, even with a key whose time
// comes meanwhile.
func TestStorageThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, a, _ := newPair(t)
		kid, err := a.Rotate(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		a.storage.OnList = func(context.Context, string) error {
			<-release
			return nil
		}
		a.storage.Forget()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { a.Keep(ctx); close(done) }()
		for range 4 {
			synctest.Wait()
			c.clock.Advance(3 * time.Minute)
			time.Sleep(30 * time.Second)
		}
		if n := a.log.count(EventUnavailable); n != 1 || a.storage.Count("list") != 1 || a.Current().Signing().ID != kid {
			t.Errorf("asked %d times, reported %d times; states are %q", a.storage.Count("list"), n, states(a.Current()))
		}
		impatient, stop := context.WithCancel(t.Context())
		stop()
		if _, err := a.Rotate(impatient, true); !errors.Is(err, context.Canceled) {
			t.Errorf("rotating waits for storage: %v", err)
		}
		close(release)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if a.log.count(EventReadable) != 1 {
			t.Errorf("reported %v", a.log.all)
		}
		cancel()
		<-done
	})
}

func (e *events) count(event string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, one := range e.all {
		if one == event {
			n++
		}
	}
	return n
}

func TestStorageFailuresAreReportedOnChange(t *testing.T) {
	c, a, _ := newPair(t)
	read := a.LastRead()
	if !read.Equal(testenv.Now.Truncate(time.Second)) {
		t.Errorf("last read at %v", read)
	}
	a.down = true
	for range 3 {
		c.clock.Advance(time.Minute)
		if err := a.refresh(); err == nil {
			t.Fatal("storage is not down")
		}
	}
	if !a.LastRead().Equal(read) || a.log.count(EventUnavailable) != 1 || a.log.count(EventReadable) != 0 {
		t.Errorf("last read at %v, reported %v", a.LastRead(), a.log.all)
	}
	a.down = false
	for range 3 {
		if err := a.refresh(); err != nil {
			t.Fatal(err)
		}
	}
	if a.LastRead().Sub(read) != 3*time.Minute || a.log.count(EventReadable) != 1 {
		t.Errorf("last read at %v, reported %v", a.LastRead(), a.log.all)
	}
}

// TestKeyInUseOutlivesItsObject checks that a key in use stays, whatever
// happens to its object.
func TestKeyInUseOutlivesItsObject(t *testing.T) {
	for name, tc := range map[string]struct {
		harm     func(t *testing.T, s *testenv.Storage, name string)
		restored bool
	}{
		"damaged": {func(t *testing.T, s *testenv.Storage, name string) {
			if err := s.Storage.Store(t.Context(), name, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}, false},
		"not handed out": {func(_ *testing.T, s *testenv.Storage, _ string) {
			s.OnLoad = onlyFor(keySuffix, errors.New("permission denied"))
		}, false},
		"deleted": {func(t *testing.T, s *testenv.Storage, name string) {
			if err := s.Storage.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}, true},
		"vanished with the folder": {func(t *testing.T, s *testenv.Storage, _ string) {
			if err := s.Storage.Delete(t.Context(), "mtls"); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, a, b := newPair(t)
			kid := a.Current().Signing().ID
			object := a.store.keyPath(kid)
			before, err := a.storage.Load(t.Context(), object)
			if err != nil {
				t.Fatal(err)
			}
			tc.harm(t, a.storage, object)
			for range 3 {
				_ = a.refresh()
				if got := states(a.Current()); got != kid+" active" {
					t.Fatalf("states are %q", got)
				}
			}
			after, _ := a.storage.Storage.Load(t.Context(), object)
			if restored := string(after) == string(before) && a.log.count(EventRestored) == 1; restored != tc.restored {
				t.Errorf("restored: %v; reported %v", restored, a.log.all)
			}
			if !tc.restored && a.log.count(EventUnreadable) != 1 {
				t.Errorf("reported %v", a.log.all)
			}
			if _ = b.refresh(); states(b.Current()) != kid+" active" {
				t.Errorf("the other node has %q", states(b.Current()))
			}
		})
	}
}

// TestListingThatFailsForAMoment covers file storage, where a write of another
// node makes a listing fail as if there were no folder. It must not look like
// a storage without keys.
func TestListingThatFailsForAMoment(t *testing.T) {
	_, a, _ := newPair(t)
	failures := 0
	a.storage.OnList = func(context.Context, string) error {
		if failures++; failures%3 != 0 {
			return &fs.PathError{Op: "lstat", Path: "123", Err: fs.ErrNotExist}
		}
		return nil
	}
	fresh, log := newTestStore(t, a.storage)
	ring, err := loadOrCreate(t.Context(), fresh)
	if err != nil || ring.Signing().ID != a.Current().Signing().ID || len(log.all) != 0 {
		t.Errorf("got %v, %v, reported %v", ring, err, log.all)
	}
	a.storage.OnList = func(context.Context, string) error { return fs.ErrNotExist }
	if ring, err := loadOrCreate(t.Context(), fresh); ring != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is there and cannot be listed: %v, %v", ring, err)
	}
}

// TestStaleLockIsTakenOver checks that the lock of a dead node stops the
// others only until it is stale.
func TestStaleLockIsTakenOver(t *testing.T) {
	folder := t.TempDir()
	store, _ := newTestStore(t, &certmagic.FileStorage{Path: folder})
	locks := filepath.Join(folder, "locks")
	if err := os.MkdirAll(locks, 0o700); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(locks, certmagic.StorageKeys.Safe(store.folder())+".lock")
	if err := os.WriteFile(lock, []byte(`{"created":"2020-01-01T00:00:00Z","updated":"2020-01-01T00:00:00Z"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadOrCreate(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(lock); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock was not ours, or is left: %v", err)
	}
}

func TestRefreshSoon(t *testing.T) {
	c, a, b := newPair(t)
	kid, err := b.Rotate(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	a.storage.Forget()
	asked := make(chan struct{})
	a.storage.OnList = func(context.Context, string) error { <-asked; return nil }
	for range 100 {
		a.PublicKey("made up", ES256)
	}
	if _, known := a.PublicKey(kid, ES256); known {
		t.Error("the key is known before storage was read")
	}
	close(asked)
	awaitRead(t, a, kid)
	if n := a.storage.Count("list"); n != 1 {
		t.Errorf("storage was read %d times", n)
	}
	a.PublicKey("made up", ES256)
	a.PublicKey("made up", ES256)
	a.Wait(t.Context())
	if n := a.storage.Count("list"); n != 1 {
		t.Errorf("storage was read %d times within the pause", n)
	}
	c.clock.Advance(askPause)
	a.PublicKey(kid, ES256) // known: no reason to read
	a.Wait(t.Context())
	if n := a.storage.Count("list"); n != 1 {
		t.Errorf("storage was read %d times although the key is known", n)
	}
	Fixed(New(exampleKey(t))).PublicKey("made up", ES256) // nothing to read
}

// awaitRead waits until a node publishes a key.
func awaitRead(t *testing.T, n *node, kid string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		n.Wait(t.Context())
		if _, known := n.Current().publicKey(kid); known {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the key does not come")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestLongestLifetimeIsRecorded checks that a longer lifetime is recorded with
// the key, and that a shorter one does not make a key leave earlier.
func TestLongestLifetimeIsRecorded(t *testing.T) {
	_, a, b := newPair(t)
	threeHours := int64(3 * 3600)
	if got := a.LimitLifetime(a.Current(), threeHours); got != 3600 {
		t.Errorf("a token may last %d s, storage says 3600", got)
	}
	for deadline := time.Now().Add(time.Minute); a.LimitLifetime(a.Current(), threeHours) != threeHours; time.Sleep(time.Millisecond) {
		a.Wait(t.Context())
		if time.Now().After(deadline) {
			t.Fatal("the longer lifetime is never recorded")
		}
	}
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	first := b.Current().Signing().ID
	if _, err := b.Rotate(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := b.Infos()[0]; got.ID == first {
		t.Error("the key was not replaced")
	}

	// node a is configured for 3 h, b for less: each key records the longest
	if err := a.refresh(); err != nil {
		t.Fatal(err)
	}
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	if got := b.Current().longest; got != 3*time.Hour {
		t.Errorf("the new key is kept for tokens of %v", got)
	}
}

// TestChangedAlgorithmIsAnnounced checks that a key of a new algorithm is
// announced like any other.
func TestChangedAlgorithmIsAnnounced(t *testing.T) {
	c, a, _ := newPair(t)
	a.store.Algorithm = EdDSA
	if err := a.refresh(); err != nil {
		t.Fatal(err)
	}
	if got := a.Current().Signing().Algorithm; got != ES256 {
		t.Errorf("a key that nobody has seen signs with %s", got)
	}
	if got := a.Algorithms(); !slices.Equal(got, []Algorithm{ES256, EdDSA}) {
		t.Errorf("algorithms are %v", got)
	}
	c.clock.Advance(10*time.Minute + time.Second)
	if got := a.Algorithms(); !slices.Equal(got, []Algorithm{EdDSA, ES256}) {
		t.Errorf("algorithms are %v", got)
	}
}

func TestReloadTakesOverTheKeys(t *testing.T) {
	_, a, _ := newPair(t)
	if _, err := a.Rotate(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	a.down = true
	before := a.Current()
	store, _ := newTestStore(t, a.storage)
	after := mustManaged(t, store, a.Source)
	if _, err := after.Load(t.Context()); err == nil {
		t.Error("storage is not down")
	}
	if states(after.Current()) != states(before) || after.Current().JWKS().ETag != before.JWKS().ETag || !after.LastRead().Equal(a.LastRead()) {
		t.Errorf("states are %q, were %q", states(after.Current()), states(before))
	}
	// keys of another issuer and of a file are not taken over
	other, _ := newTestStore(t, a.storage)
	other.Issuer = "https://other.example.com"
	fixed := Fixed(New(exampleKey(t)))
	if mustManaged(t, other, a.Source).Current() != nil || mustManaged(t, store, fixed).Current() != nil {
		t.Error("keys of others were taken over")
	}
	if !slices.Contains(a.log.all, EventAnnounced) {
		t.Errorf("reported %v", a.log.all)
	}
}
