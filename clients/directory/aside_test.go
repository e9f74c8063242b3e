package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// meddled is a context that calls a function each time records begin to be indexed while
// others may change clients.
type meddled struct {
	context.Context
	d      *Directory
	meddle func(*Directory)
	last   *concurrent
}

// Err implements [context.Context]. It is called by [context.Cause].
func (m *meddled) Err() error {
	if m.d.concurrent != nil && m.d.concurrent != m.last {
		m.last = m.d.concurrent
		m.meddle(m.d)
	}
	return m.Context.Err()
}

// TestChangesDuringReplace: while all records of a source are put in force, clients of
// other sources change at once. Afterwards, everything is as if it had come one after the
// other.
func TestChangesDuringReplace(t *testing.T) {
	high := []clients.Record{pinned("a"), pinned("held"), {ClientID: "wild", SANDNS: clients.Strings{"*.example.com"}}}
	before := []clients.Record{pinned("old"), pinned("changes"), pinned("stays"), {ClientID: "held", SubjectDN: clients.Strings{"CN=held"}}}
	after := append(slices.Clone(before[2:]), clients.Record{ClientID: "changes", SubjectDN: clients.Strings{"CN=changes"}}, pinned("new"),
		clients.Record{ClientID: "name", SANDNS: clients.Strings{"x.example.com"}})
	low := []clients.Record{{ClientID: "lowest", SubjectDN: clients.Strings{"CN=lowest"}}, pinned("other")}
	for name, c := range map[string]struct {
		high, low []clients.Entry
		attempts  int
	}{
		"a client is disabled":             {high: entriesOf(clients.Record{ClientID: "a", SubjectDN: clients.Strings{"CN=a"}, Disabled: true}), attempts: 1},
		"a client is added":                {high: entriesOf(pinned("b")), low: entriesOf(pinned("c")), attempts: 1},
		"a client is removed":              {high: []clients.Entry{{ID: "a"}}, attempts: 1},
		"what a new one waits for goes":    {high: []clients.Entry{{ID: "wild"}}, attempts: 1},
		"what a new one waits for changes": {high: entriesOf(clients.Record{ClientID: "wild", SANDNS: clients.Strings{"*.example.net"}}), attempts: 1},
		"it stays in the way":              {high: entriesOf(clients.Record{ClientID: "wild", SANDNS: clients.Strings{"*.example.com"}, Disabled: true}), attempts: 1},
		"what an old one waits for goes":   {high: []clients.Entry{{ID: "held"}}, attempts: 2},
		"a new one is claimed":             {high: entriesOf(clients.Record{ClientID: "b", Thumbprints: pinned("new").Thumbprints}), attempts: 2},
		"an old one is claimed":            {high: entriesOf(pinned("stays")), attempts: 2},
		"a lower one has what is new":      {low: entriesOf(clients.Record{ClientID: "lower", SubjectDN: clients.Strings{"CN=changes"}}), attempts: 2},
		"a lower one is refused":           {low: entriesOf(pinned("stays")), attempts: 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first, second, third := newGuest("first", high...), newGuest("second", before...), newGuest("third", low...)
			w.config.Sources = []clients.Source{first, second, third}
			w.mustLoad()
			firstSink, thirdSink := w.sinkOf("first"), w.sinkOf("third")
			meddled := &meddled{Context: t.Context(), d: w.Directory}
			attempts := 0
			meddled.meddle = func(d *Directory) {
				attempts++
				for sink, entries := range map[clients.Sink][]clients.Entry{firstSink: c.high, thirdSink: c.low} {
					if err := sink.Update(t.Context(), entries); err != nil {
						t.Error(err)
					}
					for _, e := range entries {
						client := d.Registry().Client(e.ID)
						if (client != nil && client.HasRecord(e.Record)) != (e.Record != nil) && name != "a lower one is refused" {
							t.Errorf("%s is not in force at once", e.ID)
						}
					}
				}
			}
			if err := w.sinkOf("second").Replace(meddled, all(entriesOf(after...), nil)); err != nil {
				t.Error(err)
			}
			if attempts != c.attempts {
				t.Errorf("%d attempts, want %d", attempts, c.attempts)
			}
			// the same one after the other
			other := newWorld(t)
			first, second, third = newGuest("first", high...), newGuest("second", after...), newGuest("third", low...)
			other.config.Sources = []clients.Source{first, second, third}
			other.mustLoad()
			for name, entries := range map[string][]clients.Entry{"first": c.high, "third": c.low} {
				if err := other.sinkOf(name).Update(t.Context(), entries); err != nil {
					t.Error(err)
				}
			}
			if got, want := everything(w.Directory), everything(other.Directory); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			// the next change finds everything as it should be
			for _, w := range []*world{w, other} {
				if err := w.sinkOf("second").Replace(t.Context(), all(nil, nil)); err != nil {
					t.Error(err)
				}
			}
			if got, want := everything(w.Directory), everything(other.Directory); got != want {
				t.Errorf("without the source, got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// sinkOf returns the sink of a source.
func (w *world) sinkOf(name string) clients.Sink {
	i := slices.IndexFunc(w.sources, func(s *recordSource) bool { return s.name == name })
	return w.sources[i]
}

// everything describes the clients of a directory, in force or waiting.
func everything(d *Directory) string {
	var text strings.Builder
	for c := range d.Registry().From("") {
		fmt.Fprintln(&text, c.ID, c.Source(), c.Record())
	}
	for w := range d.Waiting("") {
		fmt.Fprintln(&text, w.ID, w.Source(), "waits for", w.Holder.ID, w.Holder.Source())
	}
	for _, s := range d.Sizes() {
		fmt.Fprintln(&text, s.Source, s.Clients, s.Refused)
	}
	return text.String()
}

// TestDocumentsDuringReplace: a JWK Set that changes while all records of a source are
// put in force counts for new clients as well.
func TestDocumentsDuringReplace(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(w.dir, "jwks.json")
	old, next := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	write := func(leaf *testpki.Leaf) {
		if err := os.WriteFile(file, testpki.JWKS(t, leaf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(old)
	first, second := newGuest("first", clients.Record{ClientID: "a", JWKSFile: file}), newGuest("second", pinned("b"))
	first.NamesFiles, second.NamesFiles = true, true
	w.config.Sources = []clients.Source{first, second}
	w.mustLoad()
	attempts := 0
	ctx := &meddled{Context: t.Context(), d: w.Directory, meddle: func(*Directory) {
		attempts++
		if attempts == 1 {
			write(next)
			w.poll(0)
		}
	}}
	if err := w.sinkOf("second").Replace(ctx, all(entriesOf(clients.Record{ClientID: "b", JWKSFile: file}), nil)); err != nil {
		t.Fatal(err)
	}
	if attempts != 2 {
		t.Errorf("%d attempts", attempts)
	}
	sum := sha256.Sum256(next.Cert.Raw)
	thumbprint := hex.EncodeToString(sum[:])
	for _, id := range []string{"a", "b"} {
		if listed := w.Registry().Listed(w.Registry().Client(id)); len(listed) != 1 || listed[0].Value != thumbprint {
			t.Errorf("client %s does not have the certificate that is in the file now", id)
		}
	}
}

// TestReplaceEnds: all records of a source get in force although others never stop
// changing what is in their way. What an attempt has skipped is counted once.
func TestReplaceEnds(t *testing.T) {
	w := newWorld(t)
	first, second := newGuest("first", pinned("a")), newGuest("second", pinned("b"))
	second.SkipBad = true
	w.config.Sources = []clients.Source{first, second}
	w.mustLoad()
	firstSink := w.sinkOf("first")
	attempts := 0
	ctx := &meddled{Context: t.Context(), d: w.Directory, meddle: func(*Directory) {
		attempts++
		claim := clients.Record{ClientID: fmt.Sprint("claim", attempts), SANDNS: clients.Strings{fmt.Sprintf("%d.example.com", attempts)}}
		if err := firstSink.Update(t.Context(), entriesOf(claim)); err != nil {
			t.Error(err)
		}
	}}
	records := entriesOf(
		clients.Record{ClientID: "x", SANDNS: clients.Strings{"1.example.com"}}, clients.Record{ClientID: "y", SANDNS: clients.Strings{"2.example.com"}},
		clients.Record{ClientID: "z", SANDNS: clients.Strings{"3.example.com"}}, pinned("twice"), pinned("twice"), pinned("new"))
	if err := w.sinkOf("second").Replace(ctx, all(records, nil)); err != nil {
		t.Fatal(err)
	}
	if attempts != asideAttempts || w.ids() != "a claim1 claim2 claim3 new twice" {
		t.Errorf("after %d attempts, clients %s", attempts, w.ids())
	}
	if sizes := w.Sizes(); sizes[2].Refused != 4 {
		t.Errorf("%+v", sizes[2])
	}
}
