package cluster_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestClusterOnStorage checks what three Caddys whose clients are in a shared storage
// go on doing, and what they do not, whatever fails.
func TestClusterOnStorage(t *testing.T) {
	skip(t)
	t.Parallel()
	start(t, "storage").run(t, storageFaults)
}

// skip skips a test that takes minutes with -short, and under the race detector, which
// sees nothing of the nodes that it has not seen in the tests of one process.
func skip(t *testing.T) {
	t.Helper()
	if testing.Short() || testtool.RaceEnabled {
		t.Skip("takes minutes")
	}
}

// TestTablesAreTested checks that docs/operations.md has a row for every fault that the
// cluster is put through, and no other.
func TestTablesAreTested(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for heading, faults := range map[string][]fault{"Clients in storage": storageFaults, "Clients in PostgreSQL": postgresFaults} {
		_, section, _ := strings.Cut(string(text), "\n## "+heading+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		var rows, tested []string
		for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \|`).FindAllStringSubmatch(section, -1) {
			rows = append(rows, strings.ReplaceAll(row[1], "`", ""))
		}
		for _, fault := range faults {
			tested = append(tested, fault.name)
		}
		if len(rows) == 0 || !slices.Equal(rows[1:], tested) {
			t.Errorf("%s has the rows %q, but %q are tested", heading, rows, tested)
		}
	}
}
