package directory

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestFailuresAreReportedOnce: the end of a failure is reported too, even if nothing
// has changed.
func TestFailuresAreReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.records("a.json", pinned("a"))
		w.config.Sources = []clients.Source{w.file("a.json")}
		w.config.Records = []clients.Record{{ClientID: "b", JWKSURI: urlB}}
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
		w.saw("clients:a.json, file:a.json: open", "jwks:b, "+urlB+": nothing there")
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

// TestThreeFilesAtOnce: a client may move from one source to another, whichever is
// read first.
func TestThreeFilesAtOnce(t *testing.T) {
	w := newWorld(t)
	up, down := pinned("up"), pinned("down")
	w.records("1.json", pinned("one"), down)
	w.records("2.json", pinned("two"), up)
	w.records("3.json", pinned("three"))
	for _, name := range []string{"1.json", "2.json", "3.json"} {
		w.config.Sources = append(w.config.Sources, w.file(name))
	}
	w.mustLoad()
	w.wantClients("down one three two up")
	w.records("1.json", pinned("one"), up)
	w.records("2.json", pinned("two"))
	w.records("3.json", pinned("three"), down, pinned("one")) // which is of a higher rank
	w.poll(time.Minute)
	w.wantClients("down one three two up")
	w.saw("refused: up of clients:2.json", "clients:1.json, file:1.json: <nil>", "clients:2.json, file:2.json: <nil>",
		"refused: one of clients:3.json for one of file:1.json", "clients:3.json, file:3.json: <nil>")
}

// TestSourceThatPanics: a guest module that panics fails as a source, and ends
// neither the start nor the process.
func TestSourceThatPanics(t *testing.T) {
	w := newWorld(t)
	guest := newGuest("guest", pinned("a"))
	w.config.Sources = []clients.Source{guest}
	guest.panics = true
	if err := w.load(); err == nil || err.Error() != "clients from guest: guest panicked: a bug" {
		t.Error(err)
	}
	guest.panics = false
	w.mustLoad()
	sink := w.watch(guest)
	bug := func(func(clients.Entry, error) bool) { panic("a bug") }
	for range 2 {
		if err := sink.Replace(t.Context(), bug); err == nil {
			t.Error("no error")
		}
	}
	w.wantClients("a")
	w.saw("clients:guest, guest: guest panicked: a bug")

	// a Watch that panics, too
	w.mustLoad()
	guest.panics = true
	w.Directory.Watch(t.Context())
	w.waitFor("clients:guest, guest: guest panicked: a bug")
	w.wantClients("a")
}
