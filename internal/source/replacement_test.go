package source

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplacement(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	wantFile := func(want string) {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil && want != "" || string(content) != want {
			t.Errorf("the file has %q, want %q (%v)", content, want, err)
		}
	}
	replace := func(text string, commit bool) {
		t.Helper()
		r, err := NewReplacement(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if info, err := r.Stat(); err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if commit {
			if err := r.Commit(); err != nil {
				t.Error(err)
			}
		}
		r.Discard()
	}
	replace("never", false)
	wantFile("")
	replace("one", true)
	wantFile("one")
	replace("never", false)
	wantFile("one")
	replace("two", true)
	wantFile("two")
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left are %v %v", files, err)
	}
	if _, err := NewReplacement(filepath.Join(path, "x")); err == nil {
		t.Error("a file in a file is no error")
	}
}
