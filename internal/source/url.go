package source

import (
	"bytes"
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// defaultRefresh is how often a document is fetched if the server does not say
	// how long it may be kept.
	defaultRefresh = time.Hour
	// defaultMinRefresh is the shortest time that a server can ask for.
	defaultMinRefresh = time.Minute
	// defaultMaxRefresh is the longest time that a server can ask for.
	defaultMaxRefresh = 24 * time.Hour
	// defaultMaxBytes is the size of the largest document, in bytes.
	defaultMaxBytes = 1 << 20
	// defaultTimeout is how long a fetch may take.
	defaultTimeout = 30 * time.Second

	// defaultMaxRetry is the longest pause after a failed fetch.
	defaultMaxRetry = 15 * time.Minute

	// firstRetry is the pause after a failed fetch; it doubles with each further
	// failure.
	firstRetry = 5 * time.Second
	// askAgain is the shortest time between two effects of [URL.AskSoon].
	askAgain = 30 * time.Second
)

// URLConfig configures a [URL].
type URLConfig struct {
	// Address is the https URL of the document. Required.
	Address string
	// AllowHTTP allows an http URL, for a document that is signed.
	AllowHTTP bool
	// MaxBytes bounds its size. Default: defaultMaxBytes.
	MaxBytes int64
	// Refresh is how often the document is fetched if the server does not say how
	// long it may be kept. Default: defaultRefresh.
	Refresh time.Duration
	// MinRefresh and MaxRefresh bound the time between two fetches, whatever the
	// server says. Default: defaultMinRefresh and defaultMaxRefresh.
	MinRefresh, MaxRefresh time.Duration
	// MaxRetry is the longest pause after a failed fetch. Default:
	// defaultMaxRetry.
	MaxRetry time.Duration
	// Timeout bounds a fetch. Default: defaultTimeout.
	Timeout time.Duration
	// Accept, if set, is called with a fetched document that differs from the kept
	// one. An error refuses it: the kept document stays, as after a failed fetch.
	// Accept is called by one goroutine at a time and must not call the URL.
	Accept func(content []byte) error
	// Expires, if set, returns when the accepted document expires. The document is
	// fetched after nine tenths of the time until then, if that is earlier.
	Expires func() time.Time
	// Fetch gets the document. Default: the Get of [NewSecureFetcher].
	Fetch func(ctx context.Context, address string, limit int64) (Document, error)
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
	// Jitter returns a number from 0 to 1. A fetch comes earlier by that many tenths
	// of the interval, so that servers do not all fetch at once. Default: a random
	// number.
	Jitter func() float64
}

// URL is a copy of the document at an https URL, kept fresh. While the document cannot
// be fetched or is refused, the copy stays as it was. A URL starts nothing on its own:
// call [URL.Refresh] when it is [URL.Due]. It may be used by several goroutines at
// once.
type URL struct {
	config URLConfig
	name   string // the address as [ShownURL] shows it

	mu sync.Mutex
	urlState
	// fetching is until when the fetch that is under way may take; zero if none is
	fetching time.Time
}

// urlState is what TakeOver takes over.
type urlState struct {
	content  []byte
	known    bool
	due      time.Time
	success  time.Time
	kept     time.Duration // how long the copy is kept, zero if it was not fetched
	failure  error
	failures int // in a row
	// asked is when AskSoon last had an effect, and soon whether the fetch that it
	// asked for is still to begin.
	asked time.Time
	soon  bool
}

// NewURL returns a URL that has fetched nothing yet, so that it is due. It returns an
// error for an address that is not an https URL, or http if that is allowed.
func NewURL(config URLConfig) (*URL, error) {
	parsed, err := parseURL(config.Address, !config.AllowHTTP)
	if err != nil {
		return nil, err
	}
	orDefault(&config.MaxBytes, defaultMaxBytes)
	orDefault(&config.Refresh, defaultRefresh)
	orDefault(&config.MinRefresh, defaultMinRefresh)
	orDefault(&config.MaxRefresh, defaultMaxRefresh)
	orDefault(&config.MaxRetry, defaultMaxRetry)
	orDefault(&config.Timeout, defaultTimeout)
	if config.Fetch == nil {
		config.Fetch = NewSecureFetcher(nil).Get
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Jitter == nil {
		config.Jitter = rand.Float64
	}
	return &URL{config: config, name: shown(parsed)}, nil
}

func orDefault[T int64 | time.Duration](value *T, otherwise T) {
	if *value <= 0 {
		*value = otherwise
	}
}

// Name returns the address for logs, as [ShownURL] does.
func (u *URL) Name() string { return u.name }

// Content returns the copy. known is false while there is none.
func (u *URL) Content() (content []byte, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.content, u.known
}

// Due returns when to fetch the document, the zero time for at once. During a fetch,
// it returns when that will have timed out.
func (u *URL) Due() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case !u.fetching.IsZero():
		return u.fetching
	case u.soon:
		return time.Time{}
	}
	return u.due
}

// AskSoon makes the document due at once, at most once in 30 seconds and not while
// the first one is being fetched, and reports whether it did. Call it when the
// document lacks something that a newer version may have. It does not block.
func (u *URL) AskSoon() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.fetching.IsZero() && !u.known {
		return false
	}
	if since := u.config.Now().Sub(u.asked); since >= 0 && since < askAgain {
		return false
	}
	u.asked, u.soon = u.config.Now(), true
	return true
}

// Refresh fetches the document, whether or not it is due, and returns the copy after
// that: with an error the old one, nil if there has never been one. changed reports
// whether this call has changed the copy. A call during another one does not fetch;
// it returns the copy and the outcome as they are. That a fetch fails because ctx is done
// says nothing about the document, which stays due.
func (u *URL) Refresh(ctx context.Context) (content []byte, changed bool, err error) {
	u.mu.Lock()
	if !u.fetching.IsZero() {
		defer u.mu.Unlock()
		return u.content, false, u.failure
	}
	u.fetching, u.soon = u.config.Now().Add(u.config.Timeout), false
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
	switch {
	case err == nil:
		u.success, u.kept, u.failure, u.failures = now, next, nil, 0
		u.due = now.Add(next)
	case ctx.Err() == nil:
		u.failure = err
		u.due = now.Add(u.pause())
		u.failures++
	}
	u.fetching = time.Time{}
	return u.content, changed, err
}

// take fetches the document, and has it accepted if it differs.
func (u *URL) take(ctx context.Context, before []byte, known bool) (fetched Document, changed bool, err error) {
	defer Recover("reading it", &err)
	ctx, cancel := context.WithTimeout(ctx, u.config.Timeout)
	defer cancel()
	fetched, err = u.config.Fetch(ctx, u.config.Address, u.config.MaxBytes)
	if err != nil || known && bytes.Equal(before, fetched.Content) {
		return fetched, false, err
	}
	err = u.accept(fetched.Content)
	return fetched, err == nil, err
}

// accept calls Accept, if it is set.
func (u *URL) accept(content []byte) (err error) {
	defer Recover("reading it", &err)
	if u.config.Accept != nil {
		err = u.config.Accept(content)
	}
	return err
}

// interval returns how long to keep a document before it is fetched again.
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

// pause returns how long to wait after a failure.
func (u *URL) pause() time.Duration {
	return u.earlier(min(firstRetry<<min(u.failures, 16), u.config.MaxRetry, u.config.MaxRefresh))
}

func (u *URL) earlier(wait time.Duration) time.Duration {
	return wait - time.Duration(u.config.Jitter()*float64(wait)/10)
}

// Success returns when the document was last fetched and not refused; the zero time
// if never.
func (u *URL) Success() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.success
}

// Interval returns how long the copy is kept before the document is fetched again.
func (u *URL) Interval() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return cmp.Or(u.kept, u.config.Refresh)
}

// Begun reports whether the copy is still one that another process has fetched; see
// [URL.Begin].
func (u *URL) Begun() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.known && u.kept == 0
}

// Failure returns why the last attempt failed, or nil.
func (u *URL) Failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failure
}

// Begin begins with a copy that another process fetched earlier, and reports whether
// Accept has accepted it. The document stays due. Call it before anything is fetched.
func (u *URL) Begin(content []byte, fetched time.Time) bool {
	return u.begin(urlState{content: content, known: true, success: fetched})
}

// TakeOver continues with the copy of another URL of the same address, so that a new
// configuration begins with what the old one has. It reports whether Accept has
// accepted the copy; otherwise it does nothing. Call it before anything is fetched.
func (u *URL) TakeOver(old *URL) bool {
	if old == nil || old.config.Address != u.config.Address {
		return false
	}
	old.mu.Lock()
	state := old.urlState
	old.mu.Unlock()
	if end := state.success.Add(u.config.MaxRefresh); end.Before(state.due) { // a shorter one than before
		state.due = end
	}
	return u.begin(state)
}

// begin begins with a state, if it has a copy that is accepted.
func (u *URL) begin(state urlState) bool {
	if !state.known || int64(len(state.content)) > u.config.MaxBytes || u.accept(state.content) != nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.urlState = state
	return true
}
