package directory

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// badEntries are records that are wrong, each at line 2.
var badEntries = map[string]struct {
	entry clients.Entry
	want  string
}{
	"no object":        {clients.Entry{Record: []byte(`["b"]`)}, "line 2: "},
	"nothing":          {clients.Entry{Record: []byte{}}, "line 2: "},
	"no record":        {clients.Entry{ID: "b"}, "line 2: client 'b': there is no record"},
	"garbage":          {clients.Entry{Record: []byte("\x00\xff\x1b[31m{")}, "line 2: "},
	"cut off":          {clients.Entry{Record: []byte(`{"client_id":"b","x509_thumb`)}, "line 2: client 'b': "},
	"NUL":              {clients.Entry{Record: []byte(`{"client_id":"b\u0000","x509_thumbprints":"` + sha256Hex + `"}`)}, "line 2: "},
	"lone surrogate":   {clients.Entry{Record: []byte(`{"client_id":"b","client_name":"\ud800","x509_thumbprints":"` + sha256Hex + `"}`)}, "line 2: client 'b': "},
	"no credential":    {clients.Entry{Record: []byte(`{"client_id":"b"}`)}, "line 2: client 'b': no credential"},
	"no client_id":     {clients.Entry{Record: []byte(`{"x509_thumbprints":"` + sha256Hex + `"}`)}, "line 2: client_id is empty"},
	"another ID":       {clients.Entry{ID: "b", Record: []byte(`{"client_id":"c","x509_thumbprints":"` + sha256Hex + `"}`)}, "line 2: client 'b': the record has the client_id 'c'"},
	"too large":        {clients.Entry{Record: []byte(`{"client_id":"b","client_name":"` + strings.Repeat("x", clients.MaxRecordBytes) + `"}`)}, "line 2: client 'b': the record has 65570 bytes; at most 65536 are allowed"},
	"said to be wrong": {clients.Entry{ID: "b", Wrong: errors.New("no JSON object")}, "line 2: client 'b': no JSON object"},
	"a file":           {clients.Entry{Record: []byte(`{"client_id":"b","jwks_file":"/etc/passwd"}`)}, "line 2: client 'b': jwks '/etc/passwd': records of this source must not name files"},
	"checked":          {clients.Entry{Record: []byte(`{"client_id":"b","scope":"bad","x509_thumbprints":"` + sha256Hex + `"}`)}, "line 2: client 'b': scope 'bad'"},
	"a second record":  {entriesOf(pinned("a"))[0], "line 2: client 'a' is twice in guest; keep one"},
	"a credential twice": {
		entriesOf(clients.Record{ClientID: "b", Thumbprints: pinned("a").Thumbprints})[0], "line 2: client 'b': thumbprint '",
	},
}

func checkScopes(c *clients.Client) error {
	if c.HasScope("bad") {
		return fmt.Errorf("client '%s': scope 'bad'", c.ID)
	}
	return nil
}

// TestBadRecords: an update with one record that is wrong changes nothing, and the error
// says where the record is. With SkipBad, the rest is in force, and what the source had
// under the client_id stays.
func TestBadRecords_C5(t *testing.T) {
	for name, test := range badEntries {
		test.entry.Place = "line 2"
		for _, skip := range []bool{false, true} {
			t.Run(fmt.Sprint(name, skip), func(t *testing.T) {
				w := newWorld(t)
				w.config.Check = checkScopes
				guest := newGuest("guest", pinned("a"), pinned("b"), pinned("z"))
				guest.SkipBad = skip
				w.config.Sources = []clients.Source{guest}
				w.mustLoad()
				sink, before := w.watch(guest), w.Registry()
				records := []clients.Entry{entriesOf(pinned("a"))[0], test.entry, entriesOf(pinned("new"))[0]}
				for range 2 {
					err := sink.Replace(t.Context(), all(records, nil))
					switch {
					case skip && err != nil:
						t.Error(err)
					case skip:
						if got := w.ids(); got != "a b new" && got != "a new" || w.Registry().Client("a") != before.Client("a") {
							t.Errorf("clients %s", got)
						}
						if keeps := w.Registry().Client("b"); strings.Contains(test.want, "client 'b'") && keeps != before.Client("b") {
							t.Errorf("b is %v", keeps)
						}
					case err == nil || !strings.HasPrefix(err.Error(), test.want) || w.Registry() != before:
						t.Errorf("%v, want %q; clients %s", err, test.want, w.ids())
					}
				}
				w.mu.Lock()
				lines := 0
				for _, line := range w.said { // once
					if strings.Contains(line, test.want) && (strings.HasPrefix(line, "skipped: ") || strings.HasPrefix(line, "clients:guest, guest: ")) {
						lines++
					}
					if strings.ContainsAny(line, "\x00\x1b\ufffd") || len(line) > 2*maxPlaceText {
						t.Errorf("line %q", line)
					}
				}
				if lines != 1 {
					t.Errorf("said %q", w.said)
				}
				w.mu.Unlock()
				if sizes := w.Sizes()[1]; skip && sizes.Refused != 1 {
					t.Errorf("%+v", sizes)
				}
				if name == "no record" {
					return // in an update, it is removed
				}
				// the same in a partial update
				before = w.Registry()
				entry := test.entry
				if name == "a second record" {
					return
				}
				err := sink.Update(t.Context(), []clients.Entry{entry, entriesOf(pinned("newer"))[0]})
				if skip && (err != nil || w.Registry().Client("newer") == nil) || !skip && (err == nil || w.Registry() != before) {
					t.Errorf("%v; clients %s", err, w.ids())
				}
			})
		}
	}
}

// TestAllRecordsAreWrong: they are something else then, and nothing is removed.
func TestAllRecordsAreWrong(t *testing.T) {
	w := newWorld(t)
	guest := newGuest("guest", pinned("a"))
	guest.SkipBad = true
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	err := w.watch(guest).Replace(t.Context(), all([]clients.Entry{{Record: []byte("<html>"), Place: "line 1"}, {Record: []byte("</html>")}}, nil))
	if err == nil || !strings.HasPrefix(err.Error(), "all 2 records are wrong; the first: line 1: ") {
		t.Error(err)
	}
	w.wantClients("a")
}

// TestSkippedRecordKeepsTheOldOne: a new record that has what the old one of a wrong
// record keeps is wrong, too.
func TestSkippedRecordKeepsTheOldOne(t *testing.T) {
	w := newWorld(t)
	one, two, three := pinned("1").Thumbprints, pinned("2").Thumbprints, pinned("3").Thumbprints
	guest := newGuest("guest", clients.Record{ClientID: "a", Thumbprints: one}, clients.Record{ClientID: "b", Thumbprints: two}, clients.Record{ClientID: "c", Thumbprints: three})
	guest.SkipBad = true
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	before := w.Registry()
	// b takes what a had, and a what c still has
	err := w.watch(guest).Replace(t.Context(), all(entriesOf(
		clients.Record{ClientID: "b", Thumbprints: one}, clients.Record{ClientID: "a", Thumbprints: three}, clients.Record{ClientID: "c", Thumbprints: three},
	), nil))
	if err != nil {
		t.Error(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if w.Registry().Client(id) != before.Client(id) {
			t.Errorf("%s has changed", id)
		}
	}
	w.saw("skipped: a of clients:guest: line 2", "skipped: b of clients:guest: line 1")
}

// TestUnchangedRecords: a record with the same text keeps its client, with whatever has
// been prepared for it, and an update that changes nothing makes no registry.
func TestUnchangedRecords(t *testing.T) {
	w := newWorld(t)
	guest := newGuest("guest", pinned("a"), pinned("b"))
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	sink, before := w.watch(guest), w.Registry()
	if err := sink.Replace(t.Context(), all(guest.entries, nil)); err != nil || w.Registry() != before || w.uses != 0 {
		t.Errorf("%v, %d uses", err, w.uses)
	}
	spaced := []byte(strings.Replace(string(guest.entries[0].Record), ",", " , ", 1))
	entries := append([]clients.Entry{{Record: spaced}}, entriesOf(clients.Record{ClientID: "b", SubjectDN: clients.Strings{"CN=b"}})...)
	if err := sink.Replace(t.Context(), all(entries, nil)); err != nil {
		t.Error(err)
	}
	if after := w.Registry(); after.Client("a") != before.Client("a") || after.Client("b") == before.Client("b") || w.uses != 1 {
		t.Error("the wrong client was made anew")
	}
	// the last record of a client counts, and one that is removed may come back
	err := sink.Update(t.Context(), append(append([]clients.Entry{{ID: "a"}}, entriesOf(pinned("a"), pinned("c"))...), clients.Entry{ID: "c"}, clients.Entry{ID: "unknown"}))
	if err != nil || w.ids() != "a b" {
		t.Errorf("%v, %s", err, w.ids())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sink.Update(ended, []clients.Entry{{ID: "a"}}); err == nil || w.ids() != "a b" {
		t.Errorf("after the end: %v, %s", err, w.ids())
	}
}

// TestSourcesChangeAtOnce: readers see what each update leaves as a whole.
func TestSourcesChangeAtOnce(t *testing.T) {
	w := newWorld(t)
	w.config.Use, w.config.Logger = nil, nil
	var guests []*guestSource
	for i := range 4 {
		guests = append(guests, newGuest(fmt.Sprint("guest", i), pinned(fmt.Sprint("a", i)), pinned(fmt.Sprint("b", i)), pinned("shared")))
		w.config.Sources = append(w.config.Sources, guests[i])
	}
	w.mustLoad()
	w.Directory.Watch(t.Context())
	done := make(chan struct{})
	var writers, readers sync.WaitGroup
	for i, guest := range guests {
		sink := <-guest.sink
		writers.Go(func() {
			a, b, shared := fmt.Sprint("a", i), fmt.Sprint("b", i), entriesOf(pinned("shared"))[0]
			for range 100 {
				for _, err := range []error{
					sink.Update(t.Context(), []clients.Entry{{ID: a}, {ID: b}, {ID: "shared"}}),
					sink.Update(t.Context(), append(entriesOf(pinned(a), pinned(b)), shared)),
					sink.Replace(t.Context(), all(guest.entries, nil)),
				} {
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for i := range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				r := w.Registry()
				if a, b := r.Client(fmt.Sprint("a", i)), r.Client(fmt.Sprint("b", i)); (a == nil) != (b == nil) {
					t.Error("half of an update")
				}
				w.Sizes()
				w.States(10)
				for range w.Waiting("") {
				}
				w.Poll(t.Context())
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if got := w.ids(); got != "a0 a1 a2 a3 b0 b1 b2 b3 shared" || w.Registry().Client("shared").Source() != "guest0" {
		t.Errorf("clients %s", got)
	}
	if len(w.waiting.waiters) != 1 || w.waiting.list().tree.Len() != 3 {
		t.Errorf("%d holders, %d waiting", len(w.waiting.waiters), w.waiting.list().tree.Len())
	}
}

// TestMoreClientsThanMemory: they are refused before the memory limit is reached, and
// what was in force stays.
func TestMoreClientsThanMemory(t *testing.T) {
	w := newWorld(t)
	guest := newGuest("guest", pinned("a"))
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	sink := w.watch(guest)
	used, _ := heapUse()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(int64(used + 32<<20)))
	taken := 0
	endless := func(yield func(clients.Entry, error) bool) {
		for ; taken < math.MaxInt32; taken++ {
			id := fmt.Sprint("client-", taken)
			if !yield(clients.Entry{ID: id, Record: entriesOf(pinned(id))[0].Record}, nil) {
				return
			}
		}
	}
	err := sink.Replace(t.Context(), endless)
	if err == nil || !strings.Contains(err.Error(), "of the memory limit of") {
		t.Error(err)
	}
	w.wantClients("a")
	// what was refused is garbage, and does not count
	if err := sink.Update(t.Context(), entriesOf(pinned("b"))); err != nil {
		t.Error(err)
	}
	w.wantClients("a b")
}

// TestChangeWithoutMemory: one source, or anything else, that has used up the memory does
// not keep the operator from disabling and removing clients.
func TestChangeWithoutMemory(t *testing.T) {
	w := newWorld(t)
	guest := newGuest("guest", pinned("a"), pinned("b"))
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	sink := w.watch(guest)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1))
	off := pinned("a")
	off.Disabled = true
	if err := sink.Update(t.Context(), append(entriesOf(off), clients.Entry{ID: "b"})); err != nil {
		t.Error(err)
	}
	w.wantClients("a")
	if !w.Registry().Client("a").Disabled {
		t.Error("the client is still enabled")
	}
	if err := sink.Update(t.Context(), entriesOf(pinned("c"))); err == nil || !strings.Contains(err.Error(), "of the memory limit of") {
		t.Errorf("one more client: %v", err)
	}
	off.ClientName = strings.Repeat("x", maxGrowth)
	if err := sink.Update(t.Context(), entriesOf(off)); err == nil {
		t.Error("a larger client")
	}
}

// TestSourceThatHangs: the start waits no longer than the timeout of the source says,
// also for one that ignores its context. The clients of the running configuration are
// taken over.
func TestSourceThatHangs(t *testing.T) {
	w := newWorld(t)
	hanging := newGuest("guest")
	hanging.LoadTimeout = time.Nanosecond
	hanging.hangs = make(chan struct{})
	defer close(hanging.hangs)
	w.config.Sources = []clients.Source{hanging}
	if err := w.load(); !errors.Is(err, clients.ErrUnavailable) || err.Error() != "clients from guest: source is unavailable: it was not loaded within 1ns" {
		t.Error(err)
	}
	guest := newGuest("guest", pinned("a"), pinned("b"))
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	w.config.Before, w.said = w.Directory, nil
	read := w.state("clients:guest").Success
	if w.now = w.now.Add(time.Hour); read.IsZero() || w.state("clients:guest").Copy != "" {
		t.Errorf("%+v", w.state("clients:guest"))
	}
	guest.fail = fmt.Errorf("connecting: %w", clients.ErrUnavailable)
	w.mustLoad()
	w.wantClients("a b")
	w.saw("erroring: client source unavailable; keeping clients of the running configuration")
	if state := w.state("clients:guest"); state.Failure == "" || !state.Success.IsZero() || state.Copy != CopyRunning || !state.CopyTime.Equal(read) {
		t.Errorf("%+v", state)
	}
	// also in the next configuration, it is known from when they are
	w.config.Before = w.Directory
	w.mustLoad()
	w.saw("erroring: client source unavailable; keeping clients of the running configuration")
	if state := w.state("clients:guest"); state.Copy != CopyRunning || !state.CopyTime.Equal(read) {
		t.Errorf("%+v", state)
	}
	// it is back
	sink := w.watch(guest)
	if err := sink.Replace(t.Context(), all(entriesOf(pinned("a")), nil)); err != nil {
		t.Error(err)
	}
	w.wantClients("a")
	w.saw("clients:guest, guest: <nil>")
	if state := w.state("clients:guest"); state.Copy != "" || !state.CopyTime.IsZero() || state.Success.IsZero() {
		t.Errorf("%+v", state)
	}
	// another failure is not that the source is unavailable
	guest.fail = errors.New("wrong password")
	if err := w.load(); err == nil || err.Error() != "clients from guest: wrong password" {
		t.Error(err)
	}
}

// TestCheckRecord: a record is checked as an update would, and nothing changes.
func TestCheckRecord(t *testing.T) {
	w := newWorld(t)
	w.config.Records = []clients.Record{pinned("mine")}
	guest := newGuest("guest", pinned("a"), pinned("b"))
	w.config.Sources, w.config.Check = []clients.Source{guest}, checkScopes
	w.mustLoad()
	before := w.Registry()
	for want, record := range map[string]clients.Record{
		"":                               {ClientID: "a", SubjectDN: clients.Strings{"CN=a"}},
		"client 'a': no credential":      {ClientID: "a"},
		"client 'a': scope 'bad'":        {ClientID: "a", Scope: "bad", SubjectDN: clients.Strings{"CN=a"}},
		"client 'a': thumbprint '":       {ClientID: "a", Thumbprints: pinned("b").Thumbprints},
		"client 'new': thumbprint '":     {ClientID: "new", Thumbprints: pinned("mine").Thumbprints},
		"client 'mine' is in config and": {ClientID: "mine", SubjectDN: clients.Strings{"CN=a"}},
	} {
		err := w.CheckRecord("guest", record.ClientID, entriesOf(record)[0].Record)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := w.CheckRecord("guest", "x", entriesOf(pinned("a"))[0].Record); err == nil {
		t.Error("another client_id")
	}
	if err := w.CheckRecord("guest", "a", nil); err != nil {
		t.Error(err) // it is removed
	}
	if err := w.CheckRecord("nowhere", "a", nil); err == nil {
		t.Error("an unknown source")
	}
	if _, ok := w.Writer(); ok || w.Registry() != before {
		t.Error("something has changed, or can be written")
	}
}
