package filesource

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// fixture is a source in a folder of its own, with a sink that keeps what it gets.
type fixture struct {
	*Source
	t    *testing.T
	dir  string
	now  time.Time
	logs *observer.ObservedLogs

	inForce  string // what the sink has taken
	replaced int    // how often
	notes    []string
	refuse   error // the sink takes nothing
}

func newFixture(t *testing.T, path string) *fixture {
	f := &fixture{t: t, dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	core, logs := observer.New(zapcore.InfoLevel)
	f.logs = logs
	f.Source = New(Config{Path: filepath.Join(f.dir, path), Logger: zap.New(core), Now: func() time.Time { return f.now }})
	return f
}

func (f *fixture) Replace(_ context.Context, records iter.Seq2[clients.Entry, error]) error {
	f.replaced++
	got := collect(records)
	switch {
	case f.refuse != nil:
		return f.refuse
	case strings.Contains(got, "error: "):
		f.notes = append(f.notes, got)
		return errors.New(got)
	}
	f.inForce = got
	return nil
}

func (f *fixture) Update(context.Context, []clients.Entry) error { panic("not used") }

func (f *fixture) Note(err error) {
	if err != nil {
		f.notes = append(f.notes, err.Error())
	}
}

// write writes a file of the folder, at the time of the clock.
func (f *fixture) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, f.now, f.now))
	if err != nil {
		f.t.Fatal(err)
	}
}

// looks looks a number of times, every quarter of a second.
func (f *fixture) looks(count int) {
	for range count {
		f.now = f.now.Add(source.LookInterval)
		f.look(f.t.Context(), f)
	}
}

func (f *fixture) want(inForce string, replaced int) {
	f.t.Helper()
	if f.inForce != inForce || f.replaced != replaced {
		f.t.Errorf("in force: %s, after %d reads\nwant      %s, after %d", f.inForce, f.replaced, inForce, replaced)
	}
}

func (f *fixture) wantNotes(notes ...string) {
	f.t.Helper()
	if got := strings.Join(f.notes, "\n"); got != strings.ReplaceAll(strings.Join(notes, "\n"), "DIR", f.dir) {
		f.t.Errorf("notes:\n%s", got)
	}
	f.notes = nil
}

func (f *fixture) mustLoad() {
	f.t.Helper()
	if err := f.Load(f.t.Context(), f); err != nil {
		f.t.Fatal(err)
	}
}

func TestInfo(t *testing.T) {
	info := New(Config{Path: "partners.json", SkipBad: true}).Info()
	if want := (clients.SourceInfo{Name: "file:partners.json", SkipBad: true, NamesFiles: true, LoadTimeout: 5 * time.Minute, Refresh: source.LookInterval}); info != want {
		t.Errorf("%+v", info)
	}
}

// TestFile: a file is read at the start and when it has changed, within a second.
func TestFile(t *testing.T) {
	for name, texts := range map[string][2]string{
		"a.json":   {`[{"a":1}]`, `[{"b":2}]`},
		"a.conf":   {`[{"a":1}]`, `[{"b":2}]`},
		"a.jsonl":  {"{\"a\":1}\n", "{\"b\":2}\n"},
		"a.NDJSON": {"{\"a\":1}\n", "{\"b\":2}\n"},
		"a.yaml":   {"a: 1\n", "b: 2\n"},
		"a.yml":    {"- a: 1\n", "- b: 2\n"},
	} {
		f := newFixture(t, name)
		f.write(name, texts[0])
		f.mustLoad()
		f.want(`line 1: {"a":1}`, 1)
		f.looks(20)
		f.want(`line 1: {"a":1}`, 1)
		f.write(name, texts[1])
		f.looks(2)
		f.want(`line 1: {"b":2}`, 2)
		f.looks(20)
		f.want(`line 1: {"b":2}`, 2)
		f.wantNotes()
	}
}

// TestUnchangedFile: looking at a file that has not changed allocates little and reads
// nothing.
func TestUnchangedFile(t *testing.T) {
	f := newFixture(t, "a.json")
	f.write("a.json", "[]")
	f.mustLoad()
	f.looks(20)
	if !f.settled {
		t.Error("the file has not settled")
	}
	if n := testing.AllocsPerRun(100, func() { f.look(t.Context(), f) }); n > 10 {
		t.Errorf("%.0f allocations", n)
	}
}

// TestSameTimeAndSize: a second change in the same moment, of the same size, is found
// when the file is quiet.
func TestSameTimeAndSize(t *testing.T) {
	f := newFixture(t, "a.json")
	f.write("a.json", `[{"a":1}]`)
	f.mustLoad()
	path := filepath.Join(f.dir, "a.json")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, []byte(`[{"a":2}]`), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	f.looks(9)
	f.want(`line 1: {"a":2}`, 2)
	f.looks(20)
	f.want(`line 1: {"a":2}`, 2)
}

// TestHalfWritten: what looks as if somebody were writing it waits for two quiet
// seconds.
func TestHalfWritten(t *testing.T) {
	for name, test := range map[string]struct{ before, half, inForce, notes string }{
		"a.json":   {`[{"a":1},{"b":2}]`, `[{"a":1},`, "", "line 1: {\"a\":1}; line 1: error: the array does not end; close it with ]"},
		"no.jsonl": {"{\"a\":1}\n", "{\"a\":1}\n{\"b\":2}", `line 1: {"a":1}; line 2: {"b":2}`, ""},
		"c.jsonl":  {"{\"a\":1}\n{\"b\":2}\n", "{\"a\":1}\n{\"b\"", "", `line 1: {"a":1}; line 2: error: the text ends within a record; write the rest`},
		"b.jsonl":  {"{\"a\":1}\n{\"b\":2}\n", "{\"a\":1}\n", `line 1: {"a":1}`, ""},
		"b.yaml":   {"- a: 1\n- b: 2\n", "- a: 1\n", `line 1: {"a":1}`, ""},
		"e.jsonl":  {"{\"a\":1}\n", "", "", "error: it has no record; write [] into a file if there are no clients"},
		"e.yaml":   {"- a: 1\n", "", "", "error: it has no record; write [] into a file if there are no clients"},
		"e.json":   {"[]", "", "", `line 1: error: it is not a JSON array; write the records as [{"client_id": …}, …], or one in each line of a file named *.jsonl`},
	} {
		f := newFixture(t, name)
		f.write(name, test.before)
		f.mustLoad()
		before := f.inForce
		f.write(name, test.half)
		f.looks(8)
		f.want(before, 1)
		f.looks(1)
		if test.notes == "" {
			f.want(test.inForce, 2)
			continue
		}
		f.want(before, 2)
		f.wantNotes(test.notes)
		f.write(name, test.before)
		f.looks(2)
		f.want(before, 3)
	}
}

// TestGoneFile: without its file, a source keeps what it has.
func TestGoneFile(t *testing.T) {
	f := newFixture(t, "a.json")
	if err := f.Load(t.Context(), f); !errors.Is(err, os.ErrNotExist) || errors.Is(err, clients.ErrUnavailable) {
		t.Error(err)
	}
	f.write("a.json", `[{"a":1}]`)
	f.mustLoad()
	if err := os.Remove(filepath.Join(f.dir, "a.json")); err != nil {
		t.Fatal(err)
	}
	f.looks(8)
	f.wantNotes()
	f.looks(20)
	f.wantNotes("stat DIR/a.json: no such file or directory")
	f.write("a.json", `[{"a":1}]`)
	f.looks(2)
	f.want(`line 1: {"a":1}`, 2)
}

// TestRefusedFile: what the sink has refused is handed over again from time to time, and
// when it has changed.
func TestRefusedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		f := newFixture(t, "a.json")
		f.write("a.json", `[{"a":1}]`)
		f.mustLoad()
		f.refuse = errors.New("another client has it")
		f.write("a.json", `[{"b":2}]`)
		f.looks(20)
		f.want(`line 1: {"a":1}`, 2)
		if until := time.Until(f.retry); until != retryPause {
			t.Errorf("the next attempt comes after %s", until)
		}
		f.refuse, f.retry = nil, time.Time{}
		f.looks(1)
		f.want(`line 1: {"b":2}`, 3)
		f.refuse = errors.New("another client has it")
		f.write("a.json", `[{"c":3}]`)
		f.looks(2)
		f.refuse = nil
		f.write("a.json", `[{"d":4}]`)
		f.looks(2)
		f.want(`line 1: {"d":4}`, 5)
	})
}

func TestFolder(t *testing.T) {
	f := newFixture(t, "clients.d")
	f.write("clients.d/b.json", `[{"b":1}]`)
	f.write("clients.d/a.jsonl", "{\"a\":1}\n{\"a\":2}\n")
	f.write("clients.d/c.yaml", "- c: 1\n")
	f.write("clients.d/deep/d.json", "broken")
	for _, ignored := range []string{".hidden.json", ".b.json.swp", "b.json~", "#b.json#", ".#b.json"} {
		f.write("clients.d/"+ignored, "broken")
	}
	f.mustLoad()
	f.want(`a.jsonl, line 1: {"a":1}; a.jsonl, line 2: {"a":2}; b.json, line 1: {"b":1}; c.yaml, line 1: {"c":1}`, 1)
	f.looks(20)
	f.want(f.inForce, 1)

	f.write("clients.d/a.jsonl", "{\"a\":3}\n{\"a\":4}\n")
	f.looks(2)
	f.want(`a.jsonl, line 1: {"a":3}; a.jsonl, line 2: {"a":4}; b.json, line 1: {"b":1}; c.yaml, line 1: {"c":1}`, 2)
	f.write("clients.d/e.json", `[{"e":1}]`)
	f.looks(2)
	f.want(`a.jsonl, line 1: {"a":3}; a.jsonl, line 2: {"a":4}; b.json, line 1: {"b":1}; c.yaml, line 1: {"c":1}; e.json, line 1: {"e":1}`, 3)
	f.looks(20)

	// a file that is gone counts when it does not come back
	path := filepath.Join(f.dir, "clients.d")
	if err := errors.Join(os.Remove(path+"/a.jsonl"), os.Remove(path+"/e.json"), os.Rename(path+"/b.json", path+"/z.json")); err != nil {
		t.Fatal(err)
	}
	f.looks(8)
	f.want(f.inForce, 3)
	f.looks(1)
	f.want(`c.yaml, line 1: {"c":1}; z.json, line 1: {"b":1}`, 4)
	f.looks(20)
	f.want(f.inForce, 4)

	// one broken file, and the others stay as they are
	f.write("clients.d/c.yaml", "- c: 2\n")
	f.write("clients.d/z.json", `[{"z":]`)
	f.looks(20)
	f.want(`c.yaml, line 1: {"c":1}; z.json, line 1: {"b":1}`, 5)
	f.wantNotes(`c.yaml, line 1: {"c":2}; z.json, line 1: error: ']' does not close what is open`)

	// no file at all is a folder that is not mounted rather than a list without clients
	if err := errors.Join(os.Remove(path+"/c.yaml"), os.Remove(path+"/z.json")); err != nil {
		t.Fatal(err)
	}
	f.looks(20)
	f.want(f.inForce, 5)
	f.wantNotes("folder DIR/clients.d has no clients file (*.json, *.jsonl, *.ndjson, *.yaml or *.yml); write [] into one if there are no clients")
	f.write("clients.d/none.json", "[]")
	f.looks(9)
	f.want("", 6)
}

// TestForeignFile: a file that is not one of clients is reported, once, and hurts no one.
func TestForeignFile(t *testing.T) {
	f := newFixture(t, "clients.d")
	f.write("clients.d/a.json", `[{"a":1}]`)
	f.write("clients.d/README.txt", "hello")
	f.mustLoad()
	f.looks(40)
	f.write("clients.d/b.json", `[{"b":1}]`)
	f.looks(2)
	f.want(`a.json, line 1: {"a":1}; b.json, line 1: {"b":1}`, 2)
	if logs := f.logs.TakeAll(); len(logs) != 1 || logs[0].Message != "files in clients folder ignored" || fmt.Sprint(logs[0].ContextMap()["files"]) != "[README.txt]" {
		t.Errorf("%v", logs)
	}
	f.write("clients.d/a\n.jsn", "[]")
	f.looks(2)
	if logs := f.logs.TakeAll(); len(logs) != 1 || fmt.Sprint(logs[0].ContextMap()["files"]) != `[README.txt a\n.jsn]` {
		t.Errorf("%v", logs)
	}
}

// TestSymlinkFarm: a folder as Kubernetes mounts it, where a change swaps one link.
func TestSymlinkFarm(t *testing.T) {
	for name, path := range map[string]string{"folder": "clients.d", "file": "clients.d/a.json"} {
		f := newFixture(t, path)
		f.write("clients.d/..2026_1/a.json", `[{"a":1}]`)
		f.write("clients.d/..2026_2/a.json", `[{"a":2}]`)
		dir := filepath.Join(f.dir, "clients.d")
		if err := errors.Join(os.Symlink("..2026_1", dir+"/..data"), os.Symlink("..data/a.json", dir+"/a.json")); err != nil {
			t.Fatal(err)
		}
		f.mustLoad()
		f.looks(20)
		if err := errors.Join(os.Symlink("..2026_2", dir+"/..new"), os.Rename(dir+"/..new", dir+"/..data"), os.RemoveAll(dir+"/..2026_1")); err != nil {
			t.Fatal(err)
		}
		f.looks(2)
		if f.replaced != 2 || !strings.HasSuffix(f.inForce, `line 1: {"a":2}`) {
			t.Errorf("%s: %s after %d reads", name, f.inForce, f.replaced)
		}
		f.wantNotes()
	}
}

// TestNotAFile: what is not a file of clients is an error at once, even if reading it
// would never end.
func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.json")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe:        "pipe.json is not a regular file",
		dir:         "pipe.json is not a regular file", // in a folder
		"/dev/zero": "/dev/zero is not a regular file",
		dir + "/x":  "no such file or directory",
		"":          "no such file or directory",
	} {
		f := newFixture(t, "x")
		f.config.Path = path
		if err := f.Load(t.Context(), f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, _, err := open(pipe); !errors.Is(err, errNotRegular) {
		t.Errorf("a pipe in place of the file: %v", err)
	}
}

// TestUnreadable: a file or a folder without permission is an error that says so.
func TestUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	f := newFixture(t, "clients.d")
	f.write("clients.d/a.json", "[]")
	for _, path := range []string{"clients.d/a.json", "clients.d"} {
		if err := os.Chmod(filepath.Join(f.dir, path), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Load(t.Context(), f); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Error(err)
		}
	}
	if err := os.Chmod(filepath.Join(f.dir, "clients.d"), 0o700); err != nil { // for the end of the test
		t.Error(err)
	}
}

// TestSparseFile: a file of ten gigabytes without content is refused at once, whatever
// its format, without reading it into memory.
func TestSparseFile(t *testing.T) {
	for name, start := range map[string]string{"a.json": "[", "b.json": "", "a.jsonl": "", "b.jsonl": "{}\n", "a.yaml": "- a: 1\n"} {
		f := newFixture(t, name)
		f.write(name, start)
		if err := os.Truncate(filepath.Join(f.dir, name), 10<<30); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := f.Load(t.Context(), f)
		runtime.ReadMemStats(&after)
		if err == nil || after.TotalAlloc-before.TotalAlloc > 64<<20 {
			t.Errorf("%s: %v, %d bytes", name, err, after.TotalAlloc-before.TotalAlloc)
		}
	}
}

// TestEndsWithContext: reading ends when the start has taken too long.
func TestEndsWithContext(t *testing.T) {
	f := newFixture(t, "a.jsonl")
	f.write("a.jsonl", "{}\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("too slow"))
	if err := f.Load(ctx, f); err == nil || !strings.Contains(err.Error(), "too slow") {
		t.Error(err)
	}
}

// TestChangedWhileRead: a file that changes while it is read is not put in force, and is
// read again.
func TestChangedWhileRead(t *testing.T) {
	f := newFixture(t, "a.jsonl")
	f.write("a.jsonl", "{\"a\":1}\n")
	sum := f.newSum()
	var failure error
	for _, err := range readFile(t.Context(), filepath.Join(f.dir, "a.jsonl"), sum) {
		f.now = f.now.Add(time.Second)
		f.write("a.jsonl", "{\"a\":2}\n")
		failure = err
	}
	if !errors.Is(failure, errChanged) {
		t.Error(failure)
	}
}

// TestChangeOfLargeFileIsSeenSoon: however long it takes to read a file, the next change
// of it, which may disable a client, is looked for within ten seconds.
func TestChangeOfLargeFileIsSeenSoon(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		0: source.LookInterval, 100 * time.Millisecond: 2 * time.Second, 4 * time.Second: 10 * time.Second, time.Minute: 10 * time.Second,
	} {
		if got := restAfter(took); got != want {
			t.Errorf("after %v, it rests %v, want %v", took, got, want)
		}
	}
}

func TestWatchEnds(t *testing.T) {
	f := newFixture(t, "a.json")
	f.write("a.json", `[{"a":1}]`)
	f.mustLoad()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { f.Watch(ctx, f); close(done) }()
	cancel()
	<-done
}
