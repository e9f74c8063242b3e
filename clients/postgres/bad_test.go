package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

const dropChecks = `ALTER TABLE mtls_clients DROP CONSTRAINT client_id_is_short, DROP CONSTRAINT record_has_its_client_id, DROP CONSTRAINT record_is_small;
	ALTER TABLE mtls_clients ALTER record DROP NOT NULL;`

// TestWrongRowsAreHandedOverAsWrong checks rows that a table made by hand lets pass: each
// is an error of its own, without its contents in memory.
func TestWrongRowsAreHandedOverAsWrong(t *testing.T) {
	for name, row := range map[string]struct{ sql, want string }{
		"NULL":      {`('a', NULL)`, "its record is NULL; remove the row or write a JSON object"},
		"too large": {`('a', jsonb_build_object('client_id', repeat('ä', 10000000)))`, "its record has more than 65536 bytes; make it smaller"},
		"no id":     {`('', '{"client_id": "a"}')`, "a row has an empty client_id; remove it"},
	} {
		dsn := newDB(t)
		testpg.Exec(t, dsn, dropChecks)
		testpg.Exec(t, dsn, `INSERT INTO mtls_clients (client_id, record) VALUES `+row.sql)
		err := newSource(t, Config{DSN: dsn}).Load(t.Context(), newSink())
		if err == nil || err.Error() != row.want || errors.Is(err, clients.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// what is JSON is for the sink to judge, as it is
	dsn := newDB(t)
	testpg.Exec(t, dsn, dropChecks)
	testpg.Exec(t, dsn, `INSERT INTO mtls_clients (client_id, record) VALUES ('a', '[1.50, 1e3, 1]'), ('b', 'null'), ('c', '{"client_id": "d", "x": 1, "x": 2}')`)
	sink, _ := start(t, newSource(t, Config{DSN: dsn}))
	if got := fmt.Sprint(sink.records); got != `map[a:[1.50, 1000, 1] b:null c:{"x": 2, "client_id": "d"}]` {
		t.Errorf("handed over: %s", got)
	}
}

// TestRefusedUpdateIsHandedOverAgain checks that what came together with a wrong row is
// not lost, and that all of it arrives when the row is mended.
func TestRefusedUpdateIsHandedOverAgain(t *testing.T) {
	dsn := newDB(t)
	putClient(t, dsn, "gone", 0)
	testpg.Exec(t, dsn, dropChecks)
	sink, _ := start(t, newSource(t, Config{DSN: dsn, Refresh: time.Hour}))
	sink.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
	testpg.Exec(t, dsn, `INSERT INTO mtls_clients (client_id) VALUES ('wrong')`)
	putClient(t, dsn, "right", 1)
	testpg.Exec(t, dsn, `DELETE FROM mtls_clients WHERE client_id = 'gone'`)
	putClient(t, dsn, "wrong", 2)
	sink.waitFor(t, "wrong", rec("wrong", 2))
	sink.waitFor(t, "right", rec("right", 1))
	sink.waitFor(t, "gone", "")
}

// TestWrongTables checks that a table that cannot be used is an error at the start, which
// says what to do.
func TestWrongTables(t *testing.T) {
	for sql, want := range map[string]string{
		`DROP TABLE mtls_clients`: "table mtls_clients does not exist, or is in a schema that the search_path of the role does not have; " +
			"run 'caddy mtls clients init-db --dsn <dsn> --table mtls_clients', which keeps the clients",
		`DROP TABLE mtls_clients_deleted`: "table mtls_clients_deleted does not exist, or is in a schema that the search_path of the role does not have; " +
			"run 'caddy mtls clients init-db --dsn <dsn> --table mtls_clients', which keeps the clients",
		`ALTER TABLE mtls_clients RENAME TO t; CREATE VIEW mtls_clients AS SELECT * FROM t`:   "mtls_clients is not an ordinary table; ",
		`ALTER TABLE mtls_clients DROP COLUMN record`:                                         "table mtls_clients has no column record; run ",
		`ALTER TABLE mtls_clients DROP COLUMN changed`:                                        "table mtls_clients has no column changed; run ",
		dropChecks + `ALTER TABLE mtls_clients ALTER record TYPE text`:                        "table mtls_clients: column record is text, not jsonb; run ALTER TABLE mtls_clients ALTER COLUMN record TYPE jsonb USING record::jsonb",
		dropChecks + `ALTER TABLE mtls_clients ALTER record TYPE json USING record::json`:     "table mtls_clients: column record is json, not jsonb; run ",
		dropChecks + `ALTER TABLE mtls_clients ALTER client_id TYPE int USING client_id::int`: "table mtls_clients: column client_id is integer, not text; run ",
		`ALTER TABLE mtls_clients DROP COLUMN changed, ADD COLUMN changed timestamptz`:        "table mtls_clients: column changed is timestamp with time zone, not xid8; rename it",
		`ALTER TABLE mtls_clients DROP CONSTRAINT mtls_clients_pkey`:                          "table mtls_clients: client_id is not the primary key; run ALTER TABLE mtls_clients ADD PRIMARY KEY (client_id)",
		`DROP TRIGGER mtls_notify ON mtls_clients`:                                            "table mtls_clients: trigger mtls_notify is missing or disabled; run ",
		`ALTER TABLE mtls_clients DISABLE TRIGGER mtls_mark`:                                  "table mtls_clients: trigger mtls_mark is missing or disabled; run ",
	} {
		dsn := newDB(t)
		testpg.Exec(t, dsn, sql)
		sink := newSink()
		err := newSource(t, Config{DSN: dsn}).Load(t.Context(), sink)
		if err == nil || !strings.HasPrefix(err.Error(), want) || errors.Is(err, clients.ErrUnavailable) || sink.replaces > 0 {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// role creates a role that may log in, and returns its DSN.
func role(t *testing.T, dsn, grants string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := "role_" + strings.TrimPrefix(u.Path, "/")
	testpg.Exec(t, dsn, fmt.Sprintf(`DROP ROLE IF EXISTS %s; CREATE ROLE %[1]s LOGIN PASSWORD 'of-a-role'; `, name)+strings.ReplaceAll(grants, "ROLE", name))
	t.Cleanup(func() { testpg.Exec(t, dsn, "DROP OWNED BY "+name+"; DROP ROLE "+name) })
	u.User = url.UserPassword(name, "of-a-role")
	return u.String()
}

// TestMissingPrivileges checks that what the role may not do is an error at the start.
func TestMissingPrivileges(t *testing.T) {
	dsn := newDB(t)
	reader := role(t, dsn, `GRANT SELECT ON mtls_clients, mtls_clients_deleted TO ROLE`)
	err := newSource(t, Config{DSN: reader}).Load(t.Context(), newSink())
	if err == nil || !strings.Contains(err.Error(), "may not INSERT, UPDATE, DELETE table mtls_clients; run GRANT INSERT, UPDATE, DELETE ON mtls_clients TO ") ||
		!strings.HasSuffix(err.Error(), ", or add read_only to the source") || errors.Is(err, clients.ErrUnavailable) {
		t.Errorf("a role that can only read: %v", err)
	}
	dsn = newDB(t)
	nobody := role(t, dsn, "")
	for _, readOnly := range []bool{false, true} {
		err := newSource(t, Config{DSN: nobody, ReadOnly: readOnly}).Load(t.Context(), newSink())
		if err == nil || !strings.Contains(err.Error(), "may not SELECT") || strings.Contains(err.Error(), "read_only") {
			t.Errorf("a role without privileges: %v", err)
		}
	}
}

// TestInitDB checks that a table can be created twice, next to another, under a name that
// needs quotes, and over a table that only has the records.
func TestInitDB(t *testing.T) {
	dsn := testpg.Shared(t).Database(t)
	testpg.Exec(t, dsn, `CREATE SCHEMA "Other $$ schema"; CREATE SCHEMA partners;
		CREATE TABLE bare (client_id text PRIMARY KEY, record jsonb NOT NULL); INSERT INTO bare VALUES ('a', '{"client_id": "a", "client_name": "1"}')`)
	for _, table := range []string{"mtls_clients", "Partners.Clients", `"Other $$ schema"."x"";DROP TABLE bare;--"`, `"$$"`, "bare"} {
		for range 2 {
			if err := InitDB(t.Context(), dsn, table); err != nil {
				t.Fatalf("%s: %v", table, err)
			}
		}
		s := newSource(t, Config{DSN: dsn, Table: table, Refresh: time.Hour}).(*Writer)
		sink, stop := start(t, s)
		sink.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
		for _, want := range []string{rec("a", 1), rec("a", 2), ""} {
			if err := s.Change(t.Context(), "a", to(want)); err != nil || sink.get("a") != want {
				t.Errorf("%s: %q: %v", table, sink.get("a"), err)
			}
		}
		name, _ := parseTable(table)
		testpg.Exec(t, dsn, fmt.Sprintf(`INSERT INTO %s (client_id, record) VALUES ('b', '{"client_id": "b", "client_name": "1"}'); `, name))
		sink.waitFor(t, "b", rec("b", 1))
		testpg.Exec(t, dsn, fmt.Sprintf("TRUNCATE %s", name))
		sink.waitFor(t, "b", "")
		stop()
	}
	testpg.Exec(t, dsn, `ALTER TABLE mtls_clients DISABLE TRIGGER ALL; DROP INDEX mtls_clients_changed`)
	if err := InitDB(t.Context(), dsn, DefaultTable); err != nil {
		t.Errorf("a table with disabled triggers: %v", err)
	}
	testpg.Exec(t, dsn, `CREATE TABLE text (client_id text PRIMARY KEY, record text NOT NULL)`)
	if err := InitDB(t.Context(), dsn, "text"); err == nil || !strings.Contains(err.Error(), "column record is text, not jsonb") {
		t.Errorf("a table with another column: %v", err)
	}
	var left int
	if err := testpg.Connect(t, dsn).QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relname = 'text_deleted'`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d tables of what failed are left: %v", left, err)
	}
}

func TestTableNames(t *testing.T) {
	for text, want := range map[string]string{
		"mtls_clients": `"mtls_clients"`, "Public.Clients": `"public"."clients"`, `"Partners"."The ""Clients"".x"`: `"Partners"."The ""Clients"".x"`, "a$1": `"a$1"`,
		`public."a"`: `"public"."a"`,
	} {
		if got, err := parseTable(text); err != nil || got.String() != want {
			t.Errorf("%s: %s, %v", text, got, err)
		} else if again, err := parseTable(got.shown()); err != nil || again.String() != want {
			t.Errorf("%s is shown as %s: %v", text, got.shown(), err)
		}
	}
	for _, text := range []string{
		"", ".", "a.", ".a", "a.b.c", "a;b", "a b", "a-b", "1a", "ä", `"a`, `"a"b`, `""`, `a"b"`, "a\x00", "\"a\x00\"", "a--", "a'", strings.Repeat("a", 50), strings.Repeat("a", 64) + ".a",
	} {
		if name, err := parseTable(text); err == nil || !strings.HasPrefix(err.Error(), "table '") || !strings.Contains(err.Error(), "; ") {
			t.Errorf("%q: %s, %v", text, name, err)
		}
	}
}

// FuzzTableName checks that no name gets out of its quotes.
func FuzzTableName(f *testing.F) {
	for _, seed := range []string{"mtls_clients", `"a"".b".c`, `a."b"`, `"`, "a.b.c", `"; DROP TABLE x; --"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := parseTable(text)
		if err != nil {
			return
		}
		if again, err := parseTable(name.String()); err != nil || pgx.Identifier(again).Sanitize() != name.String() {
			t.Errorf("%q is %s, which is %s: %v", text, name, again, err)
		}
		if again, err := parseTable(name.shown()); err != nil || again.String() != name.String() {
			t.Errorf("%q is shown as %s, which is %s: %v", text, name.shown(), again, err)
		}
	})
}

// TestDSNIsNeverShown checks that no error and no log message has the password of a DSN,
// nor anything else of one that is invalid.
func TestDSNIsNeverShown(t *testing.T) {
	address := testpg.Shared(t).Address()
	host, port, _ := strings.Cut(address, ":")
	for _, dsn := range []string{
		"postgres://postgres:SECRET@" + address + "/postgres?sslmode=disable",
		"postgres://postgres@" + address + "/postgres?sslmode=disable&password=SECRET",
		"host=" + host + " port=" + port + " user=postgres password=SECRET dbname=postgres sslmode=disable",
		"host=" + host + " port=" + port + " user=postgres password='SECRET \\' SECRET' dbname=postgres sslmode=disable",
		"postgres://postgres:SECRET@" + address + "/postgres?sslmode=require",
		"postgres://postgres:SECRET@127.0.0.1:1/postgres?sslmode=disable",
		"postgres://postgres:SECRET@nowhere.invalid/postgres?sslmode=disable&sslpassword=SECRET",
		"postgres://postgres:SECRET@" + address + "/nowhere?sslmode=disable",
		"postgres://postgres:SEC%zzRET@" + address + "/postgres",
		"postgres://postgres:SECRET/SECRET?SECRET@" + address + "/postgres",
		"postgres://postgres:SECRET@" + address + "/postgres?sslmode=SECRET",
		"postgres://postgres:SECRET@" + address + ":SECRET/postgres",
		"postgres://postgres@" + address + "/postgres?sslmode=verify-full&sslrootcert=/nowhere.pem&password=SECRET",
		"password=SECRET host",
		"password='SECRET",
		"SECRET",
		"mysql://u:SECRET@host/db",
		"postgres://postgres:SECRET@" + address + "/postgres?service=SECRET",
	} {
		logger, logs := newLogger()
		s, err := New(Config{DSN: dsn}, logger)
		if err == nil {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			err = s.Load(ctx, newSink())
			cancel()
			if strings.Contains(s.Info().Name, "SECRET") {
				t.Errorf("the name of the source is %s", s.Info().Name)
			}
		}
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", dsn, err)
		}
		for _, entry := range logs.All() {
			if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), "SECRET") {
				t.Errorf("%s: logged: %v", dsn, entry)
			}
		}
	}
	u, _ := url.Parse(testpg.Shared(t).DSN("postgres"))
	u.User = url.UserPassword(testpg.Superuser, "SECRET")
	if err := newSource(t, Config{DSN: u.String()}).Load(t.Context(), newSink()); err == nil || errors.Is(err, clients.ErrUnavailable) || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("a wrong password: %v", err)
	}
}

// TestUnverifiedServerIsAWarning checks that the log says if a DSN reaches through the
// network without checking the server.
func TestUnverifiedServerIsAWarning(t *testing.T) {
	for dsn, want := range map[string]string{
		"postgres://u@db.example.com/x":                                        "db.example.com",
		"postgres://u@db.example.com/x?sslmode=require":                        "db.example.com",
		"postgres://u@db.example.com/x?sslmode=disable":                        "db.example.com",
		"postgres://u@db.example.com,b.example.com/x?sslmode=prefer":           "db.example.com",
		"postgres://u@localhost,b.example.com/x?sslmode=disable":               "b.example.com",
		"postgres://u@db.example.com/x?sslmode=verify-full":                    "",
		"postgres://u@db.example.com/x?sslmode=verify-full&sslrootcert=system": "",
		"postgres://u@127.0.0.1/x?sslmode=disable":                             "",
		"postgres://u@[::1]/x":                                                 "",
		"postgres://u@localhost/x":                                             "",
		"host=/var/run/postgresql user=u dbname=x":                             "",
	} {
		logger, logs := newLogger()
		newLogged(t, Config{DSN: dsn}, logger)
		got := ""
		for _, entry := range logs.FilterMessage("connection to PostgreSQL is not verified").All() {
			got = entry.ContextMap()["host"].(string)
		}
		if got != want {
			t.Errorf("%s: warned of %q instead of %q", dsn, got, want)
		}
	}
}
