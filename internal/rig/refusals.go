package rig

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
)

// WithErrorID returns what operators are told about the refusal with this message and
// error id: its log line or, if it repeats one that has a line, what is remembered about
// it, with the names of the fields. Both must say the same.
func (s *logSink) WithErrorID(t *testing.T, message, id string) LogEntry {
	t.Helper()
	if id == "" {
		t.Fatalf("the response has no error id, so the refusal %q cannot be found", message)
	}
	record := Refusal(t, id)
	remembered := entryOf(t, record)
	lines := s.All(func(e LogEntry) bool { return e.Str("msg") == message && e.Str("error_id") == id })
	switch {
	case record.Message != message:
		t.Errorf("the refusal %s is %q, want %q", id, record.Message, message)
	case len(lines) > 1:
		t.Errorf("%d log lines %q have the error id %s, want one", len(lines), message, id)
	case len(lines) == 1:
		for field := range strings.FieldsSeq("reason detail directive client_id thumbprint remote_ip host uri register token_id") {
			if lines[0].Str(field) != remembered.Str(field) {
				t.Errorf("the log says %s %q, remembered is %q", field, lines[0].Str(field), remembered.Str(field))
			}
		}
		return lines[0]
	case record.Times == 1:
		t.Errorf("the first refusal %q, %s, has no log line", message, id)
	}
	return remembered
}

// Refusal waits until the running Caddy has reported the refusal with this error id, and
// returns it.
func Refusal(t *testing.T, id string) refusals.Record {
	t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if record, found := running(t).Refusal(id); found {
			return record
		}
	}
	t.Fatalf("the refusal %s is not remembered within %v", id, Patience)
	return refusals.Record{}
}

// WaitForRefusals waits until the running Caddy remembers n refusals in any realm that
// match, and returns them with the names of the log's fields, the oldest first. Unlike
// their log lines, they are not folded.
func WaitForRefusals(t *testing.T, n int, match func(LogEntry) bool) []LogEntry {
	t.Helper()
	var found []LogEntry
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		found = nil
		for _, record := range slices.Backward(running(t).ListRefusals("", refusals.Query{})) {
			if entry := entryOf(t, record); match(entry) {
				found = append(found, entry)
			}
		}
		if len(found) >= n {
			return found
		}
	}
	t.Fatalf("%d refusals are remembered within %v, want %d", len(found), Patience, n)
	return nil
}

// running returns what can be observed of the running Caddy. The rig does not import the
// plugin's app.
func running(t *testing.T) *observed.App {
	t.Helper()
	app, err := caddy.ActiveContext().AppIfConfigured("mtls")
	if err != nil {
		t.Fatal(err)
	}
	return app.(interface{ Observed() *observed.App }).Observed()
}

// entryOf returns a refusal with the names of the log's fields.
func entryOf(t *testing.T, record refusals.Record) LogEntry {
	t.Helper()
	fields := struct {
		refusals.Record
		*refusals.Certificate
		Message string `json:"msg"`
		Level   string `json:"level"`
		Logger  string `json:"logger"`
	}{record, record.Certificate, record.Message, "warn", "mtls"}
	if record.Failed {
		fields.Level = "error"
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	entry := LogEntry{}
	if err := json.Unmarshal(text, &entry); err != nil {
		t.Fatal(err)
	}
	return entry
}
