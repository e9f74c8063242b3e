package keyring

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// events collects what a store reports.
type events struct {
	mu  sync.Mutex
	all []string
	err []error
}

func (e *events) report(event, _ string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
	e.err = append(e.err, err)
}

func newTestStore(t testing.TB, storage certmagic.Storage) (*store, *events) {
	t.Helper()
	log := &events{}
	s, err := newStore(Config{Storage: storage, Realm: "default", Issuer: testURL, Now: testenv.NewClock().Now, Report: log.report})
	if err != nil {
		t.Fatal(err)
	}
	return s, log
}

// mustManaged returns a source of the keys in a store.
func mustManaged(t testing.TB, s *store, running *Source) *Source {
	t.Helper()
	source, err := Managed(s.Config, running)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// loadRing reads the keyring and changes nothing.
func loadRing(ctx context.Context, s *store) (*Keyring, error) {
	_, keys, err := s.load(ctx, schedule{})
	return ringOf(s, keys, err)
}

// loadOrCreate reads the keyring and does what is due.
func loadOrCreate(ctx context.Context, s *store) (*Keyring, error) {
	keys, err := s.maintain(ctx, schedule{})
	return ringOf(s, keys, err)
}

func ringOf(s *store, keys schedule, err error) (*Keyring, error) {
	ring := keys.ring(s.Now(), s.VerifyKeys)
	if ring == nil && err == nil {
		err = errNoKey
	}
	return ring, err
}

// put stores a key as another node of the same or another issuer would have.
func put(t testing.TB, s *store, key *Key, issuer string) string {
	t.Helper()
	return putManaged(t, s, scheduledKey{key, key.created, time.Hour}, issuer)
}

func putManaged(t testing.TB, s *store, key scheduledKey, issuer string) string {
	t.Helper()
	data, err := encodeStoredKey(key, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return putRaw(t, s, key.ID, data)
}

func putRaw(t testing.TB, s *store, kid string, data []byte) string {
	t.Helper()
	name := s.keyPath(kid)
	if err := s.Storage.Store(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
	return name
}

func signingID(t testing.TB, s *store) string {
	t.Helper()
	ring, err := loadRing(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return ring.Signing().ID
}

func TestLoadOnlyReads(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	if _, err := loadRing(t.Context(), store); !errors.Is(err, errNoKey) {
		t.Errorf("error is %v, want errNoKey", err)
	}
	if storage.Count("lock")+storage.Count("store") != 0 {
		t.Error("loading locks or writes")
	}
	entries, err := os.ReadDir(storage.Storage.(*certmagic.FileStorage).Path)
	if err != nil || len(entries) != 0 {
		t.Errorf("loading left %v, %v", entries, err)
	}
}

func TestRestartUsesTheSameKey(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	first, err := loadOrCreate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	restarted, log := newTestStore(t, storage)
	second, err := loadOrCreate(t.Context(), restarted)
	if err != nil {
		t.Fatal(err)
	}
	if first.Signing().ID != second.Signing().ID || string(first.JWKS().Body) != string(second.JWKS().Body) {
		t.Error("the key changed")
	}
	if len(log.all) != 0 || storage.Count("lock") != 1 || storage.Count("store") != 1 {
		t.Errorf("the restart did more than read: %v, %v", log.all, storage.Calls())
	}
}

func TestNodesThatStartTogetherMakeOneKey(t *testing.T) {
	const nodes = 8
	folder := t.TempDir()
	ids := make([]string, nodes)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for n := range nodes {
		wg.Go(func() {
			store, _ := newTestStore(t, &certmagic.FileStorage{Path: folder})
			<-start
			ring, err := loadOrCreate(t.Context(), store)
			if err != nil {
				t.Error(err)
				return
			}
			ids[n] = ring.Signing().ID
		})
	}
	close(start)
	wg.Wait()
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("the nodes sign with %v", ids)
	}
	files, err := filepath.Glob(filepath.Join(folder, "mtls", "default", "keys", "*"))
	if err != nil || len(files) != 1 {
		t.Errorf("stored %v, %v", files, err)
	}
}

func TestKeyThatAppearsWhileWaitingForTheLockIsUsed(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	others, _ := newTestStore(t, storage.Storage)
	other := mustKey(t, ES256, testenv.Now)
	storage.OnLock = func(context.Context, string) error {
		put(t, others, other, testURL)
		return nil
	}
	ring, err := loadOrCreate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if ring.Signing().ID != other.ID || storage.Count("store") != 0 {
		t.Error("a second key was made")
	}
}

func TestIssuersThatShareAFolderHaveTheirOwnKeys(t *testing.T) {
	storage := newStorage(t)
	mine, _ := newTestStore(t, storage)
	theirs, log := newTestStore(t, storage)
	theirs.Issuer = "https://other.example.com"
	a, err := loadOrCreate(t.Context(), mine)
	if err != nil {
		t.Fatal(err)
	}
	b, err := loadOrCreate(t.Context(), theirs)
	if err != nil {
		t.Fatal(err)
	}
	if a.Signing().ID == b.Signing().ID || len(b.published) != 1 {
		t.Error("an issuer uses the key of another")
	}
	if !slices.Equal(log.all, []string{EventForeign, EventCreated}) {
		t.Errorf("reported %v", log.all)
	}
	if got := signingID(t, mine); got != a.Signing().ID {
		t.Error("the other issuer's key replaced ours")
	}
}

func TestStorageErrors(t *testing.T) {
	down := errors.New("storage is down")
	fail := func(context.Context, string) error { return down }
	for name, broken := range map[string]func(*testenv.Storage){
		"list":  func(s *testenv.Storage) { s.OnList = fail },
		"lock":  func(s *testenv.Storage) { s.OnLock = fail },
		"store": func(s *testenv.Storage) { s.OnStore = fail },
	} {
		t.Run(name, func(t *testing.T) {
			storage := newStorage(t)
			store, _ := newTestStore(t, storage)
			broken(storage)
			if ring, err := loadOrCreate(t.Context(), store); !errors.Is(err, down) || ring != nil {
				t.Errorf("got %v, %v", ring, err)
			}
			if locks, unlocks := storage.Count("lock"), storage.Count("unlock"); name == "store" && locks != unlocks {
				t.Error("the lock was left behind")
			}
		})
	}
}

func TestUnreadObjectStopsCreationButNotOtherKeys(t *testing.T) {
	down := errors.New("permission denied")
	storage := newStorage(t)
	store, log := newTestStore(t, storage)
	hidden, open := mustKey(t, ES256, testenv.Now), mustKey(t, ES256, testenv.Now.Add(-time.Hour))
	hiddenName := put(t, store, hidden, testURL)
	storage.OnLoad = func(_ context.Context, key string) error {
		if key == hiddenName {
			return down
		}
		return nil
	}
	if _, err := loadOrCreate(t.Context(), store); !errors.Is(err, down) || storage.Count("store") != 1 {
		t.Errorf("error is %v, calls %v", err, storage.Calls())
	}
	put(t, store, open, testURL)
	if ring, err := loadRing(t.Context(), store); !errors.Is(err, down) || ring.Signing().ID != open.ID {
		t.Errorf("the key that can be read does not sign: %v", err)
	}
	if !slices.Equal(log.all, []string{EventUnreadable}) {
		t.Errorf("reported %v, want it once", log.all)
	}
}

func TestUnlockOutlivesTheContext(t *testing.T) {
	storage := newStorage(t)
	store, log := newTestStore(t, storage)
	ctx, cancel := context.WithCancel(t.Context())
	storage.OnStore = func(context.Context, string) error { cancel(); return ctx.Err() }
	storage.OnUnlock = func(ctx context.Context, _ string) error { return ctx.Err() }
	if _, err := loadOrCreate(ctx, store); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if len(log.all) != 0 || storage.Count("unlock") != 1 {
		t.Errorf("the lock was not released: %v, %v", log.all, log.err)
	}
}

func TestFailedUnlockIsReported(t *testing.T) {
	storage := newStorage(t)
	store, log := newTestStore(t, storage)
	storage.OnUnlock = func(context.Context, string) error { return errors.New("gone") }
	if _, err := loadOrCreate(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(log.all, []string{EventCreated, EventUnlockFailed}) {
		t.Errorf("reported %v", log.all)
	}
}

func TestCancelledLoadIsAnError(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	put(t, store, mustKey(t, ES256, testenv.Now), testURL)
	ctx, cancel := context.WithCancel(t.Context())
	storage.OnLoad = func(context.Context, string) error { cancel(); return nil }
	if ring, err := loadRing(ctx, store); !errors.Is(err, context.Canceled) || ring != nil {
		t.Errorf("got %v, %v", ring, err)
	}
}

func TestSettingsOfManagedKeys(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no storage":        func(c *Config) { c.Storage = nil },
		"no realm":          func(c *Config) { c.Realm = "" },
		"a realm of dots":   func(c *Config) { c.Realm = "." },
		"no issuer":         func(c *Config) { c.Issuer = "" },
		"rotation":          func(c *Config) { c.RotateEvery = time.Second },
		"announcement":      func(c *Config) { c.AnnounceFor = defaultRotateEvery },
		"unknown algorithm": func(c *Config) { c.Algorithm = "HS256" },
	} {
		cfg := Config{Storage: newStorage(t), Realm: "default", Issuer: testURL}
		change(&cfg)
		if source, err := Managed(cfg, nil); err == nil || source != nil {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
