package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// TestChangesArriveWithinASecond checks that what SQL changes is handed over by
// notification: the source looks for itself only once an hour here.
func TestChangesArriveWithinASecond(t *testing.T) {
	dsn := newDB(t)
	putClient(t, dsn, "a", 0)
	sink, _ := start(t, newSource(t, Config{DSN: dsn, Refresh: time.Hour}))
	if got := sink.get("a"); got != rec("a", 0) {
		t.Fatalf("after Load: %q", got)
	}
	sink.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
	quickest := time.Hour
	for _, step := range []struct{ sql, id, want string }{
		{`UPDATE mtls_clients SET record = record || '{"client_name": "1"}'`, "a", rec("a", 1)},
		{`INSERT INTO mtls_clients (client_id, record) VALUES ('b', '{"client_id": "b", "client_name": "2"}')`, "b", rec("b", 2)},
		{`UPDATE mtls_clients SET client_id = 'c', record = '{"client_id": "c", "client_name": "3"}' WHERE client_id = 'b'`, "c", rec("c", 3)},
		{`SELECT 1`, "b", ""},
		{`DELETE FROM mtls_clients WHERE client_id = 'c'`, "c", ""},
		{`TRUNCATE mtls_clients`, "a", ""},
		{`INSERT INTO mtls_clients (client_id, record) VALUES ('a', '{"client_id": "a", "client_name": "4"}')`, "a", rec("a", 4)},
		{`DELETE FROM mtls_clients; INSERT INTO mtls_clients (client_id, record) VALUES ('a', '{"client_id": "a", "client_name": "5"}')`, "a", rec("a", 5)},
	} {
		testpg.Exec(t, dsn, step.sql)
		changed := time.Now()
		sink.waitFor(t, step.id, step.want)
		if step.want != "" {
			quickest = min(quickest, time.Since(changed))
		}
	}
	if quickest > time.Second { // one of them, because the machine may be busy
		t.Errorf("in force after %s", quickest)
	}
	if len(sink.records) != 1 {
		t.Errorf("%d records: %v", len(sink.records), sink.records)
	}
}

// TestLostNotificationsAreFound checks that the periodic look finds every kind of change
// that nobody was notified of.
func TestLostNotificationsAreFound(t *testing.T) {
	dsn := newDB(t)
	for _, id := range []string{"a", "b", "c"} {
		putClient(t, dsn, id, 0)
	}
	sink, _ := start(t, newSource(t, Config{DSN: dsn}))
	testpg.Exec(t, dsn, `ALTER TABLE mtls_clients DISABLE TRIGGER mtls_notify; ALTER TABLE mtls_clients DISABLE TRIGGER mtls_notify_truncate`)
	replaces := sink.replaces
	putClient(t, dsn, "a", 1)
	sink.waitFor(t, "a", rec("a", 1))
	testpg.Exec(t, dsn, `DELETE FROM mtls_clients WHERE client_id = 'b'`)
	sink.waitFor(t, "b", "")
	testpg.Exec(t, dsn, `UPDATE mtls_clients SET client_id = 'd', record = '{"client_id": "d", "client_name": "7"}' WHERE client_id = 'c'`)
	sink.waitFor(t, "d", rec("d", 7))
	sink.waitFor(t, "c", "")
	if sink.replaces != replaces {
		t.Errorf("everything was read %d times for single changes", sink.replaces-replaces)
	}
	testpg.Exec(t, dsn, `TRUNCATE mtls_clients`)
	sink.wait(t, "all are gone", func(k *fakeSink) bool { return len(k.records) == 0 })

	// nobody notes changes either
	testpg.Exec(t, dsn, `ALTER TABLE mtls_clients DISABLE TRIGGER ALL`)
	putClient(t, dsn, "e", 1)
	sink.waitFor(t, "e", rec("e", 1))
}

// TestLongTransactionLosesNothing checks that a row is found whose transaction began
// before others that were committed and read, and is committed after them.
func TestLongTransactionLosesNothing(t *testing.T) {
	dsn := newDB(t)
	putClient(t, dsn, "long", 0)
	putClient(t, dsn, "gone", 0)
	sink, _ := start(t, newSource(t, Config{DSN: dsn}))
	testpg.Exec(t, dsn, `ALTER TABLE mtls_clients DISABLE TRIGGER mtls_notify`)
	long, undone := begin(t, dsn), begin(t, dsn)
	exec(t, long, put, "long", rec("long", 1))
	exec(t, long, `DELETE FROM mtls_clients WHERE client_id = 'gone'`)
	exec(t, undone, put, "undone", rec("undone", 1))
	for n := range 3 {
		id := fmt.Sprint("short", n)
		putClient(t, dsn, id, n)
		sink.waitFor(t, id, rec(id, n))
	}
	if got := sink.get("long"); got != rec("long", 0) {
		t.Fatalf("before the commit: %q", got)
	}
	end(t, long.Commit(t.Context()))
	sink.waitFor(t, "long", rec("long", 1))
	sink.waitFor(t, "gone", "")
	end(t, undone.Rollback(t.Context()))
	putClient(t, dsn, "last", 1)
	sink.waitFor(t, "last", rec("last", 1))
	if got := sink.get("undone"); got != "" {
		t.Errorf("what was rolled back is handed over: %q", got)
	}
}

// TestConcurrentWritersLoseNothing checks that a source without notifications ends with
// what is in the table after many transactions of all lengths, some rolled back.
func TestConcurrentWritersLoseNothing(t *testing.T) {
	const writers, rounds, ids = 8, 40, 30
	dsn := newDB(t)
	sink, _ := start(t, newSource(t, Config{DSN: dsn, Refresh: 20 * time.Millisecond}))
	testpg.Exec(t, dsn, `ALTER TABLE mtls_clients DISABLE TRIGGER mtls_notify`)
	var writing sync.WaitGroup
	for range writers {
		conn := testpg.Connect(t, dsn)
		writing.Go(func() {
			for range rounds {
				tx, err := conn.Begin(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				id := fmt.Sprint("client", rand.N(ids))
				if rand.N(4) == 0 {
					_, err = tx.Exec(context.Background(), `DELETE FROM mtls_clients WHERE client_id = $1`, id)
				} else {
					_, err = tx.Exec(context.Background(), put, id, rec(id, rand.N(1000)))
				}
				if err != nil {
					t.Error(err)
				}
				time.Sleep(rand.N(30 * time.Millisecond)) // not for synchronisation: transactions differ in length
				if rand.N(5) == 0 {
					err = tx.Rollback(context.Background())
				} else {
					err = tx.Commit(context.Background())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	want := map[string]string{}
	rows, err := testpg.Connect(t, dsn).Query(t.Context(), `SELECT client_id, record::text FROM mtls_clients`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var id, record string
		if err := rows.Scan(&id, &record); err != nil {
			t.Fatal(err)
		}
		want[id] = record
	}
	sink.wait(t, "the source has what the table has", func(k *fakeSink) bool { return fmt.Sprint(k.records) == fmt.Sprint(want) })
	if sink.replaces != 1 {
		t.Errorf("everything was read %d times", sink.replaces)
	}
}

// TestDeletedClientsAreForgotten checks that the table of deleted clients does not grow
// for ever.
func TestDeletedClientsAreForgotten(t *testing.T) {
	dsn := newDB(t)
	testpg.Exec(t, dsn, `INSERT INTO mtls_clients_deleted (client_id, deleted_at) VALUES ('old', now() - interval '2 days'), ('new', now())`)
	s := newSource(t, Config{DSN: dsn})
	core(s).fullEvery = time.Millisecond
	sink, _ := start(t, s)
	sink.wait(t, "everything is read again", func(k *fakeSink) bool { return k.replaces > 2 })
	var left string
	if err := testpg.Connect(t, dsn).QueryRow(t.Context(), `SELECT string_agg(client_id, ' ') FROM mtls_clients_deleted`).Scan(&left); err != nil || left != "new" {
		t.Errorf("left are %s: %v", left, err)
	}
}

// TestEverythingIsReadAgain checks that what has bypassed the triggers is found in the end.
func TestEverythingIsReadAgain(t *testing.T) {
	dsn := newDB(t)
	putClient(t, dsn, "a", 0)
	s := newSource(t, Config{DSN: dsn})
	core(s).fullEvery = 300 * time.Millisecond
	sink, _ := start(t, s)
	testpg.Exec(t, dsn, `SET session_replication_role = replica; UPDATE mtls_clients SET record = record || '{"client_name": "1"}'`)
	sink.waitFor(t, "a", rec("a", 1))
}

// TestMillionRowsTakeNoMemory checks that rows are handed over one by one, at the start
// and as changes.
func TestMillionRowsTakeNoMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short leaves out a million rows, which take seconds")
	}
	const rows = 1_000_000
	dsn := testpg.Shared(t).Database(t)
	testpg.Exec(t, dsn, `CREATE UNLOGGED TABLE mtls_clients AS
		SELECT id AS client_id, jsonb_build_object('client_id', id, 'scope', 'api1 api2', 'x509_thumbprints', jsonb_build_array(md5(id), md5(id || '-'))) AS record, pg_current_xact_id() AS changed
			FROM (SELECT 'client-' || n AS id FROM generate_series(1, 1000000) AS n) AS ids;
		ALTER TABLE mtls_clients ADD PRIMARY KEY (client_id)`)
	if err := InitDB(t.Context(), dsn, DefaultTable); err != nil {
		t.Fatal(err)
	}
	s := newSource(t, Config{DSN: dsn, LoadTimeout: 10 * time.Minute})
	counter := new(countingSink)
	began := time.Now()
	if err := s.Load(t.Context(), counter); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rows in %s, %d MiB of heap", counter.rows, time.Since(began), counter.most>>20)
	if counter.rows != rows || counter.most > 64<<20 {
		t.Errorf("%d rows, with %d MiB of heap", counter.rows, counter.most>>20)
	}
}

// countingSink counts rows, and measures the heap meanwhile.
type countingSink struct {
	clients.Sink
	rows int
	most uint64
}

func (k *countingSink) Replace(_ context.Context, records iter.Seq2[clients.Entry, error]) error {
	for e, err := range records {
		if err != nil || e.Wrong != nil {
			return errors.Join(err, e.Wrong)
		}
		if k.rows++; k.rows%50_000 == 0 {
			var memory runtime.MemStats
			runtime.ReadMemStats(&memory)
			k.most = max(k.most, memory.HeapAlloc)
		}
	}
	return nil
}

// TestManyChangesAtOnce checks that changes of more rows than are read one by one arrive
// as one update, and those of more than an update takes by reading everything.
func TestManyChangesAtOnce(t *testing.T) {
	dsn := newDB(t)
	sink, _ := start(t, newSource(t, Config{DSN: dsn, Refresh: time.Hour}))
	sink.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
	for _, rows := range []int{maxGathered + 500, maxChanges + 500} {
		replaces := sink.replaces
		testpg.Exec(t, dsn, `INSERT INTO mtls_clients (client_id, record) SELECT id, jsonb_build_object('client_id', id)
			FROM (SELECT 'client' || n AS id FROM generate_series(1, $1::int) AS n) AS ids`, rows)
		sink.wait(t, fmt.Sprintf("%d rows arrive", rows), func(k *fakeSink) bool { return len(k.records) == rows })
		if full := sink.replaces > replaces; full != (rows > maxChanges) {
			t.Errorf("%d rows: everything was read %d times", rows, sink.replaces-replaces)
		}
		testpg.Exec(t, dsn, `DELETE FROM mtls_clients`)
		sink.wait(t, "they are gone", func(k *fakeSink) bool { return len(k.records) == 0 })
	}
}

// TestNotificationsThatDoNotEnd: a row that changes all the time does not hold up the
// changes of others.
func TestNotificationsThatDoNotEnd(t *testing.T) {
	sent := 0
	trickle := func(time.Duration) (*pgconn.Notification, error) {
		time.Sleep(gatherFor / 10) // which is what takes time
		sent++
		return &pgconn.Notification{Payload: strconv.Itoa(sent)}, nil
	}
	ids, err := gather(trickle, time.Minute)
	if err != nil || !slices.Contains(ids, "1") || sent > 20 {
		t.Errorf("%d notifications were waited for, %v", sent, err)
	}
	if ids, err := gather(func(time.Duration) (*pgconn.Notification, error) { return nil, nil }, time.Minute); len(ids) > 0 || err != nil {
		t.Errorf("none has come: %q, %v", ids, err)
	}
}
