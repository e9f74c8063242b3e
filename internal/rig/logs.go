package rig

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Patience is how long a test waits for something that must happen, on a busy machine too.
const Patience = time.Minute

// logSink records everything that one Caddy logs, at any level.
type logSink struct {
	name string

	mu      sync.Mutex
	text    bytes.Buffer
	entries []LogEntry
	changed chan struct{}
}

// LogEntry is a log line in JSON.
type LogEntry map[string]any

// Str returns a string field, or "" if it is missing.
func (e LogEntry) Str(field string) string {
	text, _ := e[field].(string)
	return text
}

var (
	logSinks      = make(map[string]*logSink)
	logSinksCount int
	logSinksMu    sync.Mutex
)

// newLogSink makes a sink with a unique name, because Caddy would reuse an open
// writer of the same name.
func newLogSink() *logSink {
	logSinksMu.Lock()
	defer logSinksMu.Unlock()
	logSinksCount++
	sink := &logSink{name: strconv.Itoa(logSinksCount), changed: make(chan struct{})}
	logSinks[sink.name] = sink
	return sink
}

// Write records one line, because zap writes each with a call of its own.
func (s *logSink) Write(p []byte) (int, error) {
	var entry LogEntry
	_ = json.Unmarshal(p, &entry)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	s.entries = append(s.entries, entry)
	close(s.changed)
	s.changed = make(chan struct{})
	return len(p), nil
}

// Forget drops what has been logged so far, for tests that count memory.
func (s *logSink) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text, s.entries = bytes.Buffer{}, nil
}

// Close does nothing, because the test still reads the entries.
func (s *logSink) Close() error { return nil }

// All returns the matching entries so far.
func (s *logSink) All(match func(LogEntry) bool) []LogEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.matching(match)
}

func (s *logSink) matching(match func(LogEntry) bool) []LogEntry {
	var found []LogEntry
	for _, entry := range s.entries {
		if match(entry) {
			found = append(found, entry)
		}
	}
	return found
}

// Wait waits for a matching entry and returns it.
func (s *logSink) Wait(t *testing.T, what string, match func(LogEntry) bool) LogEntry {
	t.Helper()
	return s.WaitFor(t, 1, what, match)[0]
}

// WaitFor waits for n matching entries and returns them.
func (s *logSink) WaitFor(t *testing.T, n int, what string, match func(LogEntry) bool) []LogEntry {
	t.Helper()
	timeout := time.After(Patience)
	for {
		s.mu.Lock()
		found, changed := s.matching(match), s.changed
		s.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%d log lines for %s within %v, want %d", len(found), what, Patience, n)
		}
	}
}

// Said returns the log lines with this message whose error contains the texts.
func (s *logSink) Said(message string, texts ...string) []LogEntry {
	return s.All(func(entry LogEntry) bool {
		return entry.Str("msg") == message && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(entry.Str("error"), text) })
	})
}

// Access waits for the access log line of the request with this URI.
func (s *logSink) Access(t *testing.T, uri string) LogEntry {
	t.Helper()
	return s.Wait(t, "access to "+uri, func(e LogEntry) bool {
		request, _ := e["request"].(map[string]any)
		return e.Str("msg") == "handled request" && request["uri"] == uri
	})
}

// checkSecrets fails the test if the log contains PEM, one of the certificates, a private
// key or a token.
func (s *logSink) checkSecrets(t *testing.T, leaves []*testpki.Leaf, secrets ...string) {
	t.Helper()
	s.mu.Lock()
	text := s.text.String()
	s.mu.Unlock()
	secrets = append([]string{"-----BEGIN", "PRIVATE KEY-----"}, secrets...)
	for _, leaf := range leaves {
		secrets = append(secrets, DerFragments(leaf)...)
	}
	for _, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("the log contains %.40q…: %s", secret, text[max(0, at-300):min(len(text), at+300)])
		}
	}
}

// DerFragments returns pieces from the middle of a certificate and of its key, in
// the encodings in which they could be logged.
func DerFragments(leaf *testpki.Leaf) []string {
	var fragments []string
	for _, pem := range [][]byte{leaf.PEM(), leaf.KeyPEM()} {
		lines := strings.Split(string(pem), "\n")
		fragments = append(fragments, lines[2])
	}
	// offsets are multiples of three, so the piece's base64 is a piece of the whole
	// certificate's
	piece := leaf.Cert.Raw[90:150]
	return append(fragments, base64.StdEncoding.EncodeToString(piece), base64.RawURLEncoding.EncodeToString(piece))
}

// logs implements the log writer `output rig <sink>`.
type logs struct {
	Sink string `json:"sink,omitempty"`
}

// CaddyModule returns the module's ID.
func (*logs) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.rig", New: func() caddy.Module { return new(logs) }}
}

// UnmarshalCaddyfile reads `rig <sink>`.
func (l *logs) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&l.Sink) {
		return d.ArgErr()
	}
	return nil
}

// String describes the writer.
func (l *logs) String() string { return "rig " + l.Sink }

// WriterKey identifies the writer, so that Caddy reuses only one of the same sink.
func (l *logs) WriterKey() string { return "rig:" + l.Sink }

// OpenWriter returns the sink.
func (l *logs) OpenWriter() (io.WriteCloser, error) {
	logSinksMu.Lock()
	defer logSinksMu.Unlock()
	return logSinks[l.Sink], nil
}
