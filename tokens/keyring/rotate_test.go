package keyring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// newPair returns two nodes that have the same first key.
func newPair(t *testing.T) (c *cluster, a, b *node) {
	t.Helper()
	c = newCluster(t, 0, 0)
	for _, n := range c.nodes {
		if err := n.refresh(); err != nil {
			t.Fatal(err)
		}
	}
	return c, c.nodes[0], c.nodes[1]
}

func TestRotateAnnouncesTheNextKey(t *testing.T) {
	c, a, b := newPair(t)
	first := a.Current().Signing().ID
	kid, err := a.Rotate(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	want := first + " active, " + kid + " next"
	if got := states(a.Current()); got != want {
		t.Errorf("states are %q, want %q", got, want)
	}
	info := a.Infos()
	if signs := info[1].SignsFrom.Sub(c.clock.Now()); signs < 10*time.Minute || signs > 10*time.Minute+2*time.Second {
		t.Errorf("it signs after %v", signs)
	}
	if want := info[1].SignsFrom.Add(time.Hour + publishedSlack); !info[0].Leaves.Equal(want) || !info[1].Leaves.IsZero() {
		t.Errorf("they leave at %v and %v, want %v and never", info[0].Leaves, info[1].Leaves, want)
	}
	for _, n := range c.nodes {
		if _, err := n.Rotate(t.Context(), false); !errors.Is(err, ErrAnnounced) || !strings.Contains(err.Error(), kid) {
			t.Errorf("a second one: %v", err)
		}
	}
	if got := states(b.Current()); got != want {
		t.Errorf("the other node has %q, want %q", got, want)
	}
	if slices.Contains(append(a.log.all, b.log.all...), EventUnavailable) {
		t.Error("that a key is announced counts as a failure of storage")
	}

	// its time also comes while storage is down
	a.down, b.down = true, true
	c.clock.Advance(10*time.Minute + time.Second)
	for _, n := range c.nodes {
		if got := states(n.Current()); got != kid+" active, "+first+" past" {
			t.Errorf("states are %q", got)
		}
		if err := n.refresh(); err == nil {
			t.Error("storage is not down")
		}
		if !slices.Contains(n.log.all, EventActive) {
			t.Error("that another key signs was not reported")
		}
	}
}

func TestReplaceRetiresAllKeys(t *testing.T) {
	c, a, b := newPair(t)
	first := a.Current().Signing().ID
	next, err := a.Rotate(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	saved := a.Current().published // as in a JWKS in verify_key
	a.store.VerifyKeys, b.store.VerifyKeys = saved, saved
	kid, err := a.Rotate(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if got := states(a.Current()); got != kid+" active" {
		t.Errorf("states are %q", got)
	}
	if got := states(b.Current()); got != first+" active, "+next+" next" {
		t.Errorf("the other node has %q before it reads storage", got)
	}
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	fresh := &node{storage: a.storage}
	c.start(fresh, nil)
	fresh.store.VerifyKeys = saved
	if err := fresh.refresh(); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*node{"this node": a, "the other node": b, "a node that starts": fresh} {
		if got := states(n.Current()); got != kid+" active" {
			t.Errorf("%s has %q", name, got)
		}
		for _, old := range []string{first, next} {
			if _, known := n.PublicKey(old, ES256); known {
				t.Errorf("%s accepts a retired key", name)
			}
		}
		n.Wait(t.Context())
	}
	if got := slices.DeleteFunc(slices.Clone(a.log.all), func(e string) bool { return e != EventRetired }); len(got) != 2 {
		t.Errorf("reported %v", a.log.all)
	}

	// a node that still had the key does not bring it back; in the end nothing
	// of it is left
	c.clock.Advance(26 * time.Hour)
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	files, _ := a.storage.List(t.Context(), a.store.folder(), false)
	if slices.Contains(files, a.store.keyPath(first)) || !slices.Contains(files, a.store.retirementPath(first)) {
		t.Errorf("storage has %v", files)
	}
	if err := a.refresh(); err != nil {
		t.Fatal(err)
	}
	c.clock.Advance(retirementKept)
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	files, _ = a.storage.List(t.Context(), a.store.folder(), false)
	if slices.ContainsFunc(files, func(name string) bool { return strings.HasSuffix(name, retirementSuffix) }) {
		t.Errorf("storage has %v", files)
	}
}

// TestDamagedRetirementRetires checks that a retirement counts whatever its
// content is.
func TestDamagedRetirementRetires(t *testing.T) {
	_, a, b := newPair(t)
	first := a.Current().Signing().ID
	kid, err := a.Rotate(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"", "{", `{"retired":"soon"}`, "{}", strings.Repeat(" ", maxRetirement+1)} {
		if err := a.storage.Store(t.Context(), a.store.retirementPath(first), []byte(data)); err != nil {
			t.Fatal(err)
		}
		if err := b.refresh(); err != nil {
			t.Fatal(err)
		}
		if got := states(b.Current()); got != kid+" active" {
			t.Errorf("%.20q: states are %q", data, got)
		}
	}
}

// TestReplaceThatFailsCanBeRepeated checks that a replacement that fails half
// way returns an error, leaves a key that signs, and can be repeated.
func TestReplaceThatFailsCanBeRepeated(t *testing.T) {
	down := errors.New("down")
	for name, tc := range map[string]struct {
		fail func(*testenv.Storage)
		more bool // a key was made nonetheless
	}{
		"no lock":       {func(s *testenv.Storage) { s.OnLock = func(context.Context, string) error { return down } }, false},
		"no list":       {func(s *testenv.Storage) { s.OnList = func(context.Context, string) error { return down } }, false},
		"no key":        {func(s *testenv.Storage) { s.OnStore = func(context.Context, string) error { return down } }, false},
		"no retirement": {func(s *testenv.Storage) { s.OnStore = onlyFor(retirementSuffix, down) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, a, b := newPair(t)
			c.clock.Advance(time.Minute)
			first := a.Current().Signing().ID
			lock, list := a.storage.OnLock, a.storage.OnList
			tc.fail(a.storage)
			if _, err := a.Rotate(t.Context(), true); !errors.Is(err, down) {
				t.Errorf("error is %v", err)
			}
			if tc.more != (a.Current().Signing().ID != first) {
				t.Errorf("states are %q", states(a.Current()))
			}
			a.storage.OnLock, a.storage.OnList, a.storage.OnStore = lock, list, nil
			kid, err := a.Rotate(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.refresh(); err != nil {
				t.Fatal(err)
			}
			for _, n := range []*node{a, b} {
				if got := states(n.Current()); got != kid+" active" {
					t.Errorf("states are %q", got)
				}
			}
		})
	}
}

func onlyFor(suffix string, err error) func(context.Context, string) error {
	return func(_ context.Context, key string) error {
		if strings.HasSuffix(key, suffix) {
			return err
		}
		return nil
	}
}

func TestRotateWithoutManagedKeys(t *testing.T) {
	ring := New(exampleKey(t))
	if _, err := Fixed(ring).Rotate(t.Context(), true); !errors.Is(err, ErrFixedKeys) {
		t.Errorf("error is %v", err)
	}
}

func TestRotateBeforeThereIsAKey(t *testing.T) {
	for _, retire := range []bool{false, true} {
		c := newCluster(t, 0)
		kid, err := c.nodes[0].Rotate(t.Context(), retire)
		if err != nil || states(c.nodes[0].Current()) != kid+" active" {
			t.Errorf("retire %v: states are %q, %v", retire, states(c.nodes[0].Current()), err)
		}
	}
}

// TestRetiredKeysStayRetired restores a storage from before a key was retired.
// A node that knows of the retirement does not use the key, also after a
// reload, and records the retirement again.
func TestRetiredKeysStayRetired(t *testing.T) {
	c, a, b := newPair(t)
	first := a.Current().Signing().ID
	next, err := a.Rotate(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	kid, err := a.Rotate(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	rollBack := func() {
		t.Helper()
		for _, old := range []string{first, next} {
			if err := a.storage.Delete(t.Context(), a.store.retirementPath(old)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// a reload only reads storage
	for name, n := range map[string]*node{"the node that retired them": a, "the other node": b} {
		rollBack()
		c.start(n, n.Source)
		if _, err := n.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := states(n.Current()); got != kid+" active" {
			t.Errorf("%s has %q after a reload", name, got)
		}
		if err := n.refresh(); err != nil {
			t.Fatal(err)
		}
		for _, old := range []string{first, next} {
			if !n.storage.Exists(t.Context(), n.store.retirementPath(old)) {
				t.Errorf("%s does not say in storage that %s is retired", name, old)
			}
		}
		c.clock.Advance(11 * time.Minute)
		if err := n.refresh(); err != nil {
			t.Fatal(err)
		}
		if got := states(n.Current()); got != kid+" active" {
			t.Errorf("%s has %q", name, got)
		}
	}
	fresh := &node{storage: a.storage}
	c.start(fresh, nil)
	if err := fresh.refresh(); err != nil {
		t.Fatal(err)
	}
	if got := states(fresh.Current()); got != kid+" active" {
		t.Errorf("a node that starts has %q", got)
	}
}

func TestCheckRotation(t *testing.T) {
	for _, tc := range []struct {
		rotate, announce time.Duration
		want             string
	}{
		{0, 0, ""},
		{minRotateEvery, minAnnounceFor, ""},
		{2 * day, 0, ""},
		{day, 0, "announce_for 24h0m0s is not shorter than rotate_every 24h0m0s"},
		{0, defaultRotateEvery, "announce_for 2160h0m0s is not shorter than rotate_every 2160h0m0s"},
		{minRotateEvery - 1, minAnnounceFor, "rotate_every 59m59.999999999s is too short; use at least 1h0m0s"},
		{-day, 0, "rotate_every -24h0m0s is too short; use at least 1h0m0s"},
		{0, time.Second, "announce_for 1s is too short; use at least 5s"},
		{0, -time.Second, "announce_for -1s is too short; use at least 5s"},
	} {
		err := CheckRotation(tc.rotate, tc.announce)
		if got := fmt.Sprint(err); !strings.HasPrefix(got, tc.want) || (err == nil) != (tc.want == "") {
			t.Errorf("%v, %v: error is %v, want %q", tc.rotate, tc.announce, err, tc.want)
		}
	}
}

func TestRefreshAndCacheIntervals(t *testing.T) {
	for announce, want := range map[time.Duration][2]time.Duration{
		0:                {30 * time.Second, 5 * time.Minute},
		day:              {30 * time.Second, 5 * time.Minute},
		10 * time.Minute: {30 * time.Second, 2 * time.Minute},
		time.Minute:      {12 * time.Second, 12 * time.Second},
		minAnnounceFor:   {time.Second, time.Second},
	} {
		source, err := Managed(Config{Storage: newStorage(t), Realm: "default", Issuer: testURL, AnnounceFor: announce}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]time.Duration{source.store.refreshInterval(), source.MaxAge()}; got != want {
			t.Errorf("%v: intervals are %v, want %v", announce, got, want)
		}
	}
	fixed := Fixed(New(exampleKey(t)))
	if fixed.MaxAge() != 5*time.Minute || !fixed.LastRead().IsZero() {
		t.Error("fixed keys are read from somewhere")
	}
}
