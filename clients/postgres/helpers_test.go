package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// patience is how long a test waits for what should happen soon.
const patience = time.Minute

// fakeSink keeps what it is handed over, unless it refuses that.
type fakeSink struct {
	mu       sync.Mutex
	records  map[string]string
	refuses  func(clients.Entry) error
	notes    []error // but for nil
	noted    int
	refused  int
	replaces int
	updates  int
	busy     bool
	changed  chan struct{}
}

func newSink() *fakeSink {
	return &fakeSink{records: map[string]string{}, changed: make(chan struct{})}
}

// enter fails if two goroutines use the sink at once, which a source must not do.
func (k *fakeSink) enter() func() {
	k.mu.Lock()
	if k.busy {
		panic("the sink is used by two goroutines at once")
	}
	k.busy = true
	k.mu.Unlock()
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.busy = false
		close(k.changed)
		k.changed = make(chan struct{})
	}
}

func (k *fakeSink) check(e clients.Entry) error {
	err := e.Wrong
	if err == nil && k.refuses != nil {
		err = k.refuses(e)
	}
	if err != nil {
		k.refused++
	}
	return err
}

// contents returns the records, without the client_ids of the copy.
func (k *fakeSink) contents() []string { return slices.Sorted(maps.Values(k.records)) }

func (k *fakeSink) Replace(_ context.Context, records iter.Seq2[clients.Entry, error]) error {
	defer k.enter()()
	next := map[string]string{}
	for e, err := range records {
		if err == nil {
			err = k.check(e)
		}
		if err != nil {
			return err
		}
		next[e.ID] = string(e.Record)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records = next
	k.replaces++
	return nil
}

func (k *fakeSink) Update(_ context.Context, records []clients.Entry) error {
	defer k.enter()()
	k.mu.Lock()
	defer k.mu.Unlock()
	next := maps.Clone(k.records)
	for _, e := range records {
		if err := k.check(e); err != nil {
			return err
		}
		if next[e.ID] = string(e.Record); e.Record == nil {
			delete(next, e.ID)
		}
	}
	k.records = next
	k.updates++
	return nil
}

func (k *fakeSink) Note(err error) {
	defer k.enter()()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.noted++; err != nil {
		k.notes = append(k.notes, err)
	}
}

// wait waits until ok returns true.
func (k *fakeSink) wait(t *testing.T, what string, ok func(*fakeSink) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		k.mu.Lock()
		done, changed := ok(k), k.changed
		k.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			k.mu.Lock()
			defer k.mu.Unlock()
			t.Fatalf("%s: not within %s; %d records, notes %v", what, patience, len(k.records), k.notes)
		}
	}
}

// waitFor waits until the sink has a record that contains text, or none if text is "".
func (k *fakeSink) waitFor(t *testing.T, id, record string) {
	t.Helper()
	k.wait(t, fmt.Sprintf("client '%s' is %q", id, record), func(k *fakeSink) bool { return k.records[id] == record })
}

func (k *fakeSink) get(id string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.records[id]
}

func (k *fakeSink) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.updates
}

// rec is the record of a client as PostgreSQL writes it.
func rec(id string, n int) string {
	return fmt.Sprintf(`{"client_id": "%s", "client_name": "%d"}`, id, n)
}

const put = `INSERT INTO mtls_clients (client_id, record) VALUES ($1, $2::text::jsonb) ON CONFLICT (client_id) DO UPDATE SET record = excluded.record`

// newDB returns the DSN of a database with an empty table of clients.
func newDB(t *testing.T) string {
	t.Helper()
	dsn := testpg.Shared(t).Database(t)
	if err := InitDB(t.Context(), dsn, DefaultTable); err != nil {
		t.Fatal(err)
	}
	return dsn
}

func putClient(t *testing.T, dsn, id string, n int) {
	t.Helper()
	testpg.Exec(t, dsn, put, id, rec(id, n))
}

// newLogger returns a logger and what it has logged.
func newLogger() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.DebugLevel)
	return zap.New(core), logs
}

// newSource returns a source that looks for changes often.
func newSource(t *testing.T, config Config) clients.Source {
	t.Helper()
	logger, _ := newLogger()
	return newLogged(t, config, logger)
}

func newLogged(t *testing.T, config Config, logger *zap.Logger) clients.Source {
	t.Helper()
	if config.Refresh == 0 {
		config.Refresh = 200 * time.Millisecond
	}
	s, err := New(config, logger)
	if err != nil {
		t.Fatal(err)
	}
	core(s).queryTimeout, core(s).changeTimeout = patience, patience // the machine may be busy
	return s
}

// core returns what sources that write and others have in common.
func core(s clients.Source) *Source {
	if w, ok := s.(*Writer); ok {
		return w.Source
	}
	return s.(*Source)
}

// start loads and watches a source until the test ends, or stop is called.
func start(t *testing.T, s clients.Source) (sink *fakeSink, stop func()) {
	t.Helper()
	sink = newSink()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Load(ctx, sink); err != nil {
		t.Fatal(err)
	}
	return sink, watch(t, s, sink)
}

func watch(t *testing.T, s clients.Source, sink *fakeSink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, sink)
	}()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("the source does not stop")
		}
	}
	t.Cleanup(stop)
	return stop
}

// begin begins a transaction that the test ends.
func begin(t *testing.T, dsn string) pgx.Tx {
	t.Helper()
	tx, err := testpg.Connect(t, dsn).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func exec(t *testing.T, tx pgx.Tx, sql string, args ...any) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func end(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, pgx.ErrTxClosed) {
		t.Fatal(err)
	}
}
