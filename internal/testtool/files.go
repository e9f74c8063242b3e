package testtool

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// WriteTemp writes a file into a folder and returns its path. It creates the folder
// if necessary.
func WriteTemp(t testing.TB, dir, name string, content ...[]byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Join(content, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
