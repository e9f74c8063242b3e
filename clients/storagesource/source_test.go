package storagesource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// TestNodesShareClients: what one node changes is in force there at once, and on the
// others when they look.
func TestNodesShareClients(t *testing.T) {
	folder := t.TempDir()
	a, b := start(t, folder), start(t, folder)
	a.has()
	for _, step := range []struct {
		id, name string
		want     []string
	}{
		{"one", "1", []string{"one=1"}},
		{"two", "2", []string{"one=1", "two=2"}},
		{"one", "changed", []string{"one=changed", "two=2"}},
		{"two", "", []string{"one=changed"}},
		{"none", "", []string{"one=changed"}},
		{"one", "", nil},
	} {
		a.must(step.id, step.name)
		a.has(step.want...)
		b.look()
		b.has(step.want...)
		b.notes("")
		start(t, folder).has(step.want...)
	}
	for _, update := range append(a.sink.updates, b.sink.updates...) {
		if len(update) != 1 {
			t.Errorf("%d records for one change", len(update))
		}
	}
	if objects := contents(t, folder); len(objects) != 1 {
		t.Errorf("replaced objects are left: %q", objects)
	}
}

func TestEmptyStorageIsNoClients(t *testing.T) {
	folder := t.TempDir()
	n := start(t, folder)
	n.look()
	n.has()
	n.notes("")
	if entries, _ := os.ReadDir(folder); len(entries) > 0 {
		t.Errorf("reading has written %q", entries)
	}
}

// TestRecordsAreLines: an operator can read a shard with an editor. Nothing is stored
// if nothing changes.
func TestRecordsAreLines(t *testing.T) {
	folder := t.TempDir()
	n := start(t, folder)
	pretty := "{\n  \"client_name\": \"A <b> \\u2028\",\n  \"client_id\": \"one\"\n}"
	want := `{"client_name":"A <b> \u2028","client_id":"one"}`
	put := func(text string) error {
		return n.Change(t.Context(), "one", func(current []byte) ([]byte, error) {
			if len(n.sink.updates) > 0 && string(current) != want {
				t.Errorf("current is %q", current)
			}
			return []byte(text), nil
		})
	}
	for range 2 {
		if err := put(pretty); err != nil {
			t.Fatal(err)
		}
	}
	if text := contents(t, folder)[objectOf(t, folder, "one")]; text != want+"\n" {
		t.Errorf("stored is %q", text)
	}
	if got := n.storage.Count("store"); got != 3 {
		t.Errorf("%d objects have been stored", got)
	}
	for text, wrong := range map[string]string{
		record("two", "x"):                      "has client_id 'two'; make them the same",
		`{"client_name":"x"}`:                   "not a JSON object whose client_id is a string",
		`{"client_id":1}`:                       "not a JSON object whose client_id is a string",
		`{"client_id":null}`:                    "not a JSON object whose client_id is a string",
		`{"client_id":"one","a":`:               "not JSON",
		`[]`:                                    "not a JSON object whose client_id is a string",
		`null`:                                  "not a JSON object whose client_id is a string",
		`{"client_id":"one"} {}`:                "not JSON",
		``:                                      "not JSON",
		`{"claims":{},"client_id":"a b"}`:       `client_id "a b" contains ' '`,
		strings.Repeat(" ", 65537):              "has 65537 bytes; at most 65536",
		`{"client_id":"one","client_id":"two"}`: "duplicate member",
	} {
		err := put(text)
		checkError(t, err, wrong)
		if !errors.Is(err, clients.ErrBadRecord) {
			t.Errorf("%v is not ErrBadRecord", err)
		}
	}
	if got := n.storage.Count("store"); got != 3 {
		t.Errorf("%d objects have been stored", got)
	}
}

// TestErrorOfDecideIsReturned: as it is, and nothing is stored.
func TestErrorOfDecideIsReturned(t *testing.T) {
	folder := t.TempDir()
	n := start(t, folder)
	conflict := errors.New("the ETag differs")
	if err := n.Change(t.Context(), "one", func([]byte) ([]byte, error) { return nil, conflict }); err != conflict {
		t.Error(err)
	}
	checkError(t, n.Change(t.Context(), "a b", nil), `client_id "a b" contains ' '`)
	if n.storage.Count("store") > 0 {
		t.Error("something has been stored")
	}
	n.must("one", "1")
}

// TestDecideKnowsOtherNodes: before a record is decided about, what other nodes have
// changed is in force, so that one credential cannot get to two clients.
func TestDecideKnowsOtherNodes(t *testing.T) {
	folder := t.TempDir()
	a, b := start(t, folder), start(t, folder)
	a.must("one", "1")
	err := b.Change(t.Context(), "two", func([]byte) ([]byte, error) {
		b.has("one=1")
		return []byte(record("two", "2")), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.has("one=1", "two=2")
}

// TestChangesAreHandedOverAlone checks that of a shard with many records only those are
// handed over that differ.
func TestChangesAreHandedOverAlone(t *testing.T) {
	folder := t.TempDir()
	var ids []string // of one shard
	for i := 0; len(ids) < 6; i++ {
		if id := fmt.Sprint("client-", i); shardOf(id) == "0a3" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	a, b := start(t, folder), start(t, folder)
	for _, id := range ids[1:5] {
		a.must(id, "x")
	}
	b.look()
	b.sink.updates = nil
	a.must(ids[0], "first")
	a.must(ids[2], "")
	a.must(ids[3], "y")
	a.must(ids[5], "last")
	b.look()
	if len(b.sink.updates) != 1 {
		t.Fatalf("%d updates", len(b.sink.updates))
	}
	var got []string
	for _, e := range b.sink.updates[0] {
		got = append(got, e.ID)
	}
	if want := []string{ids[0], ids[2], ids[3], ids[5]}; !slices.Equal(got, want) {
		t.Errorf("handed over are %q, want %q", got, want)
	}
	b.has(ids[0]+"=first", ids[1]+"=x", ids[3]+"=y", ids[4]+"=x", ids[5]+"=last")
	b.storage.Forget()
	b.look()
	if got := b.storage.Count("load"); got != 1 {
		t.Errorf("%d objects are read although nothing has changed", got)
	}
	a.storage.Forget()
	a.look()
	if got := a.storage.Count("load"); got != 1 {
		t.Errorf("%d objects are read after an own change", got)
	}
}

// TestRefusedUpdateIsHandedOverAgain: together with what has changed since then, and
// after a while. An own change does not wait for it.
func TestRefusedUpdateIsHandedOverAgain(t *testing.T) {
	folder := t.TempDir()
	a, b := start(t, folder), start(t, folder)
	wrong := errors.New("conflict")
	b.sink.refuse = func(records map[string]string) error {
		if strings.Contains(records["bad"], "wrong") {
			return wrong
		}
		return nil
	}
	a.must("bad", "wrong")
	a.must("one", "1")
	b.look()
	b.has()
	a.must("two", "2")
	b.look()
	b.has()
	b.must("own", "mine")
	b.has("own=mine")
	a.look()
	a.must("bad", "right")
	b.look()
	b.has("bad=right", "one=1", "own=mine", "two=2")

	a.must("bad", "wrong again")
	b.look()
	b.sink.refuse = nil
	b.look()
	b.has("bad=right", "one=1", "own=mine", "two=2")
	b.clock.Advance(retryInterval)
	b.look()
	b.has("bad=wrong again", "one=1", "own=mine", "two=2")
}

// TestInterruptedUpdateIsHandedOverAgain: at once, because the records are not what was
// wrong.
func TestInterruptedUpdateIsHandedOverAgain(t *testing.T) {
	folder := t.TempDir()
	a, b := start(t, folder), start(t, folder)
	a.must("one", "1")
	ctx, cancel := context.WithCancel(t.Context())
	b.sink.refuse = func(map[string]string) error {
		cancel()
		return ctx.Err()
	}
	b.poll(ctx, b.sink)
	b.has()
	b.sink.refuse = nil
	b.look()
	b.has("one=1")
	b.notes("")
}

// TestRefusedOwnChange: the error says that the record has been stored.
func TestRefusedOwnChange(t *testing.T) {
	n := start(t, t.TempDir())
	wrong := errors.New("conflict")
	n.sink.refuse = func(map[string]string) error { return wrong }
	err := n.set("one", "1")
	checkError(t, err, "has been stored, but is not in force: conflict")
	checkStored(t, err, true)
	if !errors.Is(err, wrong) {
		t.Error("the error of the sink is lost")
	}
}

// TestUnavailableAtStart: a source that cannot be reached says so, and hands over
// everything as soon as it can.
func TestUnavailableAtStart(t *testing.T) {
	folder := t.TempDir()
	start(t, folder).must("one", "1")
	n := newNode(t, testenv.NewStorage(folder), false)
	n.storage.OnLoad = func(context.Context, string) error { return errors.New("no route to host") }
	n.sink.records = map[string]string{"gone": record("gone", "x")} // taken over
	err := n.Load(t.Context(), n.sink)
	unavailable(t, err)
	checkError(t, err, "reading 'mtls/partners/clients/index.json' in storage: no route to host")
	unavailable(t, n.set("two", "2"))
	n.look()
	n.notes("no route to host")
	n.has("gone=x")
	n.storage.OnLoad = nil
	n.look()
	n.notes("")
	n.has("one=1")
}

// TestLoadEndsWithItsContext: even if storage never answers.
func TestLoadEndsWithItsContext(t *testing.T) {
	folder := t.TempDir()
	start(t, folder).must("one", "1")
	for name, hangs := range map[string]string{"index": indexName, "shard": ".jsonl"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, testenv.NewStorage(folder), false)
				mended := make(chan struct{})
				n.storage.OnLoad = func(_ context.Context, key string) error {
					if strings.HasSuffix(key, hangs) {
						<-mended
					}
					return nil
				}
				began := time.Now()
				err := n.Load(t.Context(), n.sink)
				unavailable(t, err)
				checkError(t, err, "storage does not answer")
				if took := time.Since(began); took > readTimeout {
					t.Errorf("it took %s", took)
				}
				for range 100 { // must not start ever more goroutines
					n.look()
				}
				if n := n.storage.Count("load"); n > 2*parallelReads {
					t.Errorf("%d reads hang", n)
				}
				close(mended)
				synctest.Wait()
			})
		})
	}
}

// TestChangeIsInForceWithin10s: on another node, even if each call of storage takes a
// second.
func TestChangeIsInForceWithin10s(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b := start(t, folder), start(t, folder)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		slow := func(context.Context, string) error { time.Sleep(time.Second); return nil }
		for _, n := range []*node{a, b} {
			n.storage.OnLoad, n.storage.OnStore, n.storage.OnDelete, n.storage.OnLock, n.storage.OnUnlock = slow, slow, slow, slow, slow
			go n.Watch(ctx, n.sink)
		}
		var longest time.Duration
		for i := range 40 {
			name, began := fmt.Sprint(i), time.Now()
			a.must("one", name)
			changed := time.Now()
			if took := changed.Sub(began); took < 3*time.Second { // to lock, to read and to store
				t.Errorf("storage is not slow: a change was stored in %s", took)
			}
			a.has("one=" + name)
			for {
				if records, _ := b.sink.get(); records["one"] == record("one", name) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			longest = max(longest, time.Since(changed))
			time.Sleep(time.Duration(i) * 97 * time.Millisecond)
		}
		if longest > 10*time.Second {
			t.Errorf("a change took %s", longest)
		}
		cancel()
		time.Sleep(time.Minute) // until what is under way has ended
	})
}

// TestObjectVanishesWhileItIsRead: a node that has the index of before a change reads it
// again.
func TestObjectVanishesWhileItIsRead(t *testing.T) {
	folder := t.TempDir()
	writer := start(t, folder)
	writer.must("one", "1")
	writer.must("two", "2")
	reader := start(t, folder)
	writer.must("one", "3")
	for name, read := range map[string]func(n *node){
		"load": func(n *node) { n.load("") },
		"poll": func(n *node) { n.load(""); n.look() },
	} {
		n := reader
		if name == "load" {
			n = newNode(t, testenv.NewStorage(folder), false)
		}
		var reading sync.Mutex
		changes := 0
		n.storage.OnLoad = func(_ context.Context, key string) error {
			reading.Lock()
			defer reading.Unlock()
			if changes < 2 && filepath.Base(key) == objectOf(t, folder, "one") {
				changes++
				writer.must("one", fmt.Sprint(name, changes))
			}
			return nil
		}
		read(n)
		n.has("one="+name+"2", "two=2")
		n.notes("")
	}
}

// TestFirstClientIsStoredMeanwhile: a node that has found no index, and then shards,
// looks again.
func TestFirstClientIsStoredMeanwhile(t *testing.T) {
	folder := t.TempDir()
	writer, n := start(t, folder), newNode(t, testenv.NewStorage(folder), false)
	n.storage.OnList = func(context.Context, string) error {
		n.storage.OnList = nil
		writer.must("one", "1")
		return nil
	}
	n.load("")
	n.has("one=1")
}

// TestFill: many records at once are what single changes would have stored.
func TestFill(t *testing.T) {
	folders := [2]string{t.TempDir(), t.TempDir()}
	n := start(t, folders[0])
	all := func(yield func(clients.Entry, error) bool) {
		for i := range 50 {
			id := fmt.Sprint("client-", i)
			n.must(id, "x")
			if !yield(clients.Entry{Record: []byte(record(id, "x"))}, nil) {
				return
			}
		}
	}
	storage := testenv.NewStorage(folders[1])
	if err := Fill(t.Context(), storage, "partners", all); err != nil {
		t.Fatal(err)
	}
	filled := start(t, folders[1])
	if want, _ := n.sink.get(); !maps.Equal(filled.sink.records, want) {
		t.Errorf("it has %q, want %q", filled.sink.records, want)
	}
	filled.must("client-7", "changed")
	checkError(t, Fill(t.Context(), storage, "partners", all), "exists; change its clients one by one")
}
