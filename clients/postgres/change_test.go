package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// to returns a decision that stores a record, whatever there is.
func to(record string) func([]byte) ([]byte, error) {
	return func([]byte) ([]byte, error) {
		if record == "" {
			return nil, nil
		}
		return []byte(record), nil
	}
}

// TestChangeIsInForceHereAndElsewhere checks that a change is in force when Change
// returns, and within a second at a second source.
func TestChangeIsInForceHereAndElsewhere(t *testing.T) {
	dsn := newDB(t)
	here := newSource(t, Config{DSN: dsn, Refresh: time.Hour}).(*Writer)
	sink, _ := start(t, here)
	elsewhere, _ := start(t, newSource(t, Config{DSN: dsn, Refresh: time.Hour, ReadOnly: true}))
	elsewhere.wait(t, "the other source listens", func(k *fakeSink) bool { return k.noted > 0 })
	quickest := time.Hour
	for _, want := range []string{rec("a", 1), rec("a", 2), "", rec("a", 3)} {
		before := sink.get("a")
		var seen []byte
		err := here.Change(t.Context(), "a", func(current []byte) ([]byte, error) {
			seen = current
			return to(want)(current)
		})
		if err != nil {
			t.Fatal(err)
		}
		changed := time.Now()
		if string(seen) != before || (seen == nil) != (before == "") {
			t.Errorf("decided about %q instead of %q", seen, before)
		}
		if got := sink.get("a"); got != want {
			t.Errorf("here it is %q instead of %q", got, want)
		}
		elsewhere.waitFor(t, "a", want)
		quickest = min(quickest, time.Since(changed))
	}
	if quickest > time.Second { // one of them, because the machine may be busy
		t.Errorf("in force elsewhere after %s", quickest)
	}
}

// TestChangeLosesNoOther checks that changes of one client at two sources, and by SQL, do
// not overwrite each other, nor does its creation.
func TestChangeLosesNoOther(t *testing.T) {
	const workers, rounds = 6, 20
	dsn := newDB(t)
	var sources []*Writer
	for range 2 {
		s := newSource(t, Config{DSN: dsn}).(*Writer)
		start(t, s)
		sources = append(sources, s)
	}
	count := func(current []byte) ([]byte, error) {
		n := 0
		if current != nil {
			if _, err := fmt.Sscanf(string(current), `{"client_id": "a", "client_name": "%d"}`, &n); err != nil {
				return nil, err
			}
		}
		return []byte(rec("a", n+1)), nil
	}
	var working sync.WaitGroup
	for worker := range workers {
		working.Go(func() {
			for range rounds {
				if err := sources[worker%2].Change(context.Background(), "a", count); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range rounds {
		testpg.Exec(t, dsn, `INSERT INTO mtls_clients AS c (client_id, record) VALUES ('a', '{"client_id": "a", "client_name": "1"}')
			ON CONFLICT (client_id) DO UPDATE SET record = c.record || jsonb_build_object('client_name', ((c.record ->> 'client_name')::int + 1)::text)`)
	}
	working.Wait()
	var got string
	if err := testpg.Connect(t, dsn).QueryRow(t.Context(), `SELECT record ->> 'client_name' FROM mtls_clients`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint((workers + 1) * rounds); got != want {
		t.Errorf("%s of %s changes are left", got, want)
	}
}

// TestRefusedChangeStoresNothing checks what becomes of changes that decide, the database
// or the sink does not want.
func TestRefusedChangeStoresNothing(t *testing.T) {
	dsn := newDB(t)
	putClient(t, dsn, "a", 0)
	s := newSource(t, Config{DSN: dsn}).(*Writer)
	sink, _ := start(t, s)
	mine := errors.New("not like this")
	if err := s.Change(t.Context(), "a", func([]byte) ([]byte, error) { return nil, mine }); err != mine {
		t.Errorf("an error of decide comes back as %v", err)
	}
	for name, record := range map[string]string{
		"NUL":                `{"client_id": "a", "client_name": "\u0000"}`,
		"raw NUL":            "{\"client_id\": \"a\", \"client_name\": \"\x00\"}",
		"lone surrogate":     `{"client_id": "a", "client_name": "\ud800"}`,
		"low surrogate":      `{"client_id": "a", "client_name": "\udc00x"}`,
		"broken UTF-8":       "{\"client_id\": \"a\", \"client_name\": \"\xff\"}",
		"number of 10^9":     `{"client_id": "a", "claims": {"n": 1e1000000000}}`,
		"no object":          `"a"`,
		"no JSON":            `{`,
		"another client_id":  `{"client_id": "b"}`,
		"more than 64 KiB":   `{"client_id": "a", "client_name": "` + strings.Repeat("x", 65536) + `"}`,
		"client_id with NUL": `{"client_id": "a\u0000"}`,
	} {
		err := s.Change(t.Context(), "a", to(record))
		if !errors.Is(err, clients.ErrBadRecord) || !strings.Contains(err.Error(), "PostgreSQL does not store it: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Change(t.Context(), "a", to(rec("b", 1))); err == nil || !strings.Contains(err.Error(), `"record_has_its_client_id"`) {
		t.Errorf("the record of another client: %v", err)
	}
	testpg.Exec(t, dsn, "ALTER TABLE mtls_clients ADD CONSTRAINT small CHECK (octet_length(record::text) < 1000)")
	secret := `{"client_id": "a", "jwks_uri": "https://user:secret@a.example/` + strings.Repeat("x", 1000) + `"}`
	if err := s.Change(t.Context(), "a", to(secret)); !errors.Is(err, clients.ErrBadRecord) || !strings.Contains(err.Error(), `"small"`) || strings.Contains(err.Error(), "secret") {
		t.Errorf("a record that a constraint refuses: %v", err)
	}
	if err := s.Change(t.Context(), "a\x00b", to(rec("x", 1))); !errors.Is(err, clients.ErrBadRecord) {
		t.Errorf("client_id with NUL: %v", err)
	}
	if got := sink.get("a"); got != rec("a", 0) {
		t.Errorf("it is %q now", got)
	}
	// the connection still works, and what the sink refuses is reported
	sink.mu.Lock()
	sink.refuses = func(clients.Entry) error { return mine }
	sink.mu.Unlock()
	var stored *clients.StoredError
	if err := s.Change(t.Context(), "a", to(rec("a", 1))); !errors.Is(err, mine) || !errors.As(err, &stored) || !strings.Contains(err.Error(), "stored, but not in force") {
		t.Errorf("a change that the sink refuses: %v", err)
	}
	sink.mu.Lock()
	sink.refuses = nil
	sink.mu.Unlock()
	sink.waitFor(t, "a", rec("a", 1))
}

// TestChangeWaitsForNobodyLong checks that a lock that somebody else holds ends a change
// when its context ends, and that the next one works.
func TestChangeWaitsForNobodyLong(t *testing.T) {
	dsn := newDB(t)
	putClient(t, dsn, "a", 0)
	s := newSource(t, Config{DSN: dsn}).(*Writer)
	sink, stop := start(t, s)
	tx := begin(t, dsn)
	exec(t, tx, `SELECT FROM mtls_clients WHERE client_id = 'a' FOR UPDATE`)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Change(ctx, "a", to(rec("a", 1))); !errors.Is(err, clients.ErrUnavailable) {
		t.Errorf("a locked row: %v", err)
	}
	end(t, tx.Rollback(t.Context()))
	if err := s.Change(t.Context(), "a", to(rec("a", 2))); err != nil {
		t.Fatal(err)
	}
	if got := sink.get("a"); got != rec("a", 2) {
		t.Errorf("it is %q", got)
	}
	stop()
	if err := s.Change(t.Context(), "a", to(rec("a", 3))); !errors.Is(err, errNotRunning) || !errors.Is(err, clients.ErrUnavailable) {
		t.Errorf("after the end: %v", err)
	}
}

// TestChangeWaitsBeforeItLocks checks that a source that reads all clients, or has not
// begun to, does not keep others from changing any.
func TestChangeWaitsBeforeItLocks(t *testing.T) {
	dsn := newDB(t)
	here, there := newSource(t, Config{DSN: dsn}).(*Writer), newSource(t, Config{DSN: dsn}).(*Writer)
	start(t, there)
	if err := here.Change(t.Context(), "a", to(rec("a", 1))); !errors.Is(err, errNotRunning) {
		t.Errorf("a change before the source is loaded: %v", err)
	}
	start(t, here)
	if err := here.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	changed := make(chan error)
	go func() { changed <- here.Change(ctx, "a", to(rec("a", 1))) }()
	time.Sleep(100 * time.Millisecond)
	soon, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := there.Change(soon, "b", to(rec("b", 1))); err != nil {
		t.Errorf("another source waits for it: %v", err)
	}
	leave()
	if err := <-changed; err == nil {
		t.Error("a change is made while all clients are being read")
	}
	here.release()
}

// TestChangeAtAnotherServer checks that a change whose connection leads to another server
// than the one that is listened to, as in a failover, does not mix up what they have seen.
func TestChangeAtAnotherServer(t *testing.T) {
	dsn := newDB(t)
	s := newSource(t, Config{DSN: dsn, Refresh: time.Hour}).(*Writer)
	sink, _ := start(t, s)
	sink.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
	putClient(t, dsn, "b", 1) // after what has been seen
	sink.waitFor(t, "b", rec("b", 1))
	if err := s.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen, server := s.seen, *s.server
	server.started = "another time"
	s.server = &server
	s.release()
	if err := s.Change(t.Context(), "a", to(rec("a", 1))); err != nil || sink.get("a") != rec("a", 1) {
		t.Errorf("%q, %v", sink.get("a"), err)
	}
	if err := s.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.release()
	if s.seen != seen {
		t.Error("the snapshot is that of another server")
	}
}

// TestChangeKnowsOfChangesElsewhere checks that a change is decided after what other
// sources have changed is in force here: two Caddys must not give one credential to two
// clients.
func TestChangeKnowsOfChangesElsewhere(t *testing.T) {
	dsn := newDB(t)
	here, there := newSource(t, Config{DSN: dsn, Refresh: time.Hour}).(*Writer), newSource(t, Config{DSN: dsn, Refresh: time.Hour}).(*Writer)
	sinkHere, _ := start(t, here)
	start(t, there)
	sinkHere.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
	for n := range 20 {
		there1, here1 := fmt.Sprint("there", n), fmt.Sprint("here", n)
		decided := make(chan string, 1)
		err := there.Change(t.Context(), there1, func([]byte) ([]byte, error) {
			go func() {
				if err := here.Change(context.Background(), here1, func([]byte) ([]byte, error) {
					decided <- sinkHere.get(there1)
					return []byte(rec(here1, n)), nil
				}); err != nil {
					decided <- err.Error()
				}
			}()
			select {
			case <-decided:
				t.Error("a change is decided while another one is under way")
				decided <- ""
			case <-time.After(20 * time.Millisecond): // it waits
			}
			return []byte(rec(there1, n)), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-decided; got != rec(there1, n) {
			t.Fatalf("client '%s' is %q when client '%s' is changed", there1, got, here1)
		}
	}
}
