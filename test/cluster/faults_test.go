package cluster_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// fault is something that goes wrong, as a row of docs/operations.md names it.
type fault struct {
	name  string
	check func(*testing.T, *cluster)
}

// storageFaults are what a cluster with its clients in storage is put through.
var storageFaults = []fault{
	{"A node is killed", killed},
	{"Storage is read-only", readOnly},
	{"Storage is gone", gone},
	{"Storage is empty", empty},
	{"Storage is slow", slow},
	{"A node starts without storage", startsWithoutStorage},
	{"A clock is ahead", ahead},
	{"A clock is behind", behind},
}

// run puts the cluster through faults, under traffic.
func (c *cluster) run(t *testing.T, faults []fault) {
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			fault.check(t, c)
			c.flows(t)
			c.changes(t, c.nodes...)
		})
		if t.Failed() {
			return // the cluster may be in any state
		}
	}
}

// killed kills each node in turn, the first one while it changes clients. Whatever it
// has confirmed is not lost.
func killed(t *testing.T, c *cluster) {
	confirmed := make(map[string]bool)
	for i, victim := range c.nodes {
		if i == 0 {
			c.killInAChange(t, victim, confirmed)
		} else {
			victim.kill()
		}
		c.flows(t)
		next := c.nodes[(i+1)%len(c.nodes)]
		var status int
		var text string
		// the lock of a node that died while it was changing a client is free again after
		// what a change may take, and two attempts
		for end := time.Now().Add(2 * rig.Patience); status != http.StatusOK && time.Now().Before(end); {
			status, text = next.disable(t, "changing", true)
		}
		if status != http.StatusOK {
			t.Fatalf("changing a client at another node: %d %s", status, text)
		}
		victim.run(t)
		if c.admitted(victim, "changing") {
			t.Error("the node has missed a change while it was down")
		}
		c.flows(t)
		if status, text := victim.disable(t, "changing", false); status != http.StatusOK {
			t.Errorf("changing a client at the node that was down: %d %s", status, text)
		}
		for _, node := range c.nodes {
			c.await(t, node, "changing", true)
			for id := range confirmed {
				c.soon(t, node.Name+" has "+id, func() bool {
					status, _, err := node.Ask(http.MethodGet, "/mtls/realms/default/clients/"+id, "")
					return err == nil && status == http.StatusOK
				})
			}
		}
	}
	if len(confirmed) == 0 {
		t.Error("no change was confirmed before the node was killed")
	}
}

// killInAChange kills a node while it changes clients, and notes what it has confirmed.
func (c *cluster) killInAChange(t *testing.T, victim *node, confirmed map[string]bool) {
	t.Helper()
	var changing sync.WaitGroup
	began := make(chan bool)
	begun := sync.OnceFunc(func() { close(began) })
	changing.Go(func() {
		defer begun()
		for n := range 1000 {
			id := fmt.Sprintf("new-%d", n)
			record := fmt.Sprintf(`{"client_id":%q,"x509_thumbprints":"%064x"}`, id, 1+n)
			status, text, err := victim.Ask(http.MethodPut, "/mtls/realms/default/clients/"+id, record)
			if err != nil {
				return // killed
			}
			if status != http.StatusCreated {
				t.Errorf("%s: %d %s", id, status, text)
				return
			}
			confirmed[id] = true
			if n == 3 {
				begun()
			}
		}
	})
	<-began
	victim.kill()
	changing.Wait()
}

// rotate asks a node for another signing key, and returns the status.
func (n *node) rotate(t *testing.T) int {
	t.Helper()
	status, _, err := n.Ask(http.MethodPost, "/mtls/realms/default/keys/rotate", `{"retire":"now"}`)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// unwritable checks what a cluster does and does not do while nothing can be written to
// storage.
func (c *cluster) unwritable(t *testing.T) {
	t.Helper()
	c.flows(t)
	for _, node := range c.nodes[:2] {
		c.refuses(t, node, http.StatusServiceUnavailable)
		if status := node.rotate(t); status != http.StatusServiceUnavailable {
			t.Errorf("%s: retiring the key: %d", node.Name, status)
		}
		if out, err := node.Reload(); err != nil {
			t.Errorf("%s: reloading: %v\n%s", node.Name, err, out)
		}
	}
	c.flows(t)
}

func readOnly(t *testing.T, c *cluster) {
	c.fault(t, "read-only")
	defer c.fault(t, "")
	c.unwritable(t)
}

// away takes storage away, and returns a function that brings it back.
func (c *cluster) away(t *testing.T, instead func(path string) error) (back func()) {
	t.Helper()
	c.outages++
	name := fmt.Sprint("storage-", c.outages)
	if err := instead(filepath.Join(c.Dir, name)); err != nil {
		t.Fatal(err)
	}
	c.provide(t, name)
	return func() { c.provide(t, "storage-itself") }
}

// nothingThere makes every operation of storage fail.
func nothingThere(path string) error { return os.WriteFile(path, nil, 0o600) }

// gone takes storage away.
func gone(t *testing.T, c *cluster) {
	defer c.away(t, nothingThere)()
	c.unwritable(t)
}

// empty takes away what is in storage, as when a share is not mounted, for longer than
// nodes take to read it.
func empty(t *testing.T, c *cluster) {
	defer c.away(t, func(path string) error { return os.Mkdir(path, 0o700) })()
	logged := make(map[*node]int)
	for _, node := range c.nodes {
		logged[node] = len(node.Logged())
	}
	for _, node := range c.nodes {
		rig.Await(c.Rig, t, node.Name+" notices", func() bool { return strings.Contains(node.Logged()[logged[node]:], "client source") })
	}
	c.flows(t)
	c.refuses(t, c.nodes[0], http.StatusInternalServerError)
}

// slow makes every operation of storage take a while, after a time in which none ends.
// Requests are answered all the same, and a change takes longer: it needs ten operations or
// more, for which it has 15 seconds.
func slow(t *testing.T, c *cluster) {
	c.fault(t, "hangs")
	defer c.fault(t, "")
	c.flows(t)
	for range 50 {
		for _, node := range c.nodes {
			if !c.admitted(node, "stored") {
				t.Fatalf("%s refuses a client", node.Name)
			}
		}
	}
	c.flows(t)
	c.fault(t, "slow 200ms")
	c.flows(t)
	if status, text := c.nodes[0].disable(t, "changing", true); status != http.StatusOK {
		t.Errorf("changing a client: %d %s", status, text)
	}
	for _, node := range c.nodes {
		c.await(t, node, "changing", false)
	}
	if status, text := c.nodes[1].disable(t, "changing", false); status != http.StatusOK {
		t.Errorf("changing a client: %d %s", status, text)
	}
}

// startsWithoutStorage kills a node and starts it without storage. It does not start,
// and says why.
func startsWithoutStorage(t *testing.T, c *cluster) {
	back := c.away(t, nothingThere)
	victim := c.nodes[1]
	victim.kill()
	before := len(victim.Logged())
	victim.Start()
	rig.Await(c.Rig, t, "it gives up", victim.Exited)
	if said := victim.Logged()[before:]; !strings.Contains(said, "clients from storage: source is unavailable") {
		t.Errorf("it says %s", said)
	}
	c.flows(t)
	back()
	victim.run(t)
}

// offClock restarts a node with another clock, and then with the right one.
func (c *cluster) offClock(t *testing.T, clock string, check func(off, right *node)) {
	t.Helper()
	off, right := c.nodes[2], c.nodes[0]
	off.alone.Store(true)
	off.kill()
	off.Configure(c.config(clock))
	off.run(t)
	c.flows(t)
	c.changes(t, c.nodes[1:]...)
	check(off, right)
	off.kill()
	off.Configure(c.config("0s"))
	off.run(t)
	off.alone.Store(false)
}

// issue gets a token from a node.
func (c *cluster) issue(t *testing.T, n *node) string {
	t.Helper()
	caller := n.Connect("h1", c.leaves["stored"])
	defer caller.Close()
	got, err := caller.Try(http.MethodPost, "https://auth.test/connect/token", rig.Form("stored"))
	if err != nil {
		t.Fatal(err)
	}
	token, _ := rig.JSON(t, got.WantStatus(t, http.StatusOK).Body)["access_token"].(string)
	return token
}

// bearer returns the status of a request with a token at a node.
func (c *cluster) bearer(t *testing.T, n *node, token string) int {
	t.Helper()
	caller := n.Connect("h1", c.leaves["stored"])
	defer caller.Close()
	got, err := caller.Try(http.MethodGet, "https://other.test/", rig.Bearer(token))
	if err != nil {
		t.Fatal(err)
	}
	return got.Status
}

// wantBearer checks who admits whose token.
func (c *cluster) wantBearer(t *testing.T, by, of *node, status int) {
	t.Helper()
	if got := c.bearer(t, by, c.issue(t, of)); got != status {
		t.Errorf("a token of %s at %s: %d, want %d", of.Name, by.Name, got, status)
	}
}

func ahead(t *testing.T, c *cluster) {
	c.offClock(t, "30m", func(off, right *node) {
		c.wantBearer(t, right, off, http.StatusUnauthorized) // from the future
		c.wantBearer(t, off, right, http.StatusOK)
		c.wantBearer(t, off, off, http.StatusOK)
	})
	c.offClock(t, "2h", func(off, right *node) {
		c.wantBearer(t, off, right, http.StatusUnauthorized) // expired
	})
}

func behind(t *testing.T, c *cluster) {
	c.offClock(t, "-30m", func(off, right *node) {
		c.wantBearer(t, right, off, http.StatusOK)
		c.wantBearer(t, off, right, http.StatusUnauthorized) // from the future
		c.wantBearer(t, off, off, http.StatusOK)
	})
}
