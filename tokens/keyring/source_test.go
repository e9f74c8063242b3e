package keyring

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

func TestFixedKeys(t *testing.T) {
	ring := New(mustKey(t, PS256, time.Time{}))
	source := Fixed(ring)
	ensured, ensureErr := source.Ensure(t.Context())
	loaded, loadErr := source.Load(t.Context())
	if ensureErr != nil || loadErr != nil || source.Current() != ring || ensured != ring || loaded != ring {
		t.Error("a fixed source does not hand out its keyring")
	}
	if source.Algorithm() != PS256 {
		t.Errorf("algorithm is %s", source.Algorithm())
	}
}

func TestManagedKeys(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	source := mustManaged(t, store, nil)
	if source.Current() != nil || source.Algorithm() != ES256 || len(storage.Calls()) != 0 {
		t.Error("a new source has keys, or touched storage")
	}
	if _, err := source.Load(t.Context()); !errors.Is(err, errNoKey) || storage.Count("store") != 0 {
		t.Errorf("loading gave %v, calls %v", err, storage.Calls())
	}
	ring, err := source.Ensure(t.Context())
	if err != nil || source.Current() != ring {
		t.Fatalf("no keyring: %v", err)
	}
	calls := len(storage.Calls())
	if again, err := source.Ensure(t.Context()); err != nil || again != ring || len(storage.Calls()) != calls {
		t.Error("storage is asked again although there are keys")
	}
	restarted := mustManaged(t, store, nil)
	loaded, err := restarted.Load(t.Context())
	if err != nil || loaded.Signing().ID != ring.Signing().ID || restarted.Current() != loaded {
		t.Errorf("a restart does not load the key: %v", err)
	}
}

func TestKeysSurviveAReloadWithoutStorage(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	running := mustManaged(t, store, nil)
	before, err := running.Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	storage.OnList = func(context.Context, string) error { return errors.New("down") }
	source := mustManaged(t, store, running)
	if _, err := source.Load(t.Context()); err == nil {
		t.Error("loading hides that storage is down")
	}
	if after, err := source.Ensure(t.Context()); err != nil || after.JWKS().ETag != before.JWKS().ETag || after.Signing() != before.Signing() {
		t.Errorf("the keys are gone: %v", err)
	}
}

func TestCallersShareOneAttempt(t *testing.T) {
	const callers = 16
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	entered, release := make(chan struct{}), make(chan struct{})
	storage.OnLock = func(context.Context, string) error {
		close(entered)
		<-release
		return nil
	}
	source := mustManaged(t, store, nil)
	rings := make([]*Keyring, callers)
	var wg sync.WaitGroup
	for n := range callers {
		wg.Go(func() { rings[n], _ = source.Ensure(t.Context()) })
	}
	<-entered
	if source.Current() != nil {
		t.Error("there is a keyring before there is a key")
	}
	close(release)
	wg.Wait()
	if rings[0] == nil || len(slices.Compact(rings)) != 1 || storage.Count("store") != 1 {
		t.Errorf("%v, calls %v", rings, storage.Calls())
	}
}

func TestCallerStopsWaitingWithItsContext(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	entered, release := make(chan struct{}), make(chan struct{})
	storage.OnLock = func(context.Context, string) error {
		close(entered)
		<-release
		return nil
	}
	source := mustManaged(t, store, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := source.Ensure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}

	// the attempt belongs to all callers and continues without the first
	close(release)
	if _, err := source.Ensure(t.Context()); err != nil || storage.Count("store") != 1 {
		t.Errorf("error is %v, calls %v", err, storage.Calls())
	}
}

func TestCallerWaitsNoLongerThanTheLimit(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	release := make(chan struct{})
	defer close(release)
	storage.OnList = func(context.Context, string) error { // deaf to its context
		<-release
		return errors.New("too late")
	}
	source := mustManaged(t, store, nil)
	source.wait = time.Millisecond
	if _, err := source.Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "within 1ms") {
		t.Errorf("error is %v", err)
	}
}

func TestFailureIsRememberedForAMoment(t *testing.T) {
	down := errors.New("down")
	now := testenv.NewClock()
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	store.Now = now.Now
	storage.OnList = func(context.Context, string) error { return down }
	source := mustManaged(t, store, nil)
	for range 3 {
		if _, err := source.Ensure(t.Context()); !errors.Is(err, down) {
			t.Errorf("error is %v", err)
		}
	}
	if n := storage.Count("list"); n != 1 {
		t.Errorf("storage was asked %d times within the pause", n)
	}
	now.Advance(retryPause)
	storage.OnList = nil
	if _, err := source.Ensure(t.Context()); err != nil {
		t.Errorf("no key after storage came back: %v", err)
	}
}

func TestPanickingStorageIsAnError(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	storage.OnLoad = func(context.Context, string) error { panic("boom") }
	put(t, store, mustKey(t, ES256, testenv.Now), testURL)
	if _, err := mustManaged(t, store, nil).Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("error is %v", err)
	}
}

func TestWaitForTheKeyThatIsBeingStored(t *testing.T) {
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	asked, release := make(chan struct{}), make(chan struct{})
	storage.OnList = func(context.Context, string) error {
		close(asked)
		<-release
		storage.OnList = nil
		return nil
	}
	source := mustManaged(t, store, nil)
	source.Wait(t.Context()) // nothing is running
	impatient, cancel := context.WithCancel(t.Context())
	go func() { _, _ = source.Ensure(impatient) }()
	<-asked
	cancel()
	source.Wait(impatient) // does not wait for storage that hangs
	close(release)
	source.Wait(t.Context())
	if source.Current() == nil {
		t.Error("the wait is over before the key is there")
	}
}

// writes returns the operations that change storage or lock it.
func (n *node) writes() int {
	return n.storage.Count("lock") + n.storage.Count("store") + n.storage.Count("delete")
}

// TestEndedSourceOnlyReads_S1 checks that a source whose configuration has ended
// leaves storage as it is, whatever is due there, and still learns what another
// source retires.
func TestEndedSourceOnlyReads_S1(t *testing.T) {
	c, a, b := newPair(t)
	old := a.Current().Signing().ID
	a.Wait(t.Context())
	a.End()
	a.storage.Forget()

	c.clock.Advance(10 * minRotateEvery) // the next key is long due, and the old one could be deleted
	if err := a.refresh(); err != nil {
		t.Errorf("an ended source reports %v", err)
	}
	for _, retire := range []bool{false, true} {
		if _, err := a.Rotate(t.Context(), retire); !errors.Is(err, errEnded) {
			t.Errorf("rotating an ended source: %v", err)
		}
	}
	a.LimitLifetime(a.Current(), int64(10*time.Hour/time.Second))
	a.PublicKey("made up", ES256)
	a.Wait(t.Context())
	if n := a.writes(); n != 0 {
		t.Errorf("%d changes to storage: %v", n, a.storage.Calls())
	}
	if a.Current().Signing().ID != old {
		t.Error("an ended source made a key")
	}

	if _, err := b.Rotate(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := a.refresh(); err != nil {
		t.Fatal(err)
	}
	if _, known := a.Current().publicKey(old); known || a.writes() != 0 {
		t.Errorf("the retired key is known: %v; %d changes to storage", known, a.writes())
	}
	a.down = true
	if err := a.refresh(); err == nil || a.log.count(EventUnavailable) != 0 {
		t.Errorf("the failure of a closed storage is reported: %v", err)
	}
	Fixed(New(exampleKey(t))).End() // has nothing to end
}

// TestSourceEndsWithinAChange_S1 checks that a change which was running when its
// source ended writes nothing more.
func TestSourceEndsWithinAChange_S1(t *testing.T) {
	_, a, b := newPair(t)
	a.storage.OnStore = func(context.Context, string) error { a.End(); return nil }
	a.storage.Forget()
	if _, err := a.Rotate(t.Context(), true); !errors.Is(err, errEnded) {
		t.Errorf("the error is %v", err)
	}
	if n := a.storage.Count("store") + a.storage.Count("delete"); n != 1 {
		t.Errorf("%d changes to storage, want only the one that was running: %v", n, a.storage.Calls())
	}
	if err := b.refresh(); err != nil || b.Current() == nil {
		t.Errorf("the other node: %v", err)
	}
}

// TestEndedSourceWithoutKeys_S1 checks that a source that ends before there is any
// key neither makes one nor claims to have one.
func TestEndedSourceWithoutKeys_S1(t *testing.T) {
	c := newCluster(t, 0)
	a := c.nodes[0]
	a.End()
	if ring, err := a.Ensure(t.Context()); ring != nil || !errors.Is(err, errNoKey) || a.writes() != 0 {
		t.Errorf("keys %v, error %v, %d changes to storage", ring, err, a.writes())
	}
}
