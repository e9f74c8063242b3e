package mtlsauth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// rigPatience is how long a test waits for what must come.
const rigPatience = 10 * time.Second

// logSink holds everything that one Caddy logs, at any level.
type logSink struct {
	name string

	mu      sync.Mutex
	text    bytes.Buffer
	entries []logEntry
	changed chan struct{}
}

type logEntry map[string]any

func (e logEntry) str(field string) string {
	text, _ := e[field].(string)
	return text
}

var (
	logSinks      = make(map[string]*logSink)
	logSinksCount int
	logSinksMu    sync.Mutex
)

// newLogSink makes a sink with a name of its own: Caddy goes on with the writer
// it has when the name is one that it knows.
func newLogSink() *logSink {
	logSinksMu.Lock()
	defer logSinksMu.Unlock()
	logSinksCount++
	sink := &logSink{name: strconv.Itoa(logSinksCount), changed: make(chan struct{})}
	logSinks[sink.name] = sink
	return sink
}

// Write takes one line, as zap writes it.
func (s *logSink) Write(p []byte) (int, error) {
	var entry logEntry
	_ = json.Unmarshal(p, &entry)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	s.entries = append(s.entries, entry)
	close(s.changed)
	s.changed = make(chan struct{})
	return len(p), nil
}

func (s *logSink) Close() error { return nil }

// all returns the entries so far that match.
func (s *logSink) all(match func(logEntry) bool) []logEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.matching(match)
}

func (s *logSink) matching(match func(logEntry) bool) []logEntry {
	var found []logEntry
	for _, entry := range s.entries {
		if match(entry) {
			found = append(found, entry)
		}
	}
	return found
}

// wait returns the first entry that matches, when there is one.
func (s *logSink) wait(t *testing.T, what string, match func(logEntry) bool) logEntry {
	t.Helper()
	timeout := time.After(rigPatience)
	for {
		s.mu.Lock()
		found, changed := s.matching(match), s.changed
		s.mu.Unlock()
		if len(found) > 0 {
			return found[0]
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no log line for %s within %v", what, rigPatience)
		}
	}
}

// withErrorID returns the one line about a refusal that quotes the id.
func (s *logSink) withErrorID(t *testing.T, message, id string) logEntry {
	t.Helper()
	if id == "" {
		t.Fatalf("the response has no error id to find the log line %q by", message)
	}
	match := func(e logEntry) bool { return e.str("msg") == message && e.str("error_id") == id }
	entry := s.wait(t, message+" "+id, match)
	if n := len(s.all(match)); n != 1 {
		t.Errorf("%d log lines %q have the error id %s, want one", n, message, id)
	}
	return entry
}

// access returns the access log line of the request with this URI.
func (s *logSink) access(t *testing.T, uri string) logEntry {
	t.Helper()
	return s.wait(t, "access to "+uri, func(e logEntry) bool {
		request, _ := e["request"].(map[string]any)
		return e.str("msg") == "handled request" && request["uri"] == uri
	})
}

// checkLogs fails the test when a log has what no log may have: PEM, a
// certificate as such, a private key, a token.
func (r *rig) checkLogs() {
	r.t.Helper()
	r.logs.mu.Lock()
	text := r.logs.text.String()
	r.logs.mu.Unlock()
	secrets := append([]string{"-----BEGIN", "PRIVATE KEY-----"}, r.secrets...)
	for _, leaf := range r.leaves {
		secrets = append(secrets, derFragments(leaf)...)
	}
	for _, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			r.t.Errorf("the log holds %.40q…: %s", secret, text[max(0, at-300):min(len(text), at+300)])
		}
	}
}

// derFragments are pieces from the middle of a certificate and of its key, in
// the spellings in which they could be logged.
func derFragments(leaf *testpki.Leaf) []string {
	var fragments []string
	for _, pem := range [][]byte{leaf.PEM(), leaf.KeyPEM()} {
		lines := strings.Split(string(pem), "\n")
		fragments = append(fragments, lines[2])
	}
	// a multiple of three, so that the base64 of the piece is a piece of the base64
	piece := leaf.Cert.Raw[90:150]
	return append(fragments, base64.StdEncoding.EncodeToString(piece), base64.RawURLEncoding.EncodeToString(piece))
}

// rigLogs is the log writer `output rig <sink>`.
type rigLogs struct {
	Sink string `json:"sink,omitempty"`
}

func (*rigLogs) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.rig", New: func() caddy.Module { return new(rigLogs) }}
}

func (l *rigLogs) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&l.Sink) {
		return d.ArgErr()
	}
	return nil
}

func (l *rigLogs) String() string { return "rig " + l.Sink }

func (l *rigLogs) WriterKey() string { return "rig:" + l.Sink }

func (l *rigLogs) OpenWriter() (io.WriteCloser, error) {
	logSinksMu.Lock()
	defer logSinksMu.Unlock()
	return logSinks[l.Sink], nil
}
