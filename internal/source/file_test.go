package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// watched is a watched file with a clock.
type watched struct {
	*File
	t   *testing.T
	now time.Time
}

func watch(t *testing.T, text string) *watched {
	t.Helper()
	w := &watched{File: NewFile(filepath.Join(t.TempDir(), "a.txt"), 16), t: t, now: start}
	w.write(text)
	return w
}

// write overwrites the file in place, at the time of the clock.
func (w *watched) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.Path(), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chtimes(w.Path(), w.now, w.now); err != nil {
		w.t.Fatal(err)
	}
}

// look looks at the file after a while; want "" means no change.
func (w *watched) look(after time.Duration, want string) {
	w.t.Helper()
	w.now = w.now.Add(after)
	content, changed, err := w.Look(w.now)
	if err != nil || string(content) != want || changed != (want != "") {
		w.t.Errorf("got %q, %v, %v; want %q", content, changed, err, want)
	}
}

func (w *watched) fails(want string) {
	w.t.Helper()
	if _, changed, err := w.Look(w.now); err == nil || changed || !strings.Contains(err.Error(), want) {
		w.t.Errorf("got %v, %v; want %q", changed, err, want)
	}
}

func TestFile(t *testing.T) {
	w := watch(t, "one")
	w.look(0, "one")
	w.look(0, "")
	if w.Quiet(w.now) || !w.Quiet(w.now.Add(QuietTime)) {
		t.Error("quiet is not two seconds")
	}
	w.look(time.Hour, "") // settles
	w.look(time.Hour, "")

	w.write("two") // as long as before, at another time
	w.look(0, "two")
	w.write("six") // as long, and at the same time
	w.look(time.Second, "six")
	w.look(QuietTime, "")

	// replaced by another file of the same size and time
	other := w.Path() + ".new"
	if err := os.WriteFile(other, []byte("ten"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(w.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(other, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, w.Path()); err != nil {
		t.Fatal(err)
	}
	w.look(time.Hour, "ten")

	w.write("ten") // written anew with the same content
	w.look(0, "")
}

func TestFileErrors(t *testing.T) {
	w := watch(t, "one")
	w.look(0, "one")
	w.write(strings.Repeat("x", 17))
	w.fails("larger than 16 bytes")
	w.write(strings.Repeat("x", 16))
	w.look(0, strings.Repeat("x", 16))
	if err := os.Remove(w.Path()); err != nil {
		t.Fatal(err)
	}
	w.fails("a.txt")
	if err := os.Mkdir(w.Path(), 0o700); err != nil {
		t.Fatal(err)
	}
	w.fails("is not a regular file")
	if err := os.Remove(w.Path()); err != nil {
		t.Fatal(err)
	}
	w.write("two")
	w.look(0, "two")
}
