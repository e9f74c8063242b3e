package clients

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestFilesThatAreBeingWritten: a file that is broken for a moment is not reported,
// and is not a failure.
func TestFilesThatAreBeingWritten(t *testing.T) {
	w := newWorld(t)
	w.records("a.json", pinned("a"))
	w.config.Polled = []PolledSource{NewFileSource(w.path("a.json"))}
	w.mustLoad()
	for _, part := range []string{"", "[", "[{", `[{"client_id":"b",`} {
		w.write("a.json", []byte(part))
		w.poll(source.QuietTime - time.Second)
		w.wantClients("a")
		if state := w.state("clients:a.json"); state.Failure != "" {
			t.Errorf("%+v", state)
		}
	}
	w.records("a.json", pinned("b"))
	w.poll(time.Second)
	w.wantClients("b")
	w.saw("clients:a.json, file:a.json: <nil>")
}

// TestFailuresAreReportedOnce: the end of a failure is reported too, even if nothing
// has changed.
func TestFailuresAreReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.records("a.json", pinned("a"))
		w.config.Polled = []PolledSource{NewFileSource(w.path("a.json"))}
		w.config.Records = []Record{{ClientID: "b", JWKSURI: urlB}}
		w.web[urlB] = testpki.JWKS(t, testpki.MustSelfSigned(t))
		w.mustLoad()
		w.poll(0)
		w.saw("jwks:b, " + urlB + ": <nil>")
		web := w.web
		w.web = nil
		if err := os.Rename(w.path("a.json"), w.path("away")); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			w.poll(time.Hour)
		}
		w.saw("jwks:b, "+urlB+": nothing there", "clients:a.json, file:a.json: stat")
		w.web = web
		if err := os.Rename(w.path("away"), w.path("a.json")); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			w.poll(time.Hour)
		}
		w.saw("clients:a.json, file:a.json: <nil>", "jwks:b, "+urlB+": <nil>")
		for _, state := range w.States(10) {
			if state.Failure != "" || !state.Success.Equal(w.now) {
				t.Errorf("%+v", state)
			}
		}
	})
}

// TestThreeFilesAtOnce: a change that depends on others gets in force after them,
// whatever the order.
func TestThreeFilesAtOnce(t *testing.T) {
	w := newWorld(t)
	moving := pinned("c")
	w.records("1.json", pinned("one"))
	w.records("2.json", pinned("two"), moving)
	w.records("3.json", pinned("three"))
	for _, name := range []string{"1.json", "2.json", "3.json"} {
		w.config.Polled = append(w.config.Polled, NewFileSource(w.path(name)))
	}
	w.mustLoad()
	w.now = w.now.Add(time.Minute)
	w.records("1.json", pinned("one"), moving)
	w.records("2.json", pinned("two"))
	w.records("3.json", pinned("three"), pinned("one")) // which is wrong
	w.Poll(t.Context())
	w.wantClients("c one three two")
	w.saw("clients:2.json, file:2.json: <nil>", "clients:1.json, file:1.json: <nil>", "clients:3.json, file:3.json: client 'one' is in")
}

// brokenSource is a source that panics when broken is set.
type brokenSource struct{ broken bool }

func (*brokenSource) Name() string { return "guest" }

func (s *brokenSource) Load(time.Time) ([]Record, bool, error) {
	if s.broken {
		panic("a bug")
	}
	return []Record{pinned("a")}, true, nil
}

// TestSourceThatPanics: a guest module that panics fails as a source, and ends
// neither the start nor the process.
func TestSourceThatPanics(t *testing.T) {
	w := newWorld(t)
	guest := &brokenSource{broken: true}
	w.config.Polled = []PolledSource{guest}
	if err := w.load(); err == nil || err.Error() != "clients from guest: guest panicked: a bug" {
		t.Error(err)
	}
	guest.broken = false
	w.mustLoad()
	w.said = nil
	guest.broken = true
	w.poll(time.Minute)
	w.poll(time.Minute)
	w.wantClients("a")
	w.saw("clients:guest, guest: guest panicked: a bug")
}
