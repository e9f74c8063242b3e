// Package testtool finds the programs of the machine that tests are held
// against.
package testtool

import (
	"os"
	"os/exec"
)

// Required is the environment variable that, set to 1, makes a test fail where
// it would be skipped for want of a program: where they are all to be there,
// such a skip would go unnoticed.
const Required = "MTLS_TEST_REQUIRE_TOOLS"

// TB is what of [testing.TB] this package needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Path returns where a program is, and skips the test when it is nowhere.
func Path(tb TB, program string) string {
	tb.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Missing(tb, "%s is not installed, so nothing is tested with it", program)
	}
	return path
}

// Missing skips the test for want of something of the machine.
func Missing(tb TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv(Required) == "1" {
		tb.Fatalf(format+"; "+Required+" asks for it", args...)
	}
	tb.Skipf("SKIPPED: "+format, args...)
}
