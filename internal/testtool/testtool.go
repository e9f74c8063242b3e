// Package testtool helps tests to find the programs that they need, to check errors,
// to write files and to measure CPU time.
package testtool

import (
	"os"
	"os/exec"
)

// Required is an environment variable. If it is 1, tests fail instead of being
// skipped when a program is missing.
const Required = "MTLS_TEST_REQUIRE_TOOLS"

// TB is the part of [testing.TB] that this package needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Path returns the path of a program. It skips the test if the program is not
// installed.
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
