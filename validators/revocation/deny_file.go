package revocation

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// DenyFile is a deny file that is watched. Rules that are added count at the
// next [DenyFile.Poll]. Rules that are gone count on until the file has been
// quiet for two seconds, for it may only be half written. A file that is broken
// or gone changes nothing.
type DenyFile struct {
	list atomic.Pointer[DenyList]

	mu   sync.Mutex
	file *source.File
	// next is what the file says, nil where that is in force.
	next *DenyList
	// broken is why what the file says cannot be understood, failure the last
	// error that was reported.
	broken  error
	failure string
	// success is when the file was last found to be readable and understood.
	success time.Time
}

// OpenDenyFile reads a deny file (see [ParseDenyList]) for the first time.
func OpenDenyFile(path string, now time.Time) (*DenyFile, error) {
	f := &DenyFile{file: source.NewFile(path, MaxDenyFile)}
	content, _, err := f.file.Look(now)
	if err != nil {
		return nil, fmt.Errorf("deny file: %w", err)
	}
	list, err := ParseDenyList(content)
	if err != nil {
		return nil, fmt.Errorf("deny file %s: %w", path, err)
	}
	f.list.Store(list)
	f.success = now
	return f, nil
}

// TakeOver keeps the rules in force that another DenyFile has of the same path,
// until the file has been quiet: for a new configuration, which may be loaded
// while the file is only half written. It is called before the first Poll.
func (f *DenyFile) TakeOver(old *DenyFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file.Path() != old.file.Path() {
		return
	}
	f.next = f.list.Load()
	f.list.Store(f.next.union(old.List()))
}

// List returns the rules that are in force.
func (f *DenyFile) List() *DenyList { return f.list.Load() }

// LastSuccess is when the file was last found to be readable and understood.
func (f *DenyFile) LastSuccess() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.success
}

// Poll looks at the file, at the cost of one system call if it has not changed,
// and reports whether the rules have. The error is that of a file which cannot
// be read or understood, once until it is another.
func (f *DenyFile) Poll(now time.Time) (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.list.Load()
	err = f.poll(now)
	switch {
	case err == nil:
		f.failure, f.success = "", now
	case err.Error() == f.failure:
		err = nil
	default:
		f.failure = err.Error()
	}
	return f.list.Load() != before, err
}

func (f *DenyFile) poll(now time.Time) error {
	content, changed, err := f.file.Look(now)
	if err != nil {
		return fmt.Errorf("deny file, its last rules stay in force: %w", err)
	}
	if changed {
		f.next, f.broken = nil, nil
		list, err := ParseDenyList(content)
		if err != nil {
			f.broken = fmt.Errorf("deny file %s, its last rules stay in force: %w", f.file.Path(), err)
		} else {
			f.next = list
			f.list.Store(list.union(f.list.Load()))
		}
	}
	if f.next != nil && f.file.Quiet(now) {
		f.list.Store(f.next)
		f.next = nil
	}
	return f.broken
}
