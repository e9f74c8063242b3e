//go:build unix

package source

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFileThatBecomesAPipe: a pipe that takes the place of the file after the
// look at it is not waited for.
func TestFileThatBecomesAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFile(path, 16).read(); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("error %v", err)
	}
}

// TestFileChangedBehindItsTime: a file that is changed in place, with the same
// size and time, as rsync can, is read.
func TestFileChangedBehindItsTime(t *testing.T) {
	w := watch(t, "one")
	if info, err := os.Stat(w.Path()); err != nil || changeTime(info) == 0 {
		t.Skip("when a file was changed is not known here")
	}
	w.look(0, "one")
	w.look(QuietTime, "")
	w.look(time.Hour, "")
	before, err := os.Stat(w.Path())
	if err != nil {
		t.Fatal(err)
	}
	// the file system's clock may be coarse
	for deadline := time.Now().Add(time.Second); ; {
		if err := os.WriteFile(w.Path(), []byte("two"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(w.Path(), before.ModTime(), before.ModTime()); err != nil {
			t.Fatal(err)
		}
		if after, err := os.Stat(w.Path()); err != nil || changeTime(after) != changeTime(before) || time.Now().After(deadline) {
			break
		}
	}
	w.look(time.Hour, "two")
	w.look(QuietTime, "")
	w.look(time.Hour, "")
}
