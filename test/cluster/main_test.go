// Package cluster_test runs three Caddys, kills them, and takes away what they depend
// on. docs/operations.md says what goes on, and these tests check it.
package cluster_test

import (
	"os"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// nodeEnv is set in the processes that are nodes: they are this program again, because
// the storage below must be in them.
const nodeEnv = "MTLS_TEST_CLUSTER_NODE"

func TestMain(m *testing.M) {
	if os.Getenv(nodeEnv) != "" {
		caddycmd.Main() // as cmd/caddy does
		return
	}
	os.Exit(m.Run())
}
