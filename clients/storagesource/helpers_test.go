package storagesource

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// fakeSink keeps what a source hands over.
type fakeSink struct {
	t     *testing.T
	calls atomic.Int32

	mu      sync.Mutex
	records map[string]string
	updates [][]clients.Entry
	refuse  func(records map[string]string) error
	note    error
	noted   int
}

// called has the test fail if the source calls from two goroutines at once.
func (k *fakeSink) called() func() {
	if k.calls.Add(1) > 1 {
		k.t.Error("two calls of the sink at the same time")
	}
	k.mu.Lock()
	return func() { k.mu.Unlock(); k.calls.Add(-1) }
}

func (k *fakeSink) use(records map[string]string) error {
	if k.refuse != nil {
		if err := k.refuse(records); err != nil {
			return err
		}
	}
	k.records = records
	return nil
}

func (k *fakeSink) Replace(ctx context.Context, records iter.Seq2[clients.Entry, error]) error {
	defer k.called()()
	all := make(map[string]string)
	for e, err := range records {
		if err != nil {
			return fmt.Errorf("sink: %w", err)
		}
		all[e.ID] = string(e.Record)
	}
	return k.use(all)
}

func (k *fakeSink) Update(ctx context.Context, records []clients.Entry) error {
	defer k.called()()
	all := maps.Clone(k.records)
	for _, e := range records {
		if e.Place == "" {
			k.t.Errorf("client '%s' has no place", e.ID)
		}
		if e.Record == nil {
			delete(all, e.ID)
		} else {
			all[e.ID] = string(e.Record)
		}
	}
	if err := k.use(all); err != nil {
		return err
	}
	k.updates = append(k.updates, records)
	return nil
}

func (k *fakeSink) Note(err error) {
	defer k.called()()
	k.note = err
	k.noted++
}

func (k *fakeSink) get() (map[string]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.records), k.note
}

// node is a Caddy of a cluster.
type node struct {
	*Source
	t       *testing.T
	sink    *fakeSink
	storage *testenv.Storage
	clock   *testenv.Clock
	logs    *observer.ObservedLogs
	end     context.CancelFunc
}

// newNode returns a node that has loaded nothing yet.
func newNode(t *testing.T, storage *testenv.Storage, skipBad bool) *node {
	core, logs := observer.New(zap.DebugLevel)
	clock := testenv.NewClock()
	host := clients.Host{Realm: "partners", Storage: storage, Logger: zap.New(core), Now: clock.Now}
	ended, end := context.WithCancel(t.Context())
	source := newSource(host, skipBad, func() bool { return ended.Err() != nil })
	return &node{source, t, &fakeSink{t: t, records: map[string]string{}}, storage, clock, logs, end}
}

// start returns a node that has loaded what is in the folder.
func start(t *testing.T, folder string) *node {
	t.Helper()
	n := newNode(t, testenv.NewStorage(folder), false)
	n.load("")
	return n
}

// load loads the clients, and checks the error.
func (n *node) load(want string) {
	n.t.Helper()
	checkError(n.t, n.Load(n.t.Context(), n.sink), want)
}

func (n *node) look() { n.poll(n.t.Context(), n.sink) }

// set changes a client to have a name, "" for none at all.
func (n *node) set(id, name string) error {
	return n.Change(n.t.Context(), id, func([]byte) ([]byte, error) {
		if name == "" {
			return nil, nil
		}
		return []byte(record(id, name)), nil
	})
}

// must is set without an error, after which the storage lock has been released.
func (n *node) must(id, name string) {
	n.t.Helper()
	if err := n.set(id, name); err != nil {
		n.t.Fatal(err)
	}
	n.settle()
}

// settle waits until the last change has ended.
func (n *node) settle() {
	n.t.Helper()
	if err := n.writing.lock(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	n.writing.unlock()
}

// has checks the clients that are in force, as "id=name".
func (n *node) has(want ...string) {
	n.t.Helper()
	records, _ := n.sink.get()
	got := make([]string, 0, len(records))
	for id, text := range records {
		_, name, _ := strings.Cut(text, `"client_name":"`)
		got = append(got, id+"="+strings.TrimSuffix(name, `"}`))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		n.t.Errorf("in force is %q, want %q", got, want)
	}
}

// notes checks the last error that was noted.
func (n *node) notes(want string) {
	n.t.Helper()
	_, err := n.sink.get()
	checkError(n.t, err, want)
}

func record(id, name string) string {
	return fmt.Sprintf(`{"client_id":"%s","client_name":"%s"}`, id, name)
}

// checkError checks that an error contains a text, or that there is none if it is "".
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("the error is %v, want %q", err, want)
	}
}

// checkStored checks that an error says rightly whether a record may have been stored.
func checkStored(t *testing.T, err error, want bool) {
	t.Helper()
	var stored *clients.StoredError
	if errors.As(err, &stored) != want {
		t.Errorf("%v: a StoredError? want %t", err, want)
	}
}

func unavailable(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, clients.ErrUnavailable) {
		t.Errorf("%v is not ErrUnavailable", err)
	}
}

// contents returns the objects in a folder of the clients.
func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	files, err := filepath.Glob(filepath.Join(clientsFolder(folder), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(file)] = string(text)
	}
	return texts
}

func clientsFolder(folder string) string { return filepath.Join(folder, "mtls", "partners", "clients") }

// objectOf returns the name of the object that has a client.
func objectOf(t *testing.T, folder, id string) string {
	t.Helper()
	x, err := parseIndex([]byte(contents(t, folder)[indexName]))
	if err != nil {
		t.Fatal(err)
	}
	return x.Shards[shardOf(id)].Object
}

// fastLocks is storage whose locks can be waited for without polling.
type fastLocks struct {
	certmagic.Storage
	held chan struct{}
}

func (s *fastLocks) Lock(ctx context.Context, _ string) error {
	select {
	case s.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *fastLocks) Unlock(context.Context, string) error {
	<-s.held
	return nil
}

// soon waits until a condition holds.
func soon(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
