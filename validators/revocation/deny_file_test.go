package revocation

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// denyFile is a deny file with a clock.
type denyFile struct {
	*DenyFile
	t    *testing.T
	path string
	now  time.Time
}

func openDeny(t *testing.T, text string) *denyFile {
	t.Helper()
	f := &denyFile{t: t, path: filepath.Join(t.TempDir(), "deny.txt"), now: now}
	f.write(text)
	var err error
	if f.DenyFile, err = OpenDenyFile(f.path, f.now); err != nil {
		t.Fatal(err)
	}
	return f
}

// write overwrites the file in place.
func (f *denyFile) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chtimes(f.path, f.now, f.now); err != nil {
		f.t.Fatal(err)
	}
}

// poll polls after a while.
func (f *denyFile) poll(after time.Duration, rules int, changed bool, want string) {
	f.t.Helper()
	f.now = f.now.Add(after)
	got, report, err := f.Poll(f.now)
	if !report {
		err = nil
	}
	wantError(f.t, err, want)
	if f.List().Len() != rules || got != changed {
		f.t.Errorf("%d rules, changed %v; want %d, %v", f.List().Len(), got, rules, changed)
	}
}

func denyLines(names ...string) string {
	var text strings.Builder
	for _, name := range names {
		text.WriteString("tbs " + digest([]byte(name)) + "\n")
	}
	return text.String()
}

// A new configuration that finds the file half written denies what the previous one
// denied.
func TestDenyFileAcrossAReload_C2(t *testing.T) {
	f := openDeny(t, denyLines("a", "b"))
	old := f.DenyFile
	f.write(denyLines("c"))
	reopen := func() {
		t.Helper()
		var err error
		if f.DenyFile, err = OpenDenyFile(f.path, f.now); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	f.TakeOver(old)
	f.poll(0, 3, false, "")
	f.poll(source.QuietTime-time.Millisecond, 3, false, "")
	f.write(denyLines("d"))
	f.poll(0, 4, true, "")
	f.poll(source.QuietTime, 1, true, "")

	elsewhere := openDeny(t, denyLines("x"))
	reopen()
	f.TakeOver(elsewhere.DenyFile)
	f.poll(0, 1, false, "")
}

// TestDenyFileIsTakenOverWhileItIsPolled gives the race detector what a reload does: the
// file of the previous configuration is polled until that has ended.
func TestDenyFileIsTakenOverWhileItIsPolled(t *testing.T) {
	f := openDeny(t, denyLines("a", "b"))
	old := f.DenyFile
	f.write(denyLines("a"))
	var polling sync.WaitGroup
	polling.Go(func() {
		for n := range 100 {
			_, _, _ = old.Poll(f.now.Add(time.Duration(n) * source.QuietTime))
		}
	})
	for range 100 {
		next, err := OpenDenyFile(f.path, f.now)
		if err != nil {
			t.Fatal(err)
		}
		next.TakeOver(old)
		if rules := next.List().Len(); rules != 1 && rules != 2 {
			t.Fatalf("%d rules, want the one of the file or both", rules)
		}
	}
	polling.Wait()
	if rules := old.List().Len(); rules != 1 {
		t.Errorf("%d rules once the file is quiet, want 1", rules)
	}
}

func TestDenyFileIsWatched(t *testing.T) {
	f := openDeny(t, denyLines("a"))
	f.poll(0, 1, false, "")
	f.poll(time.Hour, 1, false, "")
	f.poll(time.Hour, 1, false, "")

	f.write(denyLines("a", "b"))
	f.poll(0, 2, true, "") // additions count at once
	f.poll(time.Second, 2, false, "")

	f.write(denyLines("b", "c")) // as long as before
	f.poll(0, 3, true, "")
	f.poll(1999*time.Millisecond, 3, false, "")
	f.poll(time.Millisecond, 2, true, "") // quiet for two seconds
	f.poll(time.Hour, 2, false, "")

	f.write("") // half written
	f.poll(0, 2, true, "")
	f.poll(time.Second, 2, false, "")
	f.write(denyLines("b"))
	f.poll(0, 2, true, "")
	f.poll(1500*time.Millisecond, 2, false, "") // not quiet since the last change
	f.write(denyLines("b", "c", "d"))
	f.poll(0, 3, true, "")
	f.poll(time.Hour, 3, true, "")

	f.write("")
	f.poll(0, 3, true, "")
	f.poll(source.QuietTime, 0, true, "") // meant so

	f.write(denyLines("e"))
	f.poll(0, 1, true, "")
}

// TestDenyFileSaysThatItBecameShorter checks that a file with fewer rules than were last
// in force alone is told once, when it takes effect, over a reload too.
func TestDenyFileSaysThatItBecameShorter(t *testing.T) {
	var told [][2]int
	hear := func(before, after int) { told = append(told, [2]int{before, after}) }
	f := openDeny(t, denyLines("a", "b", "c"))
	f.Shorter = hear
	want := func(what string, want ...[2]int) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Errorf("%s: told %v, want %v", what, told, want)
		}
		told = nil
	}
	f.write(denyLines("a"))
	f.poll(0, 3, true, "")
	f.write(denyLines("a", "b", "d"))
	f.poll(source.QuietTime, 4, true, "")
	f.poll(source.QuietTime, 3, true, "")
	want("half written, then as long")
	f.write(denyLines("a"))
	f.poll(time.Second, 3, true, "")
	want("not quiet")
	f.poll(source.QuietTime, 1, true, "")
	want("shorter", [2]int{3, 1})
	f.poll(time.Hour, 1, false, "")
	f.write(denyLines("a", "b"))
	f.poll(time.Hour, 2, true, "")
	f.poll(time.Hour, 2, true, "")
	want("longer")

	old := f.DenyFile
	for _, text := range []string{denyLines("a"), denyLines("a", "b")} {
		f.write(text)
		var err error
		if f.DenyFile, err = OpenDenyFile(f.path, f.now); err != nil {
			t.Fatal(err)
		}
		f.Shorter = hear
		f.TakeOver(old)
		f.poll(source.QuietTime, f.next.Len(), true, "")
	}
	want("over reloads", [2]int{2, 1})
}

func TestBrokenDenyFileKeepsTheOldRules_B4(t *testing.T) {
	f := openDeny(t, denyLines("a", "b"))
	f.write(denyLines("a", "b", "c") + "thumbprint 12")
	f.poll(0, 2, false, "") // it may only be half written
	f.poll(source.QuietTime, 2, false, "line 4")
	f.poll(time.Second, 2, false, "") // said once
	f.poll(time.Hour, 2, false, "")
	f.write(denyLines("a", "b", "c"))
	f.poll(0, 3, true, "")

	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	f.poll(time.Hour, 3, false, "")
	f.poll(time.Hour, 3, false, "deny.txt")
	f.poll(time.Hour, 3, false, "")
	f.write(denyLines("d"))
	f.poll(0, 4, true, "")
	f.poll(time.Hour, 1, true, "")

	f.write(denyLines())
	f.poll(0, 1, true, "")
	f.write("broken")
	f.poll(0, 1, false, "")
	f.poll(time.Hour, 1, false, "line 1") // neither is the text before it in force later
}

func TestOpenDenyFileRefusesBrokenFile_B4(t *testing.T) {
	dir := t.TempDir()
	for title, test := range map[string]struct {
		make func(path string) error
		want string
	}{
		"missing":   {func(string) error { return nil }, ""},
		"directory": {func(path string) error { return os.Mkdir(path, 0o700) }, "not a regular file"},
		"garbage":   {func(path string) error { return os.WriteFile(path, []byte("a\n"), 0o600) }, "line 1"},
		"too large": {func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, maxDenyFile+1)
		}, "larger than"},
	} {
		path := filepath.Join(dir, title)
		if err := test.make(path); err != nil {
			t.Fatal(err)
		}
		_, err := OpenDenyFile(path, now)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", title, err)
		}
	}
}
