package cluster_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients/postgres"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// database is the server that the clients of the cluster are in, and their DSN.
var database struct {
	server *testpg.Server
	dsn    string
}

// postgresFaults are what a cluster with its clients in PostgreSQL is put through.
var postgresFaults = []fault{
	{"A node is killed", killed},
	{"The database is stopped", stopped},
	{"The database crashes", crashed},
	{"A node starts without the database", startsWithoutDatabase},
	{"A node starts without the database, with keep_copy", startsWithCopy},
	{"Storage is gone", goneBesideDatabase},
}

// TestClusterOnPostgres checks what three Caddys whose clients are in PostgreSQL go on
// doing, and what they do not, whatever fails.
func TestClusterOnPostgres(t *testing.T) {
	skip(t)
	t.Parallel()
	database.server = testpg.Start(t)
	database.dsn = database.server.Database(t)
	if err := postgres.InitDB(t.Context(), database.dsn, postgres.DefaultTable); err != nil {
		t.Fatal(err)
	}
	// the nodes are notified of changes, and look for them themselves only once an hour
	start(t, "postgres "+database.dsn+" {\n\t\t\trefresh 1h\n\t\t}").run(t, postgresFaults)
}

// withoutDatabase checks what the cluster does while the database is away.
func (c *cluster) withoutDatabase(t *testing.T) {
	t.Helper()
	c.flows(t)
	for _, node := range c.nodes {
		c.refuses(t, node, http.StatusServiceUnavailable)
	}
	c.flows(t)
}

// back starts the database, and changes a client before the nodes can know.
func (c *cluster) back(t *testing.T) {
	t.Helper()
	database.server.Restart(t)
	c.catchUp(t)
}

// catchUp waits until all nodes know what changes in the table.
func (c *cluster) catchUp(t *testing.T) {
	t.Helper()
	set := func(disabled bool) {
		testpg.Exec(t, database.dsn, `UPDATE mtls_clients SET record = record || jsonb_build_object('disabled', $1::boolean) WHERE client_id = 'changing'`, disabled)
	}
	set(true)
	for _, node := range c.nodes { // which connect again first
		c.await(t, node, "changing", false)
	}
	set(false)
	for _, node := range c.nodes {
		c.await(t, node, "changing", true)
	}
}

func stopped(t *testing.T, c *cluster) {
	database.server.Stop(t)
	c.withoutDatabase(t)
	if out, err := c.nodes[0].Reload(); err != nil {
		t.Errorf("reloading: %v\n%s", err, out)
	}
	c.withoutDatabase(t)
	c.back(t)
}

func crashed(t *testing.T, c *cluster) {
	database.server.Crash(t)
	c.withoutDatabase(t)
	c.back(t)
}

func startsWithoutDatabase(t *testing.T, c *cluster) {
	victim := c.nodes[1]
	victim.kill()
	database.server.Stop(t)
	before := len(victim.Logged())
	victim.Start()
	rig.Await(c.Rig, t, "it gives up", victim.Exited)
	if said := victim.Logged()[before:]; !strings.Contains(said, "postgres") || strings.Contains(said, testpg.Password) {
		t.Errorf("it says %s", said)
	}
	c.flows(t)
	database.server.Restart(t)
	victim.run(t)
	c.catchUp(t)
}

func startsWithCopy(t *testing.T, c *cluster) {
	victim := c.nodes[2]
	source := c.source
	c.source = strings.Replace(source, "refresh", "keep_copy \"@DIR@/@NODE@.copy\"\n\t\t\trefresh", 1)
	victim.Configure(c.config("0s"))
	c.source = source
	if out, err := victim.Reload(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rig.Await(c.Rig, t, "the copy is written", func() bool {
		_, err := os.Stat(filepath.Join(c.Dir, victim.Name+".copy"))
		return err == nil
	})
	victim.kill()
	database.server.Stop(t)
	victim.run(t)
	c.withoutDatabase(t)
	c.back(t)
}

func goneBesideDatabase(t *testing.T, c *cluster) {
	defer c.away(t, nothingThere)()
	c.flows(t)
	c.changes(t, c.nodes...)
	if status := c.nodes[0].rotate(t); status != http.StatusServiceUnavailable {
		t.Errorf("retiring the key: %d", status)
	}
}
