package trustpool

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func writeFile(t *testing.T, path string, parts ...[]byte) {
	t.Helper()
	if err := os.WriteFile(path, bytes.Join(parts, nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Fatalf("error %v, want %q", err, text)
		}
	}
}

// TestCAFileChanges checks that an added CA counts at once. A CA that is gone, as in
// a file that is being written, and a failure count only when the file has been
// quiet.
func TestCAFileChanges(t *testing.T) {
	first, second, third := testpki.MustCA(t).PEM(), testpki.MustCA(t).PEM(), testpki.MustCA(t).PEM()
	path, now := filepath.Join(t.TempDir(), "ca.pem"), time.Now()
	write := func(parts ...[]byte) { writeFile(t, path, parts...) }
	write(first)
	f, err := openCAFile(path, now, false, func([]leftOut) {})
	if err != nil {
		t.Fatal(err)
	}
	const tick = 250 * time.Millisecond
	step := func(what string, d time.Duration, changed bool, trouble bool, count int) {
		t.Helper()
		now = now.Add(d)
		got, report, err := f.look(now)
		if got != changed || (report && err != nil) != trouble || len(f.certs) != count {
			t.Fatalf("%s: changed %v, error %v, %d CAs; want %v, %v, %d", what, got, err, len(f.certs), changed, trouble, count)
		}
	}

	step("nothing new", tick, false, false, 1)
	write(first, second)
	step("added", tick, true, false, 2)
	step("the same", source.QuietTime, false, false, 2)
	write(first)
	step("gone", tick, false, false, 2)
	step("gone for a moment", tick, false, false, 2)
	write(first, third)
	step("something else is gone", source.QuietTime-2*tick, false, false, 2)
	step("still", source.QuietTime-tick, false, false, 2)
	step("for long enough", tick, true, false, 2)

	write(first, third[:100])
	step("being written", tick, false, false, 2)
	write(first, third, second)
	step("written", tick, true, false, 3)
	write([]byte("garbage"))
	step("broken", tick, false, false, 3)
	step("broken and quiet", source.QuietTime, false, true, 3)
	step("said once", source.QuietTime, false, false, 3)
	write([]byte("another garbage"))
	step("broken otherwise", tick, false, false, 3)
	step("and quiet", source.QuietTime, false, true, 3)
	if f.Failure() == nil {
		t.Error("it does not know that it is broken")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	step("removed", tick, false, false, 3)
	step("still removed", source.QuietTime, false, true, 3)
	step("said once", source.QuietTime, false, false, 3)
	write(first, third, second)
	step("back as it was", tick, false, false, 3)
	if f.Failure() != nil || f.reported {
		t.Errorf("it is back, but: %v, %v", f.Failure(), f.reported)
	}
	write(second)
	step("less", tick, false, false, 3)
	step("less and quiet", source.QuietTime, true, false, 1)
}

// TestCAFileTooLarge checks that there is a limit to the size of a file.
func TestCAFileTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, path, testpki.MustCA(t).PEM())
	if err := os.Truncate(path, maxCAFile+1); err != nil {
		t.Fatal(err)
	}
	_, err := openCAFile(path, time.Now(), false, func([]leftOut) {})
	wantError(t, err, "is larger than 16777216 bytes")
}
