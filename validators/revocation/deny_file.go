package revocation

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// DenyFile is a deny file that is watched. Rules that are added count at the
// next [DenyFile.Poll]. Rules that are gone count on until the file has been
// quiet for two seconds, because it may only be half written. A file that is
// broken or missing changes nothing. [DenyFile.Poll] and [DenyFile.TakeOver] are
// called by one goroutine. Others may call the other methods meanwhile, and pass
// the DenyFile to the TakeOver of another.
type DenyFile struct {
	file *source.Watched
	list atomic.Pointer[DenyList]
	// next is what the file says, nil once that alone is in force.
	next *DenyList
	// whole is what was last in force alone.
	whole atomic.Pointer[DenyList]

	// Shorter is called by Poll when a file with fewer rules than before has taken
	// effect, which may be a mistake. It must be set before the first Poll.
	Shorter func(before, after int)
}

// OpenDenyFile reads a deny file for the first time. It returns an error for a
// file that is missing or broken. [parseDenyList] has the syntax.
func OpenDenyFile(path string, now time.Time) (*DenyFile, error) {
	f := &DenyFile{Shorter: func(int, int) {}}
	f.list.Store(newDenyList())
	f.file = source.NewWatched(path, maxDenyFile, f.addRules)
	if _, err := f.file.Poll(now); err != nil {
		return nil, fmt.Errorf("deny file: %w", err)
	}
	f.next = nil
	f.whole.Store(f.List())
	return f, nil
}

// addRules adds the rules of the file to those in force.
func (f *DenyFile) addRules(content []byte) error {
	f.next = nil
	list, err := parseDenyList(content)
	if err != nil {
		return fmt.Errorf("%s: %w", f.file.Path(), err)
	}
	f.next = list
	f.list.Store(list.union(f.List()))
	return nil
}

// TakeOver keeps the rules in force that another DenyFile has of the same path,
// until the file has been quiet: for a new configuration, which may be loaded
// while the file is only half written. It is called before the first Poll.
func (f *DenyFile) TakeOver(old *DenyFile) {
	if f.file.Path() != old.file.Path() {
		return
	}
	f.next = f.List()
	f.whole.Store(old.whole.Load())
	f.list.Store(f.next.union(old.List()))
}

// List returns the rules that are in force.
func (f *DenyFile) List() *DenyList { return f.list.Load() }

// Failure returns why the file could not be used at the last look, or nil.
func (f *DenyFile) Failure() error { return f.file.Failure() }

// LastSuccess returns when the file was last found to be readable and valid.
func (f *DenyFile) LastSuccess() time.Time { return f.file.Success() }

// Poll looks at the file, at the cost of one system call if it has not changed.
// changed reports whether other rules are in force. report says whether to
// report err, which is why the file cannot be used, or nil when it is in force
// or good again: a failure is to be reported once, after two seconds.
func (f *DenyFile) Poll(now time.Time) (changed, report bool, err error) {
	before := f.List()
	report, err = f.file.Poll(now)
	if err == nil && f.next != nil && f.file.Quiet(now) {
		if whole := f.whole.Load(); f.next.Len() < whole.Len() {
			f.Shorter(whole.Len(), f.next.Len())
		}
		f.list.Store(f.next)
		f.whole.Store(f.next)
		f.next = nil
	}
	return f.List() != before, report, err
}
