// Package testtool has helpers for tests: it finds the programs that tests need, and
// measures CPU time.
package testtool

import (
	"os"
	"os/exec"
)

// Required is the environment variable that, set to 1, makes a test fail instead of
// being skipped because a program is missing.
const Required = "MTLS_TEST_REQUIRE_TOOLS"

// TB is the part of [testing.TB] that this package needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Path returns the path of a program, and skips the test if it is not installed.
func Path(tb TB, program string) string {
	tb.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Missing(tb, "%s is not installed, so nothing is tested with it", program)
	}
	return path
}

// Missing skips the test because the machine lacks something.
func Missing(tb TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv(Required) == "1" {
		tb.Fatalf(format+"; "+Required+" asks for it", args...)
	}
	tb.Skipf("SKIPPED: "+format, args...)
}
