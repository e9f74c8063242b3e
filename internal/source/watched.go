package source

import (
	"sync"
	"time"
)

// Health records how a source fares that is looked at again and again, and
// decides when its failure is worth a report. A file that cannot be read or
// parsed may only be half written, so a failure is reported once it has lasted
// [QuietTime] without becoming another, and only once. The end of a failure is
// reported too. The zero value is a source that has not been looked at yet.
//
// Use it on its own for a source that is not a file of this package; for a
// file, use [Watched]. A Health is used by one goroutine at a time.
type Health struct {
	success  time.Time
	failure  error
	since    time.Time // when the failure began
	reported bool
}

// Note records the outcome of a look: nil, or why the source cannot be used,
// which each look repeats until it is mended. changed says that the source has
// other content than at the last look. Note returns whether to report the
// outcome now: an error as described at [Health], and nil when the content has
// changed or a failure has ended.
func (h *Health) Note(now time.Time, changed bool, err error) (report bool) {
	before := h.failure
	h.failure = err
	if err == nil {
		h.success, h.reported = now, false
		return changed || before != nil
	}
	if changed || before == nil || before.Error() != err.Error() {
		h.since, h.reported = now, false
	}
	if h.reported || now.Sub(h.since).Abs() < QuietTime {
		return false
	}
	h.reported = true
	return true
}

// Failure returns why the source could not be used at the last look, or nil.
func (h *Health) Failure() error { return h.failure }

// Success returns when the source was last found to be usable, changed or not;
// the zero time if never.
func (h *Health) Success() time.Time { return h.success }

// Watched is a watched file, what makes use of its content, and its [Health].
// It starts nothing: call [Watched.Poll] from time to time, about once a
// second. It may be used by several goroutines at once.
//
//	file := source.NewWatched(path, 16<<20, func(content []byte) error {
//		rules, err := parse(content)
//		if err == nil {
//			use(rules)
//		}
//		return err
//	})
//	if _, err := file.Poll(now()); err != nil {
//		return err // a start requires a file that is whole
//	}
//	…
//	if report, err := file.Poll(now()); report {
//		log(err) // nil: the file is in force, or good again
//	}
type Watched struct {
	use func(content []byte) error

	polling sync.Mutex // held by Poll; guards file and unusable
	file    *File
	// unusable is why use has refused the content that was read last.
	unusable error

	mu     sync.Mutex
	health Health
}

// NewWatched returns a Watched for the file at path, of at most limit bytes,
// which has not been read yet. Poll calls use with the content at first and
// whenever it has changed. An error of use, or a panic, says why that content
// is not in force: what use left in force before stays so, and Poll returns the
// error until the content changes. use is called by one goroutine at a time and
// must not call the Watched.
func NewWatched(path string, limit int64, use func(content []byte) error) *Watched {
	return &Watched{file: NewFile(path, limit), use: use}
}

// Path returns the path of the file.
func (w *Watched) Path() string { return w.file.Path() }

// Poll looks at the file, at the cost of one system call if it has not changed.
// err is why the file cannot be read or used; see [Health.Note] for report.
func (w *Watched) Poll(now time.Time) (report bool, err error) {
	w.polling.Lock()
	defer w.polling.Unlock()
	content, changed, err := w.file.Look(now)
	if changed {
		w.unusable = w.useSafely(content)
	}
	if err == nil {
		err = w.unusable
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.health.Note(now, changed, err), err
}

func (w *Watched) useSafely(content []byte) (err error) {
	defer Recover("reading it", &err)
	return w.use(content)
}

// Quiet reports whether the file had not changed for [QuietTime] at the last
// look, so that it is no longer being written. What widens access, such as a
// rule that is gone from a deny file, should wait for it.
func (w *Watched) Quiet(now time.Time) bool {
	w.polling.Lock()
	defer w.polling.Unlock()
	return w.file.Quiet(now)
}

// Failure returns why the file could not be used at the last look, or nil.
func (w *Watched) Failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.health.Failure()
}

// Success returns when the file was last found to be usable, changed or not;
// the zero time if never.
func (w *Watched) Success() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.health.Success()
}

// TakeOver continues from what another Watched has seen of the same path, so
// that use is not called again for content that the other has used: take over
// what its use has left in force as well. It does nothing for another path.
func (w *Watched) TakeOver(old *Watched) {
	if w.Path() != old.Path() {
		return
	}
	old.polling.Lock()
	defer old.polling.Unlock()
	*w.file = *old.file
	w.unusable, w.health = old.unusable, old.health
}
