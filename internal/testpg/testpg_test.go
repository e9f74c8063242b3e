package testpg_test

import (
	"context"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// TestServerKeepsItsData checks that a server that was stopped or has crashed comes
// back at its address with its data.
func TestServerKeepsItsData(t *testing.T) {
	server := testpg.Start(t)
	dsn := server.Database(t)
	testpg.Exec(t, dsn, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	for name, stop := range map[string]func(testing.TB){"stopped": server.Stop, "crashed": server.Crash} {
		stop(t)
		if server.Running() {
			t.Fatalf("%s: the server is running", name)
		}
		server.Restart(t)
		var n int
		if err := testpg.Connect(t, dsn).QueryRow(context.Background(), "SELECT n FROM t").Scan(&n); err != nil || n != 1 {
			t.Fatalf("%s: %d rows: %v", name, n, err)
		}
	}
}

// TestSharedDatabasesAreApart checks that tests that share a server share no tables.
func TestSharedDatabasesAreApart(t *testing.T) {
	server := testpg.Shared(t)
	if server != testpg.Shared(t) {
		t.Fatal("two servers are shared")
	}
	for range 2 {
		testpg.Exec(t, server.Database(t), "CREATE TABLE t (n int)")
	}
}
