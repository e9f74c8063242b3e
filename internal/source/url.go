package source

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultRefresh is how often a document is fetched whose server does not
	// say how long it may be kept.
	DefaultRefresh = time.Hour
	// DefaultMinRefresh is the shortest time that a server can ask for.
	DefaultMinRefresh = time.Minute
	// DefaultMaxRefresh is the longest time that a server can ask for.
	DefaultMaxRefresh = 24 * time.Hour
	// DefaultMaxBytes is the size of the largest document.
	DefaultMaxBytes = 1 << 20
	// DefaultTimeout is how long a fetch may take.
	DefaultTimeout = 30 * time.Second

	// DefaultMaxRetry is the longest pause after a fetch that failed.
	DefaultMaxRetry = 15 * time.Minute

	// firstRetry is the pause after a fetch that failed; it doubles with each
	// that fails after it.
	firstRetry = 5 * time.Second
	// askAgain is how long [URL.AskSoon] does nothing after it did something.
	askAgain = 30 * time.Second
)

// URLConfig says which document is kept, and how.
type URLConfig struct {
	// Address is the https URL of the document. Required.
	Address string
	// AllowHTTP allows an http URL, for a document that is signed.
	AllowHTTP bool
	// MaxBytes bounds its size. Default: [DefaultMaxBytes].
	MaxBytes int64
	// Refresh is how often it is fetched if the server does not say how long it
	// may be kept. Default: [DefaultRefresh].
	Refresh time.Duration
	// MinRefresh and MaxRefresh bound how often it is fetched, whatever the
	// server says. Default: [DefaultMinRefresh] and [DefaultMaxRefresh].
	MinRefresh, MaxRefresh time.Duration
	// MaxRetry is the longest pause after a fetch that failed. Default:
	// [DefaultMaxRetry].
	MaxRetry time.Duration
	// Timeout bounds a fetch. Default: [DefaultTimeout].
	Timeout time.Duration
	// Accept, if set, is given what was fetched if it is another document than
	// the one that is kept. An error refuses it: the old one is kept, as after
	// a fetch that failed. It is called by one goroutine at a time and must not
	// call the URL.
	Accept func(content []byte) error
	// Expires, if set, returns when the accepted document expires. It is fetched
	// again after nine tenths of the time until then, if that is sooner.
	Expires func() time.Time
	// Fetch gets the document. Default: the Get of [NewSecureFetcher].
	Fetch func(ctx context.Context, address string, limit int64) (Document, error)
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
	// Jitter returns a number from 0 to 1, by a tenth of which a fetch comes
	// earlier, so that servers do not all fetch at once. Default: a random one.
	Jitter func() float64
}

// URL is the copy of a document behind an https URL that is kept fresh. When
// the document cannot be fetched, or is refused, the copy stays as it was. A
// URL starts nothing of its own: who has it calls [URL.Refresh] when it is
// [URL.Due]. It may be used by several goroutines.
type URL struct {
	config URLConfig
	name   string // the address without a password

	// asked is when AskSoon did something last, in Unix nanoseconds, and soon
	// whether that is still to be done
	asked atomic.Int64
	soon  atomic.Bool

	mu       sync.Mutex
	content  []byte
	known    bool
	due      time.Time
	success  time.Time
	failure  string
	failures int
	flight   *flight
}

// flight is a fetch that is under way.
type flight struct {
	done chan struct{}
	ends time.Time
	err  error
}

// NewURL returns a URL of which nothing has been fetched yet, so that it is due.
func NewURL(config URLConfig) (*URL, error) {
	check := CheckSecureURL
	if config.AllowHTTP {
		check = CheckURL
	}
	if err := check(config.Address); err != nil {
		return nil, err
	}
	parsed, err := url.Parse(config.Address)
	if err != nil {
		return nil, err
	}
	orDefault(&config.MaxBytes, DefaultMaxBytes)
	orDefault(&config.Refresh, DefaultRefresh)
	orDefault(&config.MinRefresh, DefaultMinRefresh)
	orDefault(&config.MaxRefresh, DefaultMaxRefresh)
	orDefault(&config.MaxRetry, DefaultMaxRetry)
	orDefault(&config.Timeout, DefaultTimeout)
	if config.Fetch == nil {
		config.Fetch = NewSecureFetcher(nil).Get
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Jitter == nil {
		config.Jitter = rand.Float64
	}
	return &URL{config: config, name: parsed.Redacted()}, nil
}

func orDefault[T int64 | time.Duration](value *T, otherwise T) {
	if *value <= 0 {
		*value = otherwise
	}
}

// Name returns the address without a password, for logs.
func (u *URL) Name() string { return u.name }

// Content returns the copy. known is false as long as there is none.
func (u *URL) Content() (content []byte, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.content, u.known
}

// Due returns when the document is to be fetched: the zero time if at once.
// While a fetch is under way, it is when that has to have ended.
func (u *URL) Due() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.flight != nil:
		return u.flight.ends
	case u.soon.Load():
		return time.Time{}
	}
	return u.due
}

// AskSoon is called when something was asked for that is not in the document,
// but may be in a newer one. It makes the document due at once, at most once in
// 30 seconds, and reports whether it did. It waits for nothing.
func (u *URL) AskSoon() bool {
	now := u.config.Now().UnixNano()
	last := u.asked.Load()
	if last != 0 && now >= last && now-last < int64(askAgain) || !u.asked.CompareAndSwap(last, now) {
		return false
	}
	u.soon.Store(true)
	return true
}

// Refresh fetches the document, whether or not it is due, and returns the copy
// that is kept then. changed tells whether this call has brought another. While
// a fetch is under way, another call waits for its outcome. After an error the
// copy is the old one, nil if there has never been one.
func (u *URL) Refresh(ctx context.Context) (content []byte, changed bool, err error) {
	u.mu.Lock()
	if other := u.flight; other != nil {
		u.mu.Unlock()
		select {
		case <-other.done:
			err = other.err
		case <-ctx.Done():
			err = ctx.Err()
		}
		content, _ = u.Content()
		return content, false, err
	}
	mine := &flight{done: make(chan struct{}), ends: u.config.Now().Add(u.config.Timeout)}
	u.flight = mine
	u.soon.Store(false)
	before, known := u.content, u.known
	u.mu.Unlock()

	fetched, changed, err := u.take(ctx, before, known)

	now := u.config.Now()
	var next time.Duration
	if err == nil {
		next = u.interval(fetched, now) // calls Expires, so not under the lock
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if changed {
		u.content, u.known = fetched.Content, true
	}
	if err == nil {
		u.success, u.failure, u.failures = now, "", 0
		u.due = now.Add(next)
	} else {
		u.failure = err.Error()
		u.due = now.Add(u.pause())
		u.failures++
	}
	mine.err = err
	u.flight = nil
	close(mine.done)
	return u.content, changed, err
}

// take fetches the document and has it accepted if it is another.
func (u *URL) take(ctx context.Context, before []byte, known bool) (fetched Document, changed bool, err error) {
	fetched, err = Guard(func() (Document, error) { return u.fetch(ctx) })
	if err != nil || known && bytes.Equal(before, fetched.Content) {
		return fetched, false, err
	}
	err = u.accept(fetched.Content)
	return fetched, err == nil, err
}

// accept is Accept, if there is one, guarded.
func (u *URL) accept(content []byte) error {
	if u.config.Accept == nil {
		return nil
	}
	_, err := Guard(func() (struct{}, error) { return struct{}{}, u.config.Accept(content) })
	return err
}

func (u *URL) fetch(ctx context.Context) (Document, error) {
	ctx, cancel := context.WithTimeout(ctx, u.config.Timeout)
	defer cancel()
	return u.config.Fetch(ctx, u.config.Address, u.config.MaxBytes)
}

// interval is how long a document is kept before it is fetched again.
func (u *URL) interval(fetched Document, now time.Time) time.Duration {
	wait := u.config.Refresh
	if fetched.HasFresh {
		wait = fetched.Fresh
	}
	if u.config.Expires != nil {
		wait = min(wait, u.config.Expires().Sub(now)/10*9)
	}
	return max(u.earlier(min(wait, u.config.MaxRefresh)), u.config.MinRefresh)
}

// pause is how long to wait after a failure.
func (u *URL) pause() time.Duration {
	return u.earlier(min(firstRetry<<min(u.failures, 16), u.config.MaxRetry, u.config.MaxRefresh))
}

func (u *URL) earlier(wait time.Duration) time.Duration {
	return wait - time.Duration(u.config.Jitter()*float64(wait)/10)
}

// URLState tells of a document, for those who operate it.
type URLState struct {
	// Name is the address without a password.
	Name string
	// Success is when it was last fetched and not refused, zero if never.
	Success time.Time
	// Failure is why the last attempt failed, "" if it did not.
	Failure string
	// Failures is how many attempts in a row have failed.
	Failures int
	// Due is when it will be fetched again.
	Due time.Time
}

// State tells of the document.
func (u *URL) State() URLState {
	due := u.Due()
	u.mu.Lock()
	defer u.mu.Unlock()
	return URLState{Name: u.name, Success: u.success, Failure: u.failure, Failures: u.failures, Due: due}
}

// Begin begins with a copy that was fetched earlier, by another process: the
// document is due at once all the same. What is not accepted is not used; it
// reports whether it was. It is not called while a fetch may begin, and does
// nothing once one has.
func (u *URL) Begin(content []byte, fetched time.Time) bool {
	u.mu.Lock()
	begun := u.known || u.flight != nil
	u.mu.Unlock()
	if begun || int64(len(content)) > u.config.MaxBytes || u.accept(content) != nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.content, u.known, u.success = content, true, fetched
	return true
}

// TakeOver goes on with the copy of another URL of the same address, so that a
// new configuration begins with what the old one has. What the other has
// accepted must be accepted here too, else nothing is taken over; it reports
// whether it was. It is called before anything is fetched.
func (u *URL) TakeOver(old *URL) bool {
	if old == nil || old.config.Address != u.config.Address {
		return false
	}
	old.mu.Lock()
	content, known, due, success := old.content, old.known, old.due, old.success
	failure, failures := old.failure, old.failures
	old.mu.Unlock()
	if !known || int64(len(content)) > u.config.MaxBytes || u.accept(content) != nil {
		return false
	}
	u.asked.Store(old.asked.Load())
	u.mu.Lock()
	defer u.mu.Unlock()
	u.content, u.known, u.due, u.success = content, true, due, success
	u.failure, u.failures = failure, failures
	if end := success.Add(u.config.MaxRefresh); end.Before(due) { // a shorter one than before
		u.due = end
	}
	return true
}
