package source

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// looks is a Watched with a clock, and what was used of it.
type looks struct {
	*Watched
	t    *testing.T
	now  time.Time
	used []string
}

func newLooks(t *testing.T, path string) *looks {
	t.Helper()
	l := &looks{t: t, now: start}
	l.Watched = NewWatched(path, 16, func(content []byte) error {
		switch string(content) {
		case "bad", "worse":
			return errors.New(string(content))
		case "panic":
			panic("no such rule")
		}
		l.used = append(l.used, string(content))
		return nil
	})
	return l
}

func (l *looks) write(text string) {
	l.t.Helper()
	if err := os.WriteFile(l.Path(), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Chtimes(l.Path(), l.now, l.now); err != nil {
		l.t.Fatal(err)
	}
}

// poll polls after a while. want is the error, "" for none.
func (l *looks) poll(after time.Duration, report bool, want string) {
	l.t.Helper()
	l.now = l.now.Add(after)
	got, err := l.Poll(l.now)
	wantError(l.t, err, want)
	if got != report {
		l.t.Errorf("after %s: to be reported %v (%v), want %v", l.now.Sub(start), got, err, report)
	}
	if l.Failure() != err || l.Success().Equal(l.now) != (want == "") {
		l.t.Errorf("after %s: failure %v, last success %s", l.now.Sub(start), l.Failure(), l.Success())
	}
}

func TestWatchedReportsFailuresOnce(t *testing.T) {
	l := newLooks(t, filepath.Join(t.TempDir(), "a"))
	l.write("one")
	l.poll(0, true, "")
	l.poll(time.Hour, false, "")

	// half written, then whole
	l.write("bad")
	l.poll(time.Second, false, "bad")
	l.poll(QuietTime-time.Millisecond, false, "bad")
	l.write("worse")
	l.poll(time.Second, false, "worse")
	l.write("two")
	l.poll(time.Second, true, "")
	l.poll(time.Second, false, "")

	// broken for good, missing, and back as it was
	l.write("bad")
	l.poll(time.Second, false, "bad")
	l.poll(QuietTime, true, "bad")
	l.poll(time.Hour, false, "bad")
	if err := os.Remove(l.Path()); err != nil {
		t.Fatal(err)
	}
	l.poll(time.Second, false, "no such file")
	l.poll(QuietTime, true, "no such file")
	l.poll(time.Hour, false, "no such file")
	l.write("bad")
	l.poll(time.Second, false, "bad")
	l.poll(QuietTime, true, "bad")
	l.write("panic")
	l.poll(time.Second, false, "panicked: no such rule")
	l.poll(QuietTime, true, "panicked: no such rule")
	l.write("two")
	l.poll(time.Second, true, "")
	if err := os.Remove(l.Path()); err != nil {
		t.Fatal(err)
	}
	l.poll(time.Second, false, "no such file")
	l.write("two")
	l.poll(time.Second, true, "") // good again, although nothing has changed
	if l.poll(time.Second, false, ""); len(l.used) != 3 {
		t.Errorf("used %q", l.used)
	}
}

func TestWatchedTakesOver(t *testing.T) {
	l := newLooks(t, filepath.Join(t.TempDir(), "a"))
	l.write("one")
	l.poll(0, true, "")
	l.write("bad")
	l.poll(time.Second, false, "bad")
	next := newLooks(t, l.Path())
	next.TakeOver(l.Watched)
	next.now = l.now
	next.poll(time.Second, false, "bad")
	next.poll(QuietTime, true, "bad")
	next.write("one")
	if next.poll(time.Second, true, ""); len(next.used) != 1 || next.Quiet(next.now) || !next.Quiet(next.now.Add(QuietTime)) {
		t.Errorf("used %q", next.used)
	}
	other := newLooks(t, l.Path()+"b")
	other.TakeOver(l.Watched)
	other.poll(0, false, "no such file")
}
