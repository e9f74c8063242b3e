package storagesource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// TestNoUpdateIsLost: however many nodes write, each change builds on the one before.
func TestNoUpdateIsLost(t *testing.T) {
	const ids = 3
	for name, test := range map[string]struct {
		nodes, writers, changes int
		wrap                    func(certmagic.Storage, chan struct{}) certmagic.Storage
	}{
		"file storage": {3, 2, 2, func(s certmagic.Storage, _ chan struct{}) certmagic.Storage { return s }},
		"test storage": {4, 4, 10, func(s certmagic.Storage, held chan struct{}) certmagic.Storage { return &fastLocks{s, held} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder, held := t.TempDir(), make(chan struct{}, 1)
			var nodes []*node
			var writing sync.WaitGroup
			for range test.nodes {
				n := newNode(t, &testenv.Storage{Storage: test.wrap(&certmagic.FileStorage{Path: folder}, held)}, false)
				n.load("")
				nodes = append(nodes, n)
				for range test.writers {
					writing.Go(func() {
						for i := range test.changes {
							if err := n.increment(fmt.Sprint("client-", i%ids)); err != nil {
								t.Error(err)
							}
							n.look()
						}
					})
				}
			}
			writing.Wait()
			total := 0
			for _, n := range nodes {
				n.look()
				if !maps.Equal(n.sink.records, nodes[0].sink.records) {
					t.Errorf("one node has %q, another %q", n.sink.records, nodes[0].sink.records)
				}
			}
			for _, text := range nodes[0].sink.records {
				total += counted(text)
			}
			if want := test.nodes * test.writers * test.changes; total != want {
				t.Errorf("%d changes of %d are left", total, want)
			}
		})
	}
}

// increment adds one to the number that is the name of a client.
func (n *node) increment(id string) error {
	return n.Change(context.Background(), id, func(current []byte) ([]byte, error) {
		return []byte(record(id, fmt.Sprint(counted(string(current))+1))), nil
	})
}

func counted(text string) int {
	_, name, _ := strings.Cut(text, `"client_name":"`)
	count, _ := strconv.Atoi(strings.TrimSuffix(name, `"}`))
	return count
}

// TestCrashWhileWriting: wherever a writer stops, storage has the state before or the
// state after, and the next writer goes on from there. What is left behind is deleted.
func TestCrashWhileWriting(t *testing.T) {
	crash := errors.New("killed")
	for _, first := range []bool{true, false} {
		for steps := range 6 {
			t.Run(fmt.Sprint(first, steps), func(t *testing.T) {
				folder := t.TempDir()
				before := ""
				if !first {
					start(t, folder).must("one", "before")
					before = "before"
				}
				n := newNode(t, &testenv.Storage{Storage: &fastLocks{&certmagic.FileStorage{Path: folder}, make(chan struct{}, 1)}}, false)
				n.load("")
				left := steps
				step := func(context.Context, string) error {
					if left--; left < 0 {
						return crash
					}
					return nil
				}
				n.storage.OnStore, n.storage.OnDelete = step, step
				err := n.set("one", "after")
				n.settle()
				next := start(t, folder)
				records, _ := next.sink.get()
				switch got := records["one"]; {
				case err == nil && got != record("one", "after"):
					t.Errorf("%q after the change", got)
				case err != nil && before == "" && got != "", err != nil && before != "" && got != record("one", before):
					t.Errorf("%q after '%v'", got, err)
				}
				next.must("one", "next")
				next.must("one", "last")
				start(t, folder).has("one=last")
				if objects := contents(t, folder); len(objects) != 2 {
					t.Errorf("what was left behind has not been deleted: %q", objects)
				}
			})
		}
	}
}

// TestLockIsTakenOver: a node that was stopped while it had the lock changes nothing
// when it goes on.
func TestLockIsTakenOver(t *testing.T) {
	folder := t.TempDir()
	stopped, other := newNode(t, &testenv.Storage{Storage: &fastLocks{&certmagic.FileStorage{Path: folder}, make(chan struct{}, 1)}}, false), start(t, folder)
	other.must("one", "1")
	stopped.load("")
	stopped.storage.OnStore = func(_ context.Context, key string) error {
		stopped.storage.OnStore = nil
		other.must("two", "2")
		return nil
	}
	err := stopped.set("one", "overwritten")
	unavailable(t, err)
	checkError(t, err, "another node has taken over the storage lock")
	start(t, folder).has("one=1", "two=2")
	stopped.must("one", "3")
	start(t, folder).has("one=3", "two=2")
}

// TestStorageFails: the change fails, is not in force, and the lock is released.
func TestStorageFails(t *testing.T) {
	failed := func(context.Context, string) error { return errors.New("disk full") }
	panics := func(context.Context, string) error { panic("a bug") }
	for name, test := range map[string]struct {
		fail func(*testenv.Storage)
		want string
	}{
		"lock":           {func(s *testenv.Storage) { s.OnLock = failed }, "locking 'mtls/partners/clients' in storage: disk full"},
		"load":           {func(s *testenv.Storage) { s.OnLoad = failed }, "reading 'mtls/partners/clients/index.json' in storage: disk full"},
		"store":          {func(s *testenv.Storage) { s.OnStore = failed }, "writing 'mtls/partners/clients/"},
		"panic of lock":  {func(s *testenv.Storage) { s.OnLock = panics }, "storage panicked: a bug"},
		"panic of load":  {func(s *testenv.Storage) { s.OnLoad = panics }, "storage panicked: a bug"},
		"panic of store": {func(s *testenv.Storage) { s.OnStore = panics }, "storage panicked: a bug"},
		"store index": {func(s *testenv.Storage) {
			s.OnStore = func(_ context.Context, key string) error {
				if filepath.Base(key) == indexName {
					return errors.New("disk full")
				}
				return nil
			}
		}, "disk full; the client may have been changed, so read it again"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			n := start(t, folder)
			n.must("one", "1")
			test.fail(n.storage)
			err := n.set("one", "2")
			n.settle()
			unavailable(t, err)
			checkError(t, err, test.want)
			checkStored(t, err, strings.Contains(test.want, "may have been changed"))
			n.has("one=1")
			n.storage.OnLock, n.storage.OnLoad, n.storage.OnStore = nil, nil, nil
			n.must("one", "3")
			start(t, folder).has("one=3")
		})
	}
}

// TestFailedUnlockAndDelete: the change counts nevertheless, and the log says what
// stops the others.
func TestFailedUnlockAndDelete(t *testing.T) {
	folder := t.TempDir()
	n := start(t, folder)
	n.must("one", "1")
	failed := func(context.Context, string) error { return errors.New("disk full") }
	n.storage.OnUnlock, n.storage.OnDelete = failed, failed
	n.must("one", "2")
	n.has("one=2")
	soon(t, "the failure is logged", func() bool {
		return n.logs.FilterMessage("releasing the lock of the stored clients failed").Len() == 1
	})
}

// TestCallerLeaves: a change whose caller no longer waits is not made, unless it is
// being made; and the lock is held until storage has answered.
func TestCallerLeaves(t *testing.T) {
	for name, test := range map[string]struct {
		hangs func(s *testenv.Storage, hang func(context.Context, string) error)
		want  string
		then  string
	}{
		"lock": {func(s *testenv.Storage, hang func(context.Context, string) error) { s.OnLock = hang }, "storage has not answered: ", "one=1"},
		"object": {func(s *testenv.Storage, hang func(context.Context, string) error) {
			s.OnStore = func(ctx context.Context, key string) error {
				if filepath.Base(key) != indexName {
					return hang(ctx, key)
				}
				return nil
			}
		}, "storage has not answered: ", "one=1"},
		"index": {func(s *testenv.Storage, hang func(context.Context, string) error) {
			s.OnStore = func(ctx context.Context, key string) error {
				if filepath.Base(key) == indexName {
					return hang(ctx, key)
				}
				return nil
			}
		}, "the client may have been changed, so read it again", "one=2"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				n := start(t, folder)
				n.must("one", "1")
				time.Sleep(time.Minute)
				answer := make(chan struct{})
				test.hangs(n.storage, func(context.Context, string) error { <-answer; return nil })
				n.storage.OnUnlock = func(ctx context.Context, _ string) error { return ctx.Err() }
				n.storage.Forget()

				began := time.Now()
				err := n.set("one", "2")
				unavailable(t, err)
				checkError(t, err, test.want)
				if stored := new(clients.StoredError); errors.As(err, &stored) != (name == "index") {
					t.Errorf("the error says whether it is stored: %v", err)
				}
				if took := time.Since(began); took != changeTimeout {
					t.Errorf("it took %s", took)
				}
				err = n.set("two", "2")
				unavailable(t, err)
				checkError(t, err, "another change has not ended")
				if n.storage.Count("unlock") > 0 {
					t.Error("the lock has been released before storage has answered")
				}

				close(answer)
				time.Sleep(time.Minute)
				if n.storage.Count("unlock") != 1 || n.logs.Len() > 0 {
					t.Error("the lock has not been released")
				}
				n.look()
				n.has(test.then)
				start(t, folder).has(test.then)
				n.must("two", "2")
				time.Sleep(time.Minute)
			})
		})
	}
}

// TestDecideIsNotCalledOnItsOwn: once the caller has left, decide is not called.
func TestDecideIsNotCalledOnItsOwn(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, folder)
		ctx, cancel := context.WithCancel(t.Context())
		n.storage.OnLock = func(context.Context, string) error {
			cancel()
			time.Sleep(time.Second)
			return nil
		}
		err := n.Change(ctx, "one", func([]byte) ([]byte, error) {
			t.Error("decide is called")
			return nil, nil
		})
		unavailable(t, err)
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if n.storage.Count("unlock") != 1 {
			t.Error("the lock has not been released")
		}
	})
}

// TestEndedConfigurationChangesNothing: neither when it has ended before nor during a
// change.
func TestEndedConfigurationChangesNothing(t *testing.T) {
	folder := t.TempDir()
	first := start(t, folder)
	first.must("one", "1")
	for name, when := range map[string]func(n *node){
		"before":         func(n *node) { n.end() },
		"while it waits": func(n *node) { n.storage.OnLock = func(context.Context, string) error { n.end(); return nil } },
		"while it stores": func(n *node) {
			n.storage.OnStore = func(context.Context, string) error { n.end(); return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, folder)
			when(n)
			before := contents(t, folder)[indexName]
			err := n.set("one", "2")
			unavailable(t, err)
			checkError(t, err, "the configuration has been replaced; try again")
			if contents(t, folder)[indexName] != before {
				t.Error("the index has changed")
			}
			n.has("one=1")
		})
	}
	first.must("one", "3")
}

var _ clients.Sink = (*fakeSink)(nil)
