package keyring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// node is one server of a cluster, with its own clock and access to storage.
type node struct {
	*Source
	storage *testenv.Storage
	skew    time.Duration
	log     *events
	down    bool // storage fails for this node
	behind  bool // its last reading failed
}

// sane reports whether the node's clock is right within the tolerance. Only
// then does what it signs or accepts count.
func (n *node) sane() bool { return n.skew.Abs() <= clockTolerance }

// cluster is several nodes on one storage. The test determines the order of
// everything they do.
type cluster struct {
	t      *testing.T
	clock  *testenv.Clock
	folder string
	nodes  []*node
	tokens map[signed]time.Time // the last `exp`
	kids   map[string]bool

	// isolated is set when nodes miss a whole announcement. Others must then
	// know what they sign, but they cannot know what others do.
	isolated bool
}

// signed identifies all tokens that a node has signed with a key.
type signed struct {
	kid string
	by  int
}

func newCluster(t *testing.T, skews ...time.Duration) *cluster {
	c := &cluster{t: t, clock: testenv.NewClock(), folder: t.TempDir(), tokens: make(map[signed]time.Time), kids: make(map[string]bool)}
	for _, skew := range skews {
		n := &node{storage: testenv.NewStorage(c.folder), skew: skew}
		fail := func(context.Context, string) error {
			if n.down {
				return errors.New("down")
			}
			return nil
		}
		n.storage.OnList, n.storage.OnLock = fail, fail
		c.nodes = append(c.nodes, n)
		c.start(n, nil)
	}
	return c
}

// start starts a node again, or reloads it if running is its source.
func (c *cluster) start(n *node, running *Source) {
	store, log := newTestStore(c.t, n.storage)
	store.RotateEvery, store.AnnounceFor = minRotateEvery, 10*time.Minute
	store.Now = func() time.Time { return c.clock.Now().Add(n.skew) }
	n.Source, n.log = mustManaged(c.t, store, running), log
}

// refresh lets a node read storage, as it does at each interval.
func (n *node) refresh() error {
	a, _ := n.attempt(n.upkeep)
	<-a.done
	n.behind = a.err != nil
	return a.err
}

// mint signs a token on a node.
func (c *cluster) mint(by int) {
	n := c.nodes[by]
	ring := n.Current()
	if ring == nil || !n.sane() {
		return
	}
	lifetime := time.Duration(n.LimitLifetime(ring, int64(time.Hour/time.Second))) * time.Second
	c.tokens[signed{ring.Signing().ID, by}] = n.store.Now().Add(lifetime)
	c.kids[ring.Signing().ID] = true
}

// check looks up the key of every token on every node by whose clock it has
// not expired.
func (c *cluster) check() {
	c.t.Helper()
	for i, n := range c.nodes {
		ring := n.Current()
		if ring == nil || !n.sane() || n.behind && c.isolated {
			continue
		}
		for token, exp := range c.tokens {
			if !exp.After(n.store.Now()) {
				continue
			}
			if _, known := ring.publicKey(token.kid); !known {
				c.t.Fatalf("after %v: node %d (%v) does not publish %s, with which node %d signed until %v; it has %s",
					c.clock.Now().Sub(testenv.Now), i, n.skew, token.kid, token.by, exp.Sub(testenv.Now), states(ring))
			}
		}
	}
}

// run lets time pass. Each node reads storage every minute, one after the
// other; in between each signs a token and is checked.
func (c *cluster) run(d time.Duration, each func(time.Duration)) {
	c.t.Helper()
	const step = 20 * time.Second
	for past := time.Duration(0); past < d; past += step {
		for i, n := range c.nodes {
			if (past/step)%3 == time.Duration(i%3) {
				_ = n.refresh()
			}
			c.mint(i)
			c.check()
		}
		if each != nil {
			each(past)
		}
		c.clock.Advance(step)
	}
}

// TestNoTokenOfALiveKeyIsRefused rotates keys several times in clusters with
// various faults.
func TestNoTokenOfALiveKeyIsRefused(t *testing.T) {
	const hours = 130 * time.Minute
	for _, tc := range []struct {
		name  string
		skews []time.Duration
		each  func(c *cluster, past time.Duration)
	}{
		{"clocks that agree", []time.Duration{0, 0, 0}, nil},
		{"clocks minutes off", []time.Duration{-3 * time.Minute, 0, 3 * time.Minute}, nil},
		{"a clock hours behind", []time.Duration{0, -5 * time.Hour, 0}, nil},
		{"a clock an hour ahead", []time.Duration{0, 0, time.Hour}, nil},
		{"a clock that jumps", []time.Duration{0, 0, 0}, func(c *cluster, past time.Duration) {
			if past == 90*time.Minute {
				c.nodes[1].skew = 4 * time.Minute
			}
			if past == 150*time.Minute {
				c.nodes[1].skew = -4 * time.Minute
			}
		}},
		{"nodes that restart", []time.Duration{0, time.Minute, -time.Minute}, func(c *cluster, past time.Duration) {
			if past%(7*time.Minute) == 0 {
				n := c.nodes[int(past/(7*time.Minute))%3]
				c.start(n, nil)
				_ = n.refresh()
			}
		}},
		{"nodes that reload", []time.Duration{0, time.Minute, -time.Minute}, func(c *cluster, past time.Duration) {
			if past%(7*time.Minute) == 0 {
				n := c.nodes[int(past/(7*time.Minute))%3]
				c.start(n, n.Source)
			}
		}},
		{"storage that is often down for all", []time.Duration{0, 0, 0}, func(c *cluster, past time.Duration) {
			for _, n := range c.nodes {
				n.down = past > time.Minute && past%(15*time.Minute) < 10*time.Minute
			}
		}},
		{"storage that is down for one while a key is announced", []time.Duration{0, 0, 0}, func(c *cluster, past time.Duration) {
			// it misses the announcement and some minutes more
			c.isolated = true
			c.nodes[2].down = past > 49*time.Minute && past < 69*time.Minute
		}},
		{"storage that loses everything", []time.Duration{0, 0, 0}, func(c *cluster, past time.Duration) {
			if past == 55*time.Minute || past == 130*time.Minute {
				if err := c.nodes[0].storage.Delete(c.t.Context(), "mtls"); err != nil {
					c.t.Fatal(err)
				}
			}
		}},
		{"a change of the algorithm", []time.Duration{0, 2 * time.Minute, -2 * time.Minute}, func(c *cluster, past time.Duration) {
			if past%(20*time.Minute) == 0 && past > 0 && past <= time.Hour {
				n := c.nodes[int(past/(20*time.Minute))-1]
				c.start(n, n.Source)
				n.store.Algorithm = EdDSA
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, tc.skews...)
			c.run(hours, func(past time.Duration) {
				if tc.each != nil {
					tc.each(c, past)
				}
			})
			if len(c.kids) < 3 || len(c.kids) > 24 {
				t.Errorf("%d keys have signed in %v", len(c.kids), hours)
			}
			// in the end all nodes agree
			for _, n := range c.nodes {
				n.skew, n.down = 0, false
			}
			clear(c.tokens)
			c.run(90*time.Minute, nil)
			signing := make(map[string]bool)
			for _, n := range c.nodes {
				signing[n.Current().Signing().ID] = true
			}
			if len(signing) != 1 {
				t.Errorf("the nodes sign with %v", signing)
			}
		})
	}
}

// TestKeysAreDeletedInTheEnd checks that storage and JWKS stay small.
func TestKeysAreDeletedInTheEnd(t *testing.T) {
	c := newCluster(t, 0, time.Minute)
	for hour := range 24 * 7 {
		c.nodes[hour%2].store.RotateEvery = 6 * time.Hour
		for _, n := range c.nodes {
			if err := n.refresh(); err != nil {
				t.Fatal(err)
			}
		}
		names, err := c.nodes[0].storage.List(t.Context(), c.nodes[0].store.folder(), false)
		if err != nil || len(names) > 40 {
			t.Fatalf("%d objects in storage, %v", len(names), err)
		}
		c.clock.Advance(time.Hour)
	}
	if !slices.Contains(c.nodes[0].log.all, EventDeleted) {
		t.Error("no key was ever deleted")
	}
	if n := len(c.nodes[0].Infos()); n > 4 {
		t.Errorf("%d keys are published", n)
	}
}

// TestStorageCallsWhileNothingIsDue checks that a node then only reads.
func TestStorageCallsWhileNothingIsDue(t *testing.T) {
	c := newCluster(t, 0)
	n := c.nodes[0]
	if err := n.refresh(); err != nil {
		t.Fatal(err)
	}
	n.storage.Forget()
	for range 3 {
		c.clock.Advance(30 * time.Second)
		if err := n.refresh(); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(n.storage.Calls()), "[list load list load list load]"; got != want {
		t.Errorf("storage calls are %s, want %s", got, want)
	}
}
