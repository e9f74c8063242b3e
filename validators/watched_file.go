package validators

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"time"
)

// quietTime is how long a file must not have changed before it is believed to
// be complete, and before a look at its size and time is enough: two changes
// soon after each other may leave the same.
const quietTime = 2 * time.Second

// watchedFile notices that a file has changed: by its size, its modification
// time and by being another file under the same name. Looking at one that has
// not changed costs one system call.
type watchedFile struct {
	path  string
	limit int64

	seen os.FileInfo
	// since is when the file was first seen as it is.
	since time.Time
	// settled is set when the file was read after it had been quiet.
	settled bool
	known   bool
	sum     [sha256.Size]byte
}

// look returns the content of the file if it is another than at the last look.
func (f *watchedFile) look(now time.Time) (content []byte, changed bool, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		f.seen = nil
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		f.seen = nil // reading a pipe would wait for a writer
		return nil, false, fmt.Errorf("%s is not a regular file", f.path)
	}
	if f.seen == nil || !os.SameFile(f.seen, info) || f.seen.Size() != info.Size() || !f.seen.ModTime().Equal(info.ModTime()) {
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
	f.settled = f.quiet(now)
	sum := sha256.Sum256(content)
	if f.known && bytes.Equal(f.sum[:], sum[:]) {
		return nil, false, nil
	}
	f.known, f.sum = true, sum
	if !f.since.Equal(now) {
		f.since, f.settled = now, false // changed without another time
	}
	return content, true, nil
}

// quiet reports whether the file had not changed for a while at the last look.
func (f *watchedFile) quiet(now time.Time) bool {
	return now.Sub(f.since) >= quietTime
}

func (f *watchedFile) read() ([]byte, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, f.limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > f.limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", f.path, f.limit)
	}
	return content, nil
}
