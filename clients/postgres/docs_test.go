package postgres

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// TestDocumentedSQL runs the SQL of the documentation: the schema, which is that of
// init-db, the grants, with which a source must work, and the changes.
func TestDocumentedSQL(t *testing.T) {
	page, err := os.ReadFile("../../docs/clients-in-postgresql.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		blocks = append(blocks, match[1])
	}
	if len(blocks) != 4 || blocks[0] != schema {
		t.Fatalf("the page has %d blocks of SQL; the first must be schema.sql", len(blocks))
	}
	forRole := func(sql string) string { return strings.ReplaceAll(sql, "TO caddy;", "TO ROLE;") }
	grantRead, grantWrite, changes := forRole(blocks[1]), forRole(blocks[2]), blocks[3]

	dsn := testpg.Shared(t).Database(t)
	testpg.Exec(t, dsn, blocks[0])
	testpg.Exec(t, dsn, blocks[0])
	reader := role(t, dsn, grantRead)
	sink, stop := start(t, newSource(t, Config{DSN: reader, ReadOnly: true, Refresh: time.Hour}))
	defer stop() // before the role is dropped
	sink.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
	for statement := range strings.SplitAfterSeq(strings.TrimSpace(changes), ";") {
		updates := sink.count()
		testpg.Exec(t, dsn, statement)
		if strings.TrimSpace(statement) != "" {
			sink.wait(t, statement, func(k *fakeSink) bool { return k.updates > updates })
		}
	}
	if got := sink.get("sensor-8"); got != "" {
		t.Errorf("after the last statement it is %s", got)
	}

	dsn = testpg.Shared(t).Database(t)
	testpg.Exec(t, dsn, blocks[0])
	writer := role(t, dsn, grantWrite)
	s := newSource(t, Config{DSN: writer}).(*Writer)
	sink, stop = start(t, s)
	defer stop()
	for _, want := range []string{rec("a", 1), rec("a", 2), ""} {
		if err := s.Change(t.Context(), "a", to(want)); err != nil || sink.get("a") != want {
			t.Errorf("a role that can write: %q: %v", sink.get("a"), err)
		}
	}
	testpg.Exec(t, writer, changes)
}
