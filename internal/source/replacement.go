package source

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Replacement is a file that is being written, next to the one that it is to replace. Its
// owner alone can read it.
type Replacement struct {
	*os.File
	path string
}

// replacementAge is the age at which nobody writes a replacement any more.
const replacementAge = time.Hour

// NewReplacement creates the replacement of a file, which need not exist. It removes those
// that processes which were killed have left behind, because they would fill the disk one
// after the other.
func NewReplacement(path string) (*Replacement, error) {
	removeAbandoned(path)
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return nil, err
	}
	return &Replacement{file, path}, nil
}

func removeAbandoned(path string) {
	folder, start := filepath.Dir(path), filepath.Base(path)+"."
	entries, _ := os.ReadDir(folder) // creating the file says what is wrong
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), start) || !strings.HasSuffix(entry.Name(), ".new") || !entry.Type().IsRegular() {
			continue
		}
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > replacementAge {
			_ = os.Remove(filepath.Join(folder, entry.Name()))
		}
	}
}

// Commit puts the replacement in the place of the file, once it is on disk: a crash
// leaves either of them, as a whole.
func (r *Replacement) Commit() error {
	if err := errors.Join(r.Sync(), r.Close()); err != nil {
		return err
	}
	return os.Rename(r.Name(), r.path)
}

// Discard removes the replacement, unless it has been committed.
func (r *Replacement) Discard() {
	_ = r.Close()
	_ = os.Remove(r.Name())
}
