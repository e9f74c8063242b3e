package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// page is a document on a real server, its clock, and the copy of it.
type page struct {
	*URL
	t       *testing.T
	config  URLConfig
	now     time.Time
	body    string
	header  http.Header
	status  int
	fetched int
}

func newPage(t *testing.T, change func(*URLConfig)) *page {
	t.Helper()
	p := &page{t: t, now: start, body: "one", header: http.Header{}}
	s, transport := server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.fetched++
		maps.Copy(w.Header(), p.header)
		if p.status != 0 {
			w.WriteHeader(p.status)
		}
		_, _ = w.Write([]byte(p.body))
	}))
	p.config = URLConfig{
		Address: s.URL + "/jwks.json", MaxBytes: 16, Fetch: NewSecureFetcher(transport).Get,
		Now: func() time.Time { return p.now }, Jitter: func() float64 { return 0 },
	}
	if change != nil {
		change(&p.config)
	}
	p.URL = p.another()
	return p
}

func (p *page) another() *URL {
	p.t.Helper()
	u, err := NewURL(p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	return u
}

// refresh fetches, and returns the time until the next fetch.
func (p *page) refresh(content string, changed bool, want string) time.Duration {
	p.t.Helper()
	got, gotChanged, err := p.Refresh(p.t.Context())
	wantError(p.t, err, want)
	if string(got) != content || gotChanged != changed {
		p.t.Errorf("%q, changed %v; want %q, %v", got, gotChanged, content, changed)
	}
	wantError(p.t, p.Failure(), want)
	return p.Due().Sub(p.now)
}

func (p *page) wantDue(got, want time.Duration) {
	p.t.Helper()
	if got != want {
		p.t.Errorf("due in %s, want %s", got, want)
	}
}

func TestURL(t *testing.T) {
	p := newPage(t, nil)
	if content, known := p.Content(); content != nil || known || !p.Due().IsZero() || !p.Success().IsZero() {
		t.Error("something is known before the first fetch")
	}
	p.wantDue(p.refresh("one", true, ""), time.Hour)
	p.now = p.now.Add(time.Hour)
	p.wantDue(p.refresh("one", false, ""), time.Hour)
	p.body = "two"
	p.wantDue(p.refresh("two", true, ""), time.Hour)
	if content, known := p.Content(); string(content) != "two" || !known || !p.Success().Equal(p.now) {
		t.Errorf("%q, %+v", content, p.urlState)
	}
	p.body = ""
	p.refresh("", true, "")
	if _, known := p.Content(); !known {
		t.Error("an empty document is none")
	}
}

// TestURLHonorsTheServersFreshness tests that the server decides, within bounds, how
// long the document is kept.
func TestURLHonorsTheServersFreshness(t *testing.T) {
	p := newPage(t, nil)
	for said, want := range map[string]time.Duration{
		"max-age=600": 10 * time.Minute, "max-age=1": time.Minute, "no-store": time.Minute,
		"max-age=864000": 24 * time.Hour, "max-age=99999999999999999999": 24 * time.Hour, "private": time.Hour,
	} {
		p.header.Set("Cache-Control", said)
		due, _, err := p.Refresh(t.Context())
		if got := p.Due().Sub(p.now); got != want || err != nil {
			t.Errorf("%s: due in %s, %s, %v; want %s", said, got, due, err, want)
		}
	}
}

func TestURLJitter(t *testing.T) {
	p := newPage(t, func(c *URLConfig) { c.Jitter = func() float64 { return 1 } })
	p.wantDue(p.refresh("one", true, ""), 54*time.Minute)
	p.header.Set("Cache-Control", "max-age=60")
	p.wantDue(p.refresh("one", false, ""), time.Minute)
	p.status = http.StatusInternalServerError
	p.wantDue(p.refresh("one", false, "500"), 4500*time.Millisecond)
}

// TestURLKeepsItsCopyOnFailure tests that no failure loses the copy, and that the pause
// between two attempts grows up to a bound.
func TestURLKeepsItsCopyOnFailure(t *testing.T) {
	refused := ""
	p := newPage(t, func(c *URLConfig) {
		c.Accept = func(content []byte) error {
			if refused != "" && strings.Contains(string(content), refused) {
				return fmt.Errorf("%q is refused", content)
			}
			return nil
		}
	})
	p.body, refused = "bad", "bad"
	p.wantDue(p.refresh("", false, "refused"), 5*time.Second)
	if _, known := p.Content(); known {
		t.Error("what was refused is kept")
	}
	p.body = "one"
	p.wantDue(p.refresh("one", true, ""), time.Hour)
	success := p.now

	p.now = p.now.Add(time.Hour)
	p.status = http.StatusServiceUnavailable
	p.wantDue(p.refresh("one", false, "503"), 5*time.Second)
	p.status, p.body = 0, strings.Repeat("x", 17)
	p.wantDue(p.refresh("one", false, "more than 16 bytes"), 10*time.Second)
	p.body = "bad"
	p.wantDue(p.refresh("one", false, "refused"), 20*time.Second)
	p.wantDue(p.refresh("one", false, "refused"), 40*time.Second)
	var last time.Duration
	for range 100 {
		last = p.refresh("one", false, "refused")
	}
	p.wantDue(last, 15*time.Minute)
	if state := p.urlState; !state.success.Equal(success) || state.failures != 104 {
		t.Errorf("%+v", state)
	}
	p.body = "two"
	p.wantDue(p.refresh("two", true, ""), time.Hour)
	p.body = "bad"
	p.wantDue(p.refresh("two", false, "refused"), 5*time.Second)
}

func TestURLAskSoon(t *testing.T) {
	p := newPage(t, nil)
	p.refresh("one", true, "")
	if p.now = p.now.Add(time.Second); !p.AskSoon() || !p.Due().IsZero() {
		t.Error("not due at once")
	}
	p.wantDue(p.refresh("one", false, ""), time.Hour)
	for range 29 {
		if p.now = p.now.Add(time.Second); p.AskSoon() {
			t.Error("twice within 30 seconds")
		}
	}
	if p.now = p.now.Add(time.Second); !p.AskSoon() || !p.Due().IsZero() {
		t.Error("not due at once, after 30 seconds")
	}
	p.now = p.now.Add(-time.Hour) // a clock that was set back
	if !p.AskSoon() {
		t.Error("nothing can be asked for an hour")
	}
}

// TestURLFetchesOnceAtATime tests that a call during another one neither fetches nor
// waits.
func TestURLFetchesOnceAtATime(t *testing.T) {
	synctest.Test(t, testURLOneFlight)
}

func testURLOneFlight(t *testing.T) {
	var fetches atomic.Int32
	begun, end := make(chan struct{}), make(chan struct{})
	config := URLConfig{Address: "https://a.example/jwks", Fetch: func(context.Context, string, int64) (Document, error) {
		fetches.Add(1)
		close(begun)
		<-end
		return Document{}, errors.New("no answer")
	}}
	u, err := NewURL(config)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() { _, _, _ = u.Refresh(t.Context()) })
	<-begun
	if due := u.Due(); !due.Equal(time.Now().Add(defaultTimeout)) {
		t.Errorf("due %s while it is being fetched", due)
	}
	if u.AskSoon() {
		t.Error("the first fetch is asked for while it is under way")
	}
	for range 3 {
		if content, changed, err := u.Refresh(t.Context()); content != nil || changed || err != nil {
			t.Errorf("%q, %v, %v while it is being fetched for the first time", content, changed, err)
		}
	}
	other, err := NewURL(config)
	if err != nil {
		t.Fatal(err)
	}
	if other.TakeOver(u) || !other.Due().IsZero() {
		t.Error("a fetch that is under way is waited for")
	}
	close(end)
	all.Wait()
	if got := fetches.Load(); got != 1 {
		t.Errorf("%d fetches", got)
	}
}

func TestURLFetchTimesOut(t *testing.T) {
	timedOut := make(chan struct{})
	s, transport := server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-timedOut // a body that never comes
	}))
	defer close(timedOut)
	u, err := NewURL(URLConfig{Address: s.URL, Timeout: time.Millisecond, Fetch: NewSecureFetcher(transport).Get})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = u.Refresh(t.Context())
	wantError(t, err, "deadline exceeded")
}

// TestURLFetchThatIsGivenUp tests that a document has not failed because nobody waits
// for it any more.
func TestURLFetchThatIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u, err := NewURL(URLConfig{Address: "https://a.example/jwks", Fetch: func(ctx context.Context, _ string, _ int64) (Document, error) {
		cancel()
		return Document{}, ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = u.Refresh(ctx)
	wantError(t, err, "context canceled")
	if err := u.Failure(); err != nil || !u.Due().IsZero() {
		t.Errorf("%v, due %s", err, u.Due())
	}
}

func TestURLTakesOver(t *testing.T) {
	p := newPage(t, nil)
	p.refresh("one", true, "")
	p.AskSoon()
	p.status = http.StatusNotFound
	p.refresh("one", false, "404")
	next := p.another()
	if !next.TakeOver(p.URL) {
		t.Error("nothing was taken over")
	}
	if content, known := next.Content(); string(content) != "one" || !known || !reflect.DeepEqual(next.urlState, p.urlState) || next.AskSoon() {
		t.Errorf("%q, %+v; want %+v", content, next.urlState, p.urlState)
	}
	for name, change := range map[string]func(*URLConfig){
		"another address": func(c *URLConfig) { c.Address += "x" },
		"smaller":         func(c *URLConfig) { c.MaxBytes = 2 },
		"refused":         func(c *URLConfig) { c.Accept = func([]byte) error { return errors.New("no") } },
	} {
		before := p.config
		change(&p.config)
		next := p.another()
		p.config = before
		if _, known := next.Content(); next.TakeOver(p.URL) || known || !next.Due().IsZero() {
			t.Errorf("%s: it was taken over", name)
		}
	}
	if next.TakeOver(nil) || next.TakeOver(p.another()) {
		t.Error("nothing is something")
	}
}

func TestNewURL(t *testing.T) {
	for _, address := range []string{"", "http://a.example/jwks", "jwks.json", "file:///jwks.json"} {
		if _, err := NewURL(URLConfig{Address: address}); err == nil {
			t.Errorf("%q is taken", address)
		}
	}
	u, err := NewURL(URLConfig{Address: "https://user:secret@a.example/jwks"})
	if err != nil || u.Name() != "https://a.example/jwks" {
		t.Errorf("%v, %s", err, u.Name())
	}
}

// TestURLFetchThatPanicsIsAFailure tests that a panic while reading a document is an
// error, and the copy stays.
func TestURLFetchThatPanicsIsAFailure(t *testing.T) {
	p := newPage(t, func(config *URLConfig) {
		config.Accept = func(content []byte) error {
			if string(content) == "bad" {
				panic("index out of range\n")
			}
			return nil
		}
	})
	if _, _, err := p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.body = "bad"
	content, changed, err := p.Refresh(t.Context())
	if string(content) != "one" || changed {
		t.Errorf("got %q, %v", content, changed)
	}
	wantError(t, err, `reading it panicked: index out of range\n`)
	if state := p.urlState; state.failures != 1 || !state.due.Equal(p.now.Add(firstRetry)) {
		t.Errorf("%+v", state)
	}
	p.body = "two"
	if content, changed, err = p.Refresh(t.Context()); err != nil || !changed || string(content) != "two" {
		t.Errorf("got %q, %v, %v", content, changed, err)
	}
}
