package httpsource

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// fixture is a source, its server, and a sink that keeps what it gets.
type fixture struct {
	*Source
	t      *testing.T
	server *httptest.Server
	now    time.Time
	logs   *observer.ObservedLogs

	answer   http.HandlerFunc
	requests []*http.Request

	inForce  string // what the sink has taken
	replaced int    // how often
	refuse   error  // the sink takes nothing
}

func newFixture(t *testing.T, change func(*Config)) *fixture {
	f := &fixture{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	core, logs := observer.New(zapcore.InfoLevel)
	f.logs = logs
	f.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.requests = append(f.requests, r)
		f.answer(w, r)
	}))
	f.server.Config.ErrorLog = nil
	t.Cleanup(f.server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(f.server.Certificate())
	config := Config{
		Address: f.server.URL + "/clients.json", Transport: source.NewNetwork(roots), Logger: zap.New(core), Timeout: time.Minute,
		Now: func() time.Time { return f.now }, Jitter: func() float64 { return 0 },
	}
	if change != nil {
		change(&config)
	}
	var err error
	if f.Source, err = New(config); err != nil {
		t.Fatal(err)
	}
	return f
}

// sends has the server send a document.
func (f *fixture) sends(text string) {
	f.answer = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func (f *fixture) Replace(_ context.Context, records iter.Seq2[clients.Entry, error]) error {
	f.replaced++
	var all []string
	for e, err := range records {
		if err != nil {
			return fmt.Errorf("%s: %w", e.Place, err)
		}
		all = append(all, e.Place+": "+string(e.Record))
	}
	if f.refuse != nil {
		return f.refuse
	}
	f.inForce = strings.Join(all, "; ")
	return nil
}

func (f *fixture) Update(context.Context, []clients.Entry) error { panic("not used") }
func (f *fixture) Note(error)                                    { panic("not used") }

// fetches fetches the document, and checks the error, "" for none.
func (f *fixture) fetches(want string) error {
	f.t.Helper()
	_, err := f.refresh(f.t.Context(), f)
	if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
		f.t.Errorf("%v, want %q", err, want)
	}
	return err
}

func (f *fixture) want(inForce string, replaced int) {
	f.t.Helper()
	if f.inForce != inForce || f.replaced != replaced {
		f.t.Errorf("in force: %s, after %d updates; want %s, after %d", f.inForce, f.replaced, inForce, replaced)
	}
}

func TestInfo(t *testing.T) {
	s, err := New(Config{Address: "https://user:pass@api.example/clients?key=secret", SkipBad: true, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if want := (clients.SourceInfo{Name: "http:https://api.example/clients?key=…", SkipBad: true, LoadTimeout: 5 * time.Minute, Refresh: time.Minute}); s.Info() != want {
		t.Errorf("%+v", s.Info())
	}
	for _, address := range []string{"", "http://api.example/", "clients.json", "https://"} {
		if _, err := New(Config{Address: address}); err == nil {
			t.Errorf("%q is taken", address)
		}
	}
}

// TestDocument: arrays and JSON Lines are read, whatever their content type says.
func TestDocument(t *testing.T) {
	f := newFixture(t, nil)
	for text, want := range map[string]string{
		"[{\"a\":1},\n{\"b\":2}]":                      `line 1: {"a":1}; line 2: {"b":2}`,
		"\ufeff{\"client_id\":\"a\"}\r\n{\"b\":1}\r\n": `line 1: {"client_id":"a"}; line 2: {"b":1}`,
		"[]": "", // says that there are no clients
	} {
		f.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, text)
		}
		f.fetches("")
		f.want(want, f.replaced)
	}
}

// TestConditionalRequests: a document that is in force is not sent again.
func TestConditionalRequests(t *testing.T) {
	const day = "Sun, 01 Mar 2026 12:00:00 GMT"
	f := newFixture(t, nil)
	version := `"1"`
	f.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", version)
		w.Header().Set("Last-Modified", day)
		if r.Header.Get("If-None-Match") == version && r.Header.Get("If-Modified-Since") == day {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintf(w, `[{"version":%s}]`, version)
	}
	f.fetches("")
	f.fetches("")
	f.want(`line 1: {"version":"1"}`, 1)

	// what is refused is asked for again, and what was in force before too
	version, f.refuse = `"2"`, errors.New("another client has it")
	f.fetches("another client has it")
	f.fetches("another client has it")
	if last := f.requests[len(f.requests)-1]; last.Header.Get("If-None-Match") != "" {
		t.Error("the request is conditional")
	}
	version, f.refuse = `"1"`, nil
	f.fetches("")
	f.want(`line 1: {"version":"1"}`, 4)
	f.fetches("")
	f.want(`line 1: {"version":"1"}`, 4)

	f.answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }
	f.inForce, f.Source.inForce = "", validators{}
	f.fetches("the server answers 304 instead of 200")
}

// TestValidatorsThatAreNotSentBack: what is no header value is not sent.
func TestValidatorsThatAreNotSentBack(t *testing.T) {
	for _, etag := range []string{strings.Repeat("x", maxValidator+1), "a\x01b", ""} {
		if v := validatorsOf(&http.Response{Header: http.Header{"Etag": {etag}}}); v != (validators{}) {
			t.Errorf("%.20q: %+v", etag, v)
		}
	}
}

// TestBadDocument: what does not come as a whole, or is not the document, is unavailable,
// and changes nothing.
func TestBadDocument(t *testing.T) {
	line := `{"client_id":"a"}` + "\n"
	hijack := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, text)
				_ = conn.Close()
			}
		}
	}
	send := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"captive portal":   {send("<!DOCTYPE html><html>Sign in"), "neither a JSON array of client records nor JSON Lines"},
		"empty":            {send(""), "it is empty; write [] if there are no clients"},
		"an error in JSON": {send(`{"error":"overloaded"}`), "neither a JSON array of client records nor JSON Lines"},
		"an envelope":      {send("{\n\"clients\":[]}"), "neither a JSON array of client records nor JSON Lines"},
		"half an array":    {send(`[{"a":1},`), "the array does not end"},
		"status 500": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, "[]")
		}, "the server answers 500 instead of 200"},
		"status 204": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "the server answers 204 instead of 200"},
		"partial content": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, "[]")
		}, "the server answers 206 instead of 200"},
		"shorter than said": {hijack("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + line), "unexpected EOF"},
		"cut off chunks":    {hijack("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n" + line + "\r\n"), "unexpected EOF"},
		"of unknown length": {hijack("HTTP/1.0 200 OK\r\n\r\n" + line), "it is not a JSON array"},
		"array without end": {hijack("HTTP/1.0 200 OK\r\n\r\n[" + line), "the array does not end"},
		"nothing":           {hijack(""), "EOF"},
		"no HTTP":           {hijack("hello\r\n"), "malformed HTTP"},
		"gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, "[]")
		}, "the server sends Content-Encoding 'gzip', which was not asked for"},
		"gzip without saying so": {func(w http.ResponseWriter, _ *http.Request) {
			z := gzip.NewWriter(w)
			fmt.Fprint(z, "[]")
			_ = z.Close()
		}, "neither a JSON array of client records nor JSON Lines"},
		"more than max_size": {send("[" + strings.Repeat(" ", 2000) + "]"), "the server sends more than 1000 bytes; raise max_size"},
		"more than it can tell": {func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				fmt.Fprint(w, strings.Repeat(" ", 100))
				w.(http.Flusher).Flush()
			}
		}, "the server sends more than 1000 bytes; raise max_size"},
		"redirect to http": {func(w http.ResponseWriter, _ *http.Request) {
			http.Redirect(w, new(http.Request), "http://127.0.0.1/", http.StatusFound)
		}, "the redirect leads away from https"},
		"redirect to a file": {func(w http.ResponseWriter, _ *http.Request) {
			http.Redirect(w, new(http.Request), "file:///etc/passwd", http.StatusFound)
		}, "the redirect leads away from https"},
		"redirect without end": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again", http.StatusFound)
		}, "more than 3 redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *Config) { c.MaxSize = 1000 })
			f.sends(`[{"a":1}]`)
			f.fetches("")
			f.answer = test.answer
			if err := f.fetches(test.want); !errors.Is(err, clients.ErrUnavailable) {
				t.Errorf("%v is not ErrUnavailable", err)
			}
			f.want(`line 1: {"a":1}`, f.replaced)
			f.sends(`[{"a":2}]`)
			f.fetches("")
			f.want(`line 1: {"a":2}`, f.replaced)
		})
	}
}

// TestBadRecordIsNotUnavailable: what the sink refuses is an error of its own.
func TestBadRecordIsNotUnavailable(t *testing.T) {
	f := newFixture(t, nil)
	f.sends(`[{"a":1}]`)
	f.refuse = errors.New("unknown member")
	if err := f.fetches("unknown member"); errors.Is(err, clients.ErrUnavailable) {
		t.Error(err)
	}
}

// TestUnreachable: a server that is not there, that is not trusted, or that does not
// answer.
func TestUnreachable(t *testing.T) {
	const address = "https://user:secret@127.0.0.1:1/?key=secret" // where nobody listens
	hanging := make(chan struct{})
	defer close(hanging)
	for want, change := range map[string]func(*Config){
		"connection refused":                   func(c *Config) { c.Address = address },
		"which is not trusted for servers":     func(c *Config) { c.Transport = source.NewNetwork(x509.NewCertPool()) },
		"the server has sent nothing for 50ms": func(c *Config) { c.Timeout = 50 * time.Millisecond },
	} {
		f := newFixture(t, change)
		f.answer = func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "[")
			w.(http.Flusher).Flush()
			<-hanging
		}
		err := f.fetches(want)
		if !errors.Is(err, clients.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	}
}

// TestHeaderGoesToOneHost: after a redirect to another host, or another port, the header
// is not sent.
func TestHeaderGoesToOneHost(t *testing.T) {
	var got []string
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, "other "+r.Header.Get("X-Api-Key")+r.Header.Get("Authorization"))
		if r.URL.Path == "/back" {
			http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
			return
		}
		fmt.Fprint(w, "[]")
	}))
	defer other.Close()
	roots := x509.NewCertPool()
	roots.AddCert(other.Certificate())
	f := newFixture(t, func(c *Config) {
		c.Header = http.Header{"X-Api-Key": {"secret"}, "Authorization": {"Bearer secret"}}
		c.Transport = source.NewNetwork(roots)
	})
	f.answer = func(w http.ResponseWriter, r *http.Request) {
		got = append(got, "own "+r.Header.Get("X-Api-Key")+" "+r.Header.Get("Authorization"))
		switch r.URL.Path {
		case "/clients.json":
			http.Redirect(w, r, "/moved", http.StatusFound)
		case "/moved":
			http.Redirect(w, r, other.URL+"/back?to="+f.server.URL+"/last", http.StatusTemporaryRedirect)
		case "/last":
			http.Redirect(w, r, other.URL+"/end", http.StatusFound)
		}
	}
	f.fetches("more than 3 redirects")
	if want := "own secret Bearer secret, own secret Bearer secret, other , own secret Bearer secret"; strings.Join(got, ", ") != want {
		t.Errorf("%s", strings.Join(got, ", "))
	}
	for _, entry := range f.logs.All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), "secret") {
			t.Errorf("%v", entry)
		}
	}
}

// TestPauses: the document is asked for every refresh; after failures, the pause grows.
func TestPauses(t *testing.T) {
	jitter := 0.0
	f := newFixture(t, func(c *Config) { c.Jitter = func() float64 { return jitter } })
	pause := func(want time.Duration) {
		t.Helper()
		_, _ = f.refresh(t.Context(), f)
		if got := f.due.Sub(f.now); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f.sends("[]")
	pause(time.Minute)
	jitter = 1
	pause(54 * time.Second)
	jitter = 0
	f.sends("")
	for _, want := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute} {
		pause(want)
	}
	f.sends("[]")
	pause(time.Minute)
	f.config.Refresh = time.Hour
	f.failures = 50
	f.sends("")
	pause(time.Hour)
}

// watching is a sink that reports what it gets.
type watching struct {
	*fixture
	notes chan error
}

func (w *watching) Replace(ctx context.Context, records iter.Seq2[clients.Entry, error]) error {
	err := w.fixture.Replace(ctx, records)
	w.notes <- err
	return err
}

func (w *watching) Note(err error) { w.notes <- err }

// TestWatch: a document is asked for when it is due, and the sink learns the outcome.
func TestWatch(t *testing.T) {
	due := make(chan time.Time, 1)
	f := newFixture(t, func(c *Config) {
		last := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		c.Now = func() time.Time {
			select {
			case last = <-due:
			default:
			}
			return last
		}
	})
	f.sends("[]")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	w := &watching{f, make(chan error, 10)}
	if err := f.Load(t.Context(), w); err != nil || <-w.notes != nil {
		t.Fatal(err)
	}
	f.answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	go func() { f.Watch(ctx, w); close(done) }()
	due <- f.now.Add(time.Minute)
	if err := <-w.notes; !errors.Is(err, clients.ErrUnavailable) {
		t.Error(err)
	}
	cancel()
	<-done
}

// TestLargeDocument: a document is not in memory as a whole.
func TestLargeDocument(t *testing.T) {
	f := newFixture(t, nil)
	line := []byte(`{"client_id":"a","client_name":"` + strings.Repeat("x", 1000) + `"}` + "\n")
	f.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat(line, 20_000)) }
	count := 0
	sink := sinkFunc(func(records iter.Seq2[clients.Entry, error]) error {
		for range records {
			count++
		}
		return nil
	})
	if allocated := testing.AllocsPerRun(1, func() {
		if err := f.Load(t.Context(), sink); err != nil {
			t.Error(err)
		}
	}); count != 40_000 || allocated > 60_000 {
		t.Errorf("%d records, %.0f allocations", count, allocated)
	}
}

type sinkFunc func(records iter.Seq2[clients.Entry, error]) error

func (f sinkFunc) Replace(_ context.Context, records iter.Seq2[clients.Entry, error]) error {
	return f(records)
}
func (sinkFunc) Update(context.Context, []clients.Entry) error { panic("not used") }
func (sinkFunc) Note(error)                                    { panic("not used") }

// TestRetryAfter: a server that is busy is left alone for as long as it asks, within
// bounds.
func TestRetryAfter(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct {
		status int
		value  string
		want   time.Duration
	}{
		{http.StatusServiceUnavailable, "60", time.Minute}, {http.StatusTooManyRequests, "60", time.Minute},
		{http.StatusServiceUnavailable, f.now.Add(2 * time.Minute).Format(http.TimeFormat), 2 * time.Minute},
		{http.StatusServiceUnavailable, "86400", maxRetry}, {http.StatusServiceUnavailable, "2147483647", maxRetry},
		{http.StatusServiceUnavailable, "1", firstRetry}, {http.StatusServiceUnavailable, "-60", firstRetry},
		{http.StatusServiceUnavailable, "99999999999999999999", firstRetry}, {http.StatusServiceUnavailable, "soon", firstRetry},
		{http.StatusServiceUnavailable, f.now.Add(-time.Hour).Format(http.TimeFormat), firstRetry},
		{http.StatusInternalServerError, "60", firstRetry},
	} {
		f.failures = 0
		f.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.value)
			w.WriteHeader(c.status)
		}
		f.fetches(fmt.Sprintf("the server answers %d", c.status))
		if got := f.due.Sub(f.now); got != c.want {
			t.Errorf("%d with Retry-After %s: asked again after %s, want %s", c.status, c.value, got, c.want)
		}
	}
	f.sends("[]")
	f.fetches("")
	if got := f.due.Sub(f.now); got != defaultRefresh {
		t.Errorf("asked again after %s", got)
	}
}

// TestSlowParsing: what the document is parsed for does not count as a server that sends
// nothing.
func TestSlowParsing(t *testing.T) {
	text := "[" + strings.Repeat(`{"client_id":"a"},`, 100_000) + `{"client_id":"b"}]`
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Address: "https://api.example/clients", Transport: quickServer(text), Logger: zap.NewNop(), Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		slow := slowSink{take: func() {
			if count++; count == 1 {
				time.Sleep(2 * s.config.Timeout) // the work of a slow machine
			}
		}}
		if _, err := s.refresh(t.Context(), slow); err != nil || count != 100_001 {
			t.Errorf("%d records, %v", count, err)
		}
	})
}

// quickServer answers with a document that has come as soon as it is read.
type quickServer string

func (q quickServer) RoundTrip(r *http.Request) (*http.Response, error) {
	body := quickBody{strings.NewReader(string(q)), r.Context()}
	return &http.Response{StatusCode: http.StatusOK, Header: make(http.Header), ContentLength: int64(len(q)), Body: body, Request: r}, nil
}

// quickBody ends with its request, as that of a connection does.
type quickBody struct {
	*strings.Reader
	request context.Context
}

func (b quickBody) Read(p []byte) (int, error) {
	if err := b.request.Err(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

func (quickBody) Close() error { return nil }

// slowSink takes a while for each record.
type slowSink struct {
	*fixture
	take func()
}

func (s slowSink) Replace(_ context.Context, records iter.Seq2[clients.Entry, error]) error {
	for _, err := range records {
		if err != nil {
			return err
		}
		s.take()
	}
	return nil
}
