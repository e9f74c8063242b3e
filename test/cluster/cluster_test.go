package cluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// nodeConfig is the configuration of a node. SOURCE is where the clients are, and CLOCK
// how far its clock is off.
const nodeConfig = `{
	admin @ADMIN@
	persist_config off
	auto_https off
	skip_install_trust
	storage_check off
	storage_clean_interval off
	storage file_system "@DIR@/@NODE@-own"
	grace_period 20s
	http_port @HTTP@
	https_port @HTTPS@
	mtls {
		storage faulty "@DIR@/storage" "@DIR@/fault" CLOCK
		client fixed {
			certificate "@DIR@/fixed.pem"
			scopes      use
			introspect  https://other.test
		}
		clients_from SOURCE
		issuer https://auth.test {
			resource https://other.test {
				scopes use
			}
		}
	}
}

(mtls) {
	bind 127.0.0.1
	tls "@DIR@/server.pem" "@DIR@/server.key" {
		client_auth {
			mode request
		}
	}
}

https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	respond "hello {http.mtls.client_id}"
}

https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://other.test
	}
	respond "hello {http.mtls.client_id}"
}

https://auth.test:@HTTPS@ {
	import mtls
	mtls_issuer
}
`

// cluster is three Caddys under traffic.
type cluster struct {
	*rig.Rig
	source string // of the clients
	// outages counts how often something else was in the place of storage
	outages int
	nodes   []*node
	leaves  map[string]*testpki.Leaf

	stop    chan struct{}
	workers sync.WaitGroup
	mu      sync.Mutex
	tokens  []string // of the stored client, by several nodes
	wrong   []string // answers
}

// node is a Caddy of the cluster.
type node struct {
	*rig.Process
	// turns counts how often the node was taken down and brought up again: it is odd
	// while it is down.
	turns   atomic.Int64
	answers atomic.Int64
	// alone is set while the node's clock is off, so that its tokens differ.
	alone atomic.Bool
}

// start starts three nodes that share a storage, with their clients from a source.
func start(t *testing.T, source string) *cluster {
	t.Helper()
	c := &cluster{Rig: rig.New(t), source: source, leaves: make(map[string]*testpki.Leaf), stop: make(chan struct{})}
	for _, name := range []string{"fixed", "stored", "changing"} {
		c.leaves[name] = c.SelfSigned(name)
	}
	c.fault(t, "")
	c.provide(t, "storage-itself")
	if err := os.Mkdir(filepath.Join(c.Dir, "storage-itself"), 0o700); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		node := &node{Process: c.Process(t, fmt.Sprintf("node%d", n), os.Args[0], c.config("0s"), c.leaves["fixed"])}
		node.Env = []string{nodeEnv + "=1"}
		c.nodes = append(c.nodes, node)
		node.Run()
	}
	for _, id := range []string{"stored", "changing"} {
		c.put(t, c.nodes[0], id)
		for _, node := range c.nodes {
			c.await(t, node, id, true)
		}
	}
	for _, node := range c.nodes {
		for _, protocol := range []string{"h1", "h2"} {
			c.workers.Add(1)
			go c.work(node, protocol)
		}
	}
	t.Cleanup(func() {
		close(c.stop)
		c.workers.Wait()
	})
	c.flows(t)
	return c
}

// config is the configuration of a node whose clock is off.
func (c *cluster) config(clock string) string {
	return strings.NewReplacer("SOURCE", c.source, "CLOCK", clock).Replace(nodeConfig)
}

// fault makes storage fail in this way, or not any more.
func (c *cluster) fault(t *testing.T, fault string) {
	t.Helper()
	c.Write("fault.new", []byte(fault))
	if err := os.Rename(filepath.Join(c.Dir, "fault.new"), filepath.Join(c.Dir, "fault")); err != nil {
		t.Fatal(err)
	}
}

// provide has the nodes find this where their storage is, from one moment to the next.
func (c *cluster) provide(t *testing.T, name string) {
	t.Helper()
	link := filepath.Join(c.Dir, "storage")
	if err := errors.Join(os.Symlink(name, link+".new"), os.Rename(link+".new", link)); err != nil {
		t.Fatal(err)
	}
}

// kill takes a node down as abruptly as a power failure would.
func (n *node) kill() {
	n.turns.Add(1)
	n.Kill()
}

// run brings a node up again.
func (n *node) run(t *testing.T) {
	t.Helper()
	n.T = t
	n.Run()
	n.turns.Add(1)
}

// record is the record of a client.
func (c *cluster) record(id string) string {
	return fmt.Sprintf(`{"client_id":%q,"scope":"use","x509_thumbprints":%q}`, id, testpki.HashOf(c.leaves[id].Cert.Raw))
}

// put registers a client at a node.
func (c *cluster) put(t *testing.T, n *node, id string) {
	t.Helper()
	if status, text, err := n.Ask(http.MethodPut, "/mtls/realms/default/clients/"+id, c.record(id)); err != nil || status != http.StatusCreated {
		t.Fatalf("%s: registering %s: %d %q, %v", n.Name, id, status, text, err)
	}
}

// disable disables or enables a client at a node, and returns the status.
func (n *node) disable(t *testing.T, id string, disabled bool) (status int, text string) {
	t.Helper()
	status, text, err := n.Ask(http.MethodPatch, "/mtls/realms/default/clients/"+id, fmt.Sprintf(`{"disabled":%t}`, disabled))
	if err != nil {
		t.Fatalf("%s: changing %s: %v", n.Name, id, err)
	}
	return status, text
}

// changes checks that a change at any node is in force there at once, and soon on the
// others.
func (c *cluster) changes(t *testing.T, nodes ...*node) {
	t.Helper()
	for i, at := range nodes {
		for _, disabled := range []bool{true, false} {
			status, text := at.disable(t, "changing", disabled)
			if status != http.StatusOK {
				t.Fatalf("%s: changing a client: %d %s", at.Name, status, text)
			}
			if got := c.admitted(at, "changing"); got == disabled {
				t.Errorf("%s: disabled is %t, but the client is admitted: %t", at.Name, disabled, got)
			}
			for _, other := range nodes {
				c.await(t, other, "changing", !disabled)
			}
		}
		if i == 1 {
			break // the others are no different
		}
	}
}

// refuses checks that a node refuses to change a client, and that the client is as it
// was everywhere.
func (c *cluster) refuses(t *testing.T, at *node, status int) {
	t.Helper()
	if got, text := at.disable(t, "changing", true); got != status {
		t.Errorf("%s: changing a client: %d %s, want %d", at.Name, got, text, status)
	}
	for _, node := range c.nodes {
		if node.turns.Load()%2 == 0 && !c.admitted(node, "changing") {
			t.Errorf("%s: the client was changed", node.Name)
		}
	}
}

// admitted reports whether a node admits a certificate.
func (c *cluster) admitted(n *node, id string) bool {
	caller := n.Connect("h1", c.leaves[id])
	defer caller.Close()
	got, err := caller.Try(http.MethodGet, "https://api.test/")
	return err == nil && got.Status == http.StatusOK && got.Body == "hello "+id
}

// await waits until a node admits a certificate or refuses it.
func (c *cluster) await(t *testing.T, n *node, id string, admitted bool) {
	t.Helper()
	c.soon(t, fmt.Sprintf("%s: %s admitted: %t", n.Name, id, admitted), func() bool { return c.admitted(n, id) == admitted })
}

// soon waits until a change has reached a node. How soon that is when nothing fails is
// what the tests of the sources check, with a clock of their own.
func (c *cluster) soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * rig.Patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, 2*rig.Patience)
		}
	}
}

// flows checks that the nodes which are up answer rightly, and go on to.
func (c *cluster) flows(t *testing.T) {
	t.Helper()
	before := make(map[*node]int64)
	for _, node := range c.nodes {
		before[node] = node.answers.Load()
	}
	for _, node := range c.nodes {
		rig.Await(c.Rig, t, node.Name+" answers", func() bool {
			return node.turns.Load()%2 == 1 || node.answers.Load() > before[node]+40 || c.anyWrong()
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range c.wrong[:min(len(c.wrong), 10)] {
		t.Error(text)
	}
	c.wrong = nil
}

func (c *cluster) anyWrong() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.wrong) > 0
}
