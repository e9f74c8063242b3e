package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// waitForCopy waits until the copy has this text.
func waitForCopy(t *testing.T, path, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		content, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(content), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the copy is %q (%v)", content, err)
		}
	}
}

// TestCopyIsForAStartWithoutTheDatabase checks that the copy follows what is in force,
// can be read by its owner alone, and is what a start without the database has.
func TestCopyIsForAStartWithoutTheDatabase(t *testing.T) {
	server := testpg.Start(t)
	dsn := server.Database(t)
	if err := InitDB(t.Context(), dsn, DefaultTable); err != nil {
		t.Fatal(err)
	}
	testpg.Exec(t, dsn, dropChecks)
	putClient(t, dsn, "a", 0)
	path := filepath.Join(t.TempDir(), "copy.jsonl")
	config := Config{DSN: dsn, KeepCopy: path, Refresh: time.Hour}
	s := newSource(t, config).(*Writer)
	s.copy.every = 10 * time.Millisecond
	sink, stop := start(t, s)
	waitForCopy(t, path, rec("a", 0)+"\n")
	sink.wait(t, "the source listens", func(k *fakeSink) bool { return k.noted > 0 })
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the copy has mode %v: %v", info.Mode(), err)
	}
	for n := 1; n < 4; n++ {
		if err := s.Change(t.Context(), "a", to(rec("a", n))); err != nil {
			t.Fatal(err)
		}
		waitForCopy(t, path, rec("a", n))
	}

	// what is not in force is not copied either
	testpg.Exec(t, dsn, `INSERT INTO mtls_clients (client_id) VALUES ('wrong')`)
	putClient(t, dsn, "b", 1)
	sink.wait(t, "the row is refused", func(k *fakeSink) bool { return k.refused > 0 })
	if err := s.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.release() // it knows that by now
	if _, err := s.copy.save(t.Context()); err == nil {
		t.Error("what is not in force is copied")
	}
	stop()
	server.Stop(t)
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 1 {
		t.Errorf("files: %v, %v", left, err)
	}

	logger, logs := newLogger()
	other := newLogged(t, config, logger)
	sink = newSink()
	if err := other.Load(t.Context(), sink); !errors.Is(err, clients.ErrUnavailable) {
		t.Fatalf("a start without the database: %v", err)
	}
	if err := core(other).LoadCopy(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(sink.contents()); got != "["+rec("a", 3)+"]" {
		t.Errorf("from the copy: %s", got)
	}
	lines := logs.FilterMessage("database of clients unavailable; clients come from the copy").All()
	if len(lines) != 1 || lines[0].Level != zap.ErrorLevel || lines[0].ContextMap()["copy"] != path || lines[0].ContextMap()["age"] == nil {
		t.Errorf("log: %v", logs.All())
	}
	defer watch(t, other, sink)()
	sink.wait(t, "the outage is noted", func(k *fakeSink) bool { return len(k.notes) > 0 })
	server.Restart(t)
	testpg.Exec(t, dsn, `DELETE FROM mtls_clients WHERE client_id = 'wrong'`)
	sink.waitFor(t, "b", rec("b", 1))
}

// TestCopyHasTheFirstClientsAtOnce checks that a copy without clients does not stay for a
// minute, because a start with it would refuse everybody.
func TestCopyHasTheFirstClientsAtOnce(t *testing.T) {
	dsn := newDB(t)
	path := filepath.Join(t.TempDir(), "copy.jsonl")
	s := newSource(t, Config{DSN: dsn, KeepCopy: path})
	core(s).copy.every = time.Hour
	_, stop := start(t, s)
	waitForCopy(t, path, `"copy_of"`)
	putClient(t, dsn, "a", 0)
	waitForCopy(t, path, rec("a", 0))
	stop()
}

// copied is a source with a copy.
type copied struct {
	*Source
	t       *testing.T
	dsn     string
	path    string
	logs    *observer.ObservedLogs
	sink    *fakeSink
	stop    func() // ends watching
	cleanUp func() error
}

// startCopied starts a source that writes its copy so often at most.
func startCopied(t *testing.T, dsn string, every time.Duration) *copied {
	t.Helper()
	putClient(t, dsn, "a", 0)
	c := &copied{t: t, dsn: dsn, path: filepath.Join(t.TempDir(), "copy.jsonl")}
	table := Table{DSN: dsn, KeepCopy: c.path, Refresh: caddy.Duration(time.Hour)}
	if err := table.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	var logger *zap.Logger
	logger, c.logs = newLogger()
	sources, err := table.ClientSources(clients.Host{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	c.Source, c.cleanUp = table.source, table.Cleanup
	c.copy.every = every
	c.sink, c.stop = start(t, sources[0])
	waitForCopy(t, c.path, rec("a", 0))
	return c
}

// change changes the client.
func (c *copied) change() {
	c.t.Helper()
	putClient(c.t, c.dsn, "a", 1)
	c.sink.waitFor(c.t, "a", rec("a", 1))
}

// end ends the configuration, and checks that the copy has the change.
func (c *copied) end() {
	c.t.Helper()
	if err := c.cleanUp(); err != nil {
		c.t.Error(err)
	}
	content, err := os.ReadFile(c.path)
	if err != nil || !strings.Contains(string(content), rec("a", 1)) {
		c.t.Errorf("the copy is %q: %v; logged: %v", content, err, c.logs.All())
	}
	if left, err := filepath.Glob(c.path + "*"); err != nil || len(left) != 1 {
		c.t.Errorf("files: %v, %v", left, err)
	}
}

// TestCopyIsWrittenAtTheEnd checks that what has changed since the copy was written is in
// it when its configuration has ended, whether or not watching has ended before.
func TestCopyIsWrittenAtTheEnd(t *testing.T) {
	dsn := newDB(t)
	for round := range 8 { // of two things at once, either may come first
		c := startCopied(t, dsn, time.Hour)
		c.change()
		if round > 0 {
			c.stop()
		}
		c.end()
	}
}

// TestCopyIsWrittenAfterAnInterruption checks that a copy that was being written when its
// configuration ended is written all the same.
func TestCopyIsWrittenAfterAnInterruption(t *testing.T) {
	c := startCopied(t, newDB(t), time.Millisecond)
	c.copy.saving <- struct{}{} // nobody writes it
	c.change()
	if err := c.take(t.Context()); err != nil { // nobody finds out whether it is in force
		t.Fatal(err)
	}
	<-c.copy.saving
	for len(c.copy.saving) == 0 {
		time.Sleep(time.Millisecond)
	}
	c.stop()
	c.release()
	c.end()
}

// TestWrongCopies checks copies that are not used.
func TestWrongCopies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy.jsonl")
	s := newSource(t, Config{DSN: "postgres://u@127.0.0.1/x", KeepCopy: path})
	title := `{"copy_of":"postgres:127.0.0.1:5432/x/mtls_clients"}` + "\n"
	for text, want := range map[string]string{
		"":                 "it is empty",
		rec("a", 1) + "\n": "it is not a copy of this table",
		`{"copy_of":"postgres:127.0.0.1:5432/staging/mtls_clients"}` + "\n": "it is not a copy of this table",
		title + rec("a", 1) + "\n" + strings.Repeat("x", 100_000):           "has more than 65536 bytes",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := core(s).LoadCopy(t.Context(), newSink())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := core(s).LoadCopy(t.Context(), newSink()); err == nil || !strings.Contains(err.Error(), "has not been written yet") {
		t.Errorf("no copy yet: %v", err)
	}
	if err := core(newSource(t, Config{DSN: "postgres://u@127.0.0.1/x"})).LoadCopy(t.Context(), newSink()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no copy kept: %v", err)
	}
}
