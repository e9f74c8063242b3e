package source

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAbandonedReplacements: what killed processes have left behind goes, and nothing else.
func TestAbandonedReplacements(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "copy[1]")
	old := time.Now().Add(-2 * replacementAge)
	for _, name := range []string{"copy[1]", "copy[1].123.new", "copy[1].new.jsonl", "copy1.123.new", "other.new"} {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the first one is being written
		file, err := NewReplacement(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if info, err := file.Stat(); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
	}
	left, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(left) != 4+2 {
		t.Errorf("%q, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "copy[1].123.new")); !os.IsNotExist(err) {
		t.Errorf("the old one is still there: %v", err)
	}
	if _, err := NewReplacement(filepath.Join(folder, "nowhere", "copy")); err == nil {
		t.Error("no folder")
	}
}
