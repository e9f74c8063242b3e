// Package commands_test runs the commands of caddy mtls against a running Caddy.
package commands_test

import (
	"os/exec"
	"strings"
	"testing"

	_ "github.com/caddymtls/caddy-mtls-auth"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// tool runs a line, whose first word is a program, in the folder of the rig. It returns
// false if the program is not installed.
func tool(r *rig.Rig, t *testing.T, line string) (out string, installed bool) {
	t.Helper()
	program, _, _ := strings.Cut(line, " ")
	if _, err := exec.LookPath(program); err != nil {
		t.Logf("SKIPPED in part: %s is not installed", program)
		return "", false
	}
	return rig.MustShell(r, t, line), true
}
