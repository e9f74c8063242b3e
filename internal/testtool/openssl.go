package testtool

import (
	"os/exec"
	"strings"
)

// OpenSSL returns the path of openssl. It skips the test if OpenSSL 3 or later is not
// installed.
func OpenSSL(tb TB) string {
	tb.Helper()
	path := Path(tb, "openssl")
	version, err := exec.Command(path, "version").Output()
	if err != nil {
		tb.Fatalf("openssl version: %v", err)
	}
	if text := string(version); !strings.HasPrefix(text, "OpenSSL ") || strings.HasPrefix(text, "OpenSSL 1.") {
		Missing(tb, "needs OpenSSL 3 or later, not %s", strings.TrimSpace(text))
	}
	return path
}
