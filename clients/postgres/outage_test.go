package postgres

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// TestDatabaseGoesAway checks that nothing changes while the database is away, that this
// is noted, and that what has changed since then is found, also in another database
// behind the same DSN.
func TestDatabaseGoesAway(t *testing.T) {
	server := testpg.Start(t)
	dsn := server.Database(t)
	if err := InitDB(t.Context(), dsn, DefaultTable); err != nil {
		t.Fatal(err)
	}
	putClient(t, dsn, "a", 0)
	putClient(t, dsn, "b", 0)
	relay := newRelay(t, server.Address())
	through := strings.Replace(dsn, server.Address(), relay.Addr().String(), 1)
	s := newSource(t, Config{DSN: through, Refresh: time.Hour}).(*Writer)
	sink, _ := start(t, s)
	sink.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
	for name, stop := range map[string]func(testing.TB){"stopped": server.Stop, "crashed": server.Crash} {
		notes := len(sink.notes)
		stop(t)
		sink.wait(t, name+" is noted", func(k *fakeSink) bool { return len(k.notes) > notes })
		if sink.get("a") != rec("a", 0) || sink.get("b") != rec("b", 0) {
			t.Errorf("%s: it is %v", name, sink.records)
		}
		if err := s.Change(t.Context(), "a", to(rec("a", 9))); !errors.Is(err, clients.ErrUnavailable) {
			t.Errorf("%s: a change: %v", name, err)
		}
		if err := newSource(t, Config{DSN: dsn}).Load(t.Context(), newSink()); !errors.Is(err, clients.ErrUnavailable) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: a start: %v", name, err)
		}
		relay.away.Store(true) // so that the source finds the database as it is in the end
		server.Restart(t)
		// a backup was restored: nobody is notified, and no number of a transaction says so
		testpg.Exec(t, dsn, `ALTER TABLE mtls_clients DISABLE TRIGGER ALL; DELETE FROM mtls_clients WHERE client_id = 'b';
			UPDATE mtls_clients SET record = record || '{"client_name": "5"}'; ALTER TABLE mtls_clients ENABLE TRIGGER ALL`)
		relay.away.Store(false)
		sink.waitFor(t, "a", rec("a", 5))
		sink.waitFor(t, "b", "")
		if err := s.Change(t.Context(), "a", to(rec("a", 0))); err != nil {
			t.Errorf("%s: a change after that: %v", name, err)
		}
		if err := s.Change(t.Context(), "b", to(rec("b", 0))); err != nil {
			t.Error(err)
		}
	}
}

// TestTableIsReplaced checks that a table that another one takes the place of is noticed.
func TestTableIsReplaced(t *testing.T) {
	dsn := newDB(t)
	putClient(t, dsn, "a", 0)
	sink, _ := start(t, newSource(t, Config{DSN: dsn}))
	testpg.Exec(t, dsn, `ALTER TABLE mtls_clients RENAME TO old; ALTER TABLE mtls_clients_deleted RENAME TO old_deleted;
		ALTER INDEX mtls_clients_changed RENAME TO old_changed; ALTER INDEX mtls_clients_deleted_changed RENAME TO old_deleted_changed`)
	sink.wait(t, "the missing table is noted", func(k *fakeSink) bool { return len(k.notes) > 0 })
	sink.mu.Lock()
	text := sink.notes[0].Error()
	sink.mu.Unlock()
	if !strings.Contains(text, "does not exist, or is in a schema") || sink.get("a") != rec("a", 0) {
		t.Errorf("without the table it is %q: %s", sink.get("a"), text)
	}
	if err := InitDB(t.Context(), dsn, DefaultTable); err != nil {
		t.Fatal(err)
	}
	putClient(t, dsn, "b", 1)
	sink.waitFor(t, "b", rec("b", 1))
	sink.waitFor(t, "a", "")
}

// relay is a TCP proxy that can stop passing on what it gets, without closing anything.
type relay struct {
	net.Listener
	mu    sync.Mutex
	stuck chan struct{} // closed: existing connections are stuck
	away  atomic.Bool   // new connections are closed
	// pooler has clients told another process than the one that serves them
	pooler bool
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: listener, stuck: make(chan struct{})}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			ours, err := listener.Accept()
			if err != nil {
				return
			}
			theirs, err := net.Dial("tcp", to)
			if err == nil && r.away.Load() {
				_ = theirs.Close()
				err = net.ErrClosed
			}
			if err != nil {
				_ = ours.Close()
				continue
			}
			r.mu.Lock()
			stuck := r.stuck
			r.mu.Unlock()
			go r.pipe(ours, theirs, stuck)
			go r.pipe(theirs, ours, stuck)
		}
	}()
	return r
}

func (r *relay) pipe(to, from net.Conn, stuck chan struct{}) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		select {
		case <-stuck:
			_, _ = io.Copy(io.Discard, from)
			return
		default:
		}
		if err != nil {
			_ = to.Close()
			return
		}
		if at := bytes.Index(buffer[:n], []byte("K\x00\x00\x00\x0c")); at >= 0 && r.pooler { // BackendKeyData
			buffer[at+5] ^= 1
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// freeze has the connections that are open get stuck.
func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.stuck)
	r.stuck = make(chan struct{})
}

// TestHalfDeadConnectionIsNoticed checks that connections over which nothing comes any
// more are replaced, both the one that listens and the one that writes.
func TestHalfDeadConnectionIsNoticed(t *testing.T) {
	dsn := newDB(t)
	relay := newRelay(t, testpg.Shared(t).Address())
	through := strings.Replace(dsn, testpg.Shared(t).Address(), relay.Addr().String(), 1)
	s := newSource(t, Config{DSN: through}).(*Writer)
	s.queryTimeout = 5 * time.Second
	sink, _ := start(t, s)
	if err := s.Change(t.Context(), "a", to(rec("a", 1))); err != nil {
		t.Fatal(err)
	}
	relay.freeze()
	if err := s.Change(t.Context(), "a", to(rec("a", 2))); err != nil {
		t.Errorf("a change over a dead connection: %v", err)
	}
	putClient(t, dsn, "b", 1)
	sink.waitFor(t, "b", rec("b", 1))
}

// TestPoolerIsAWarning checks that the log says once if notifications may be lost between
// the database and the source, which finds changes all the same.
func TestPoolerIsAWarning(t *testing.T) {
	dsn := newDB(t)
	relay := newRelay(t, testpg.Shared(t).Address())
	relay.pooler = true
	const message = "PostgreSQL is behind a connection pooler; notifications may be lost"
	for address, want := range map[string]int{relay.Addr().String(): 1, testpg.Shared(t).Address(): 0} {
		logger, logs := newLogger()
		sink, stop := start(t, newLogged(t, Config{DSN: strings.Replace(dsn, testpg.Shared(t).Address(), address, 1)}, logger))
		sink.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
		putClient(t, dsn, "a", want)
		sink.waitFor(t, "a", rec("a", want))
		stop()
		if got := logs.FilterMessage(message).Len(); got != want {
			t.Errorf("warned %d times instead of %d", got, want)
		}
	}
}
