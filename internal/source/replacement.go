package source

import (
	"errors"
	"os"
	"path/filepath"
)

// Replacement is a file that is being written, next to the one that it is to replace. Its
// owner alone can read it.
type Replacement struct {
	*os.File
	path string
}

// NewReplacement creates the replacement of a file, which need not exist.
func NewReplacement(path string) (*Replacement, error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return nil, err
	}
	return &Replacement{file, path}, nil
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
