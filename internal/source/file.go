package source

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// QuietTime is how long a file must not have changed before it counts as complete,
// and before looking at its size and time is enough: two changes in quick
// succession may leave both the same.
const QuietTime = 2 * time.Second

// LookInterval is how often watched files are looked at, at the cost of one
// system call each.
const LookInterval = 250 * time.Millisecond

// File is a watched file. It notices a change by the size, the modification time and
// the identity of the file. Looking at a file that has not changed costs one system
// call. A File starts nothing, keeps no content, and is used by one goroutine at a
// time.
type File struct {
	path  string
	limit int64

	seen os.FileInfo
	// since is when the file was first seen in its current state.
	since time.Time
	// settled is set when the file was read after it had been quiet.
	settled bool
	known   bool
	sum     [sha256.Size]byte
}

// NewFile returns a File for the path, of at most limit bytes, that has not been
// looked at yet.
func NewFile(path string, limit int64) *File { return &File{path: path, limit: limit} }

// Path returns the path of the file.
func (f *File) Path() string { return f.path }

// Look returns the content of the file if it differs from that at the last look. It
// returns an error if the file is missing, not a regular file, larger than its
// limit, or cannot be read; the next look reads it again.
func (f *File) Look(now time.Time) (content []byte, changed bool, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		f.seen = nil
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		f.seen = nil // reading a pipe would wait for a writer
		return nil, false, fmt.Errorf("%s is not a regular file", f.path)
	}
	if f.seen == nil || !sameFile(f.seen, info) {
		f.since, f.settled = now, false
	}
	f.seen = info
	if f.settled {
		return nil, false, nil
	}
	content, err = f.read()
	if err != nil {
		f.seen = nil
		return nil, false, err
	}
	f.settled = f.Quiet(now)
	sum := sha256.Sum256(content)
	if f.known && bytes.Equal(f.sum[:], sum[:]) {
		return nil, false, nil
	}
	f.known, f.sum = true, sum
	if !f.since.Equal(now) {
		f.since, f.settled = now, false // changed, but not its time
	}
	return content, true, nil
}

// sameFile reports whether a file is as it was.
func sameFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// Quiet reports whether, at the last look, the file had not changed for [QuietTime].
func (f *File) Quiet(now time.Time) bool {
	return now.Sub(f.since) >= QuietTime
}

func (f *File) read() ([]byte, error) {
	// Opening a pipe that has taken the place of the file must not wait for a writer.
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, fmt.Errorf("%s is not a regular file", f.path))
	}
	content, err := io.ReadAll(io.LimitReader(file, f.limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > f.limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", f.path, f.limit)
	}
	return content, nil
}
