package command_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// TestInitDBCommand checks that the command creates the table that --print shows, under
// the name that is asked for, and keeps the password of the database to itself.
func TestInitDBCommand(t *testing.T) {
	dsn := testpg.Shared(t).Database(t)
	t.Setenv("DATABASE_URL", dsn)
	for range 2 {
		if out, err := run(t, nil, "clients", "init-db", "--dsn", "{env.DATABASE_URL}"); err != nil || out != "Table mtls_clients is ready.\n" {
			t.Fatalf("%q, %v", out, err)
		}
	}
	testpg.Exec(t, dsn, `INSERT INTO mtls_clients (client_id, record) VALUES ('a', '{"client_id": "a"}')`)

	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte(dsn+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, nil, "clients", "init-db", "--dsn", "{file."+file+"}", "--table", `"Other"`); err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	testpg.Exec(t, dsn, `SELECT client_id, record, changed FROM "Other"`)

	sql, err := run(t, nil, "clients", "init-db", "--print", "--table", "printed")
	if err != nil {
		t.Fatal(err)
	}
	testpg.Exec(t, dsn, sql)
	testpg.Exec(t, dsn, `INSERT INTO printed (client_id, record) VALUES ('a', '{"client_id": "a"}'); DELETE FROM printed; SELECT FROM printed_deleted`)

	for want, args := range map[string][]string{
		"no database is named; add --dsn '{env.DATABASE_URL}', or --print":      nil,
		"placeholder {env.MTLS_TEST_UNSET} is empty; set it":                    {"--dsn", "{env.MTLS_TEST_UNSET}"},
		"invalid DSN, which is not shown":                                       {"--dsn", "postgres://u:SEC%zzRET@h/d"},
		"table 'a;b': ';' needs double quotes around the name":                  {"--dsn", dsn, "--table", "a;b"},
		"failed to connect to `user=u database=d`: 127.0.0.1:1 (127.0.0.1): ":   {"--dsn", "postgres://u:SECRET@127.0.0.1:1/d?sslmode=disable"},
		"password authentication failed for user \"postgres\" (SQLSTATE 28P01)": {"--dsn", strings.Replace(dsn, testpg.Password, "SECRET", 1)},
	} {
		_, err := run(t, nil, append([]string{"clients", "init-db"}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "RET@") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
