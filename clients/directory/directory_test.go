package directory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const (
	sha256Hex = "bca0d040847f843c5ee0fa6eb494837470155868bca0d040847f843c5ee0fa6e"
	sha1Hex   = "bca0d040847f843c5ee0fa6eb494837470155868"
)

// world is a directory, the files and URLs that it reads, its clock, and what it has
// reported.
type world struct {
	*Directory
	t      *testing.T
	dir    string
	config Config

	mu      sync.Mutex
	now     time.Time
	web     map[string][]byte
	fetched map[string]int
	refuse  string // a client that Use refuses
	said    []string
	uses    int
	files   []*testFile
}

// testFile is a source whose records are in a JSON file. It hands them over when its
// world polls.
type testFile struct {
	w       *world
	path    string
	sink    clients.Sink
	content []byte
	failed  bool
}

// file returns the source of a file.
func (w *world) file(name string) *testFile {
	f := &testFile{w: w, path: w.path(name)}
	w.files = append(w.files, f)
	return f
}

func (f *testFile) Info() clients.SourceInfo {
	return clients.SourceInfo{Name: "file:" + f.path, NamesFiles: true}
}

func (f *testFile) Watch(context.Context, clients.Sink) {}

func (f *testFile) Load(ctx context.Context, sink clients.Sink) (err error) {
	f.sink = sink
	if f.content, err = os.ReadFile(f.path); err != nil {
		return err
	}
	return f.handOver(ctx)
}

func (f *testFile) handOver(ctx context.Context) error {
	var records []json.RawMessage
	err := json.Unmarshal(f.content, &records)
	var entries []clients.Entry
	for i, record := range records {
		entries = append(entries, clients.Entry{Record: record, Place: fmt.Sprintf("record %d", i+1)})
	}
	return f.sink.Replace(ctx, all(entries, err))
}

func (f *testFile) poll(ctx context.Context) {
	content, err := os.ReadFile(f.path)
	if err != nil {
		f.sink.Note(err)
		return
	}
	if bytes.Equal(content, f.content) && !f.failed {
		f.sink.Note(nil)
		return
	}
	f.content = content
	f.failed = f.handOver(ctx) != nil
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), web: map[string][]byte{}, fetched: map[string]int{}}
	w.config = Config{
		Now: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
		Fetch: func(_ context.Context, address string, _ int64) (source.Document, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.fetched[address]++
			content, ok := w.web[address]
			if !ok {
				return source.Document{}, errors.New("nothing there")
			}
			return source.Document{Content: content}, nil
		},
		Use: func(r *clients.Registry) error {
			w.uses++
			if r.Client(w.refuse) != nil {
				return fmt.Errorf("client '%s' is refused", w.refuse)
			}
			return nil
		},
		Logger: zap.New(spoken{w: w}),
	}
	return w
}

// spoken is a log whose lines the world has said.
type spoken struct {
	w    *world
	with []zapcore.Field
}

func (spoken) Enabled(zapcore.Level) bool { return true }
func (spoken) Sync() error                { return nil }

func (s spoken) With(fields []zapcore.Field) zapcore.Core {
	return spoken{s.w, slices.Concat(s.with, fields)}
}

func (s spoken) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, s)
}

func (s spoken) Write(e zapcore.Entry, fields []zapcore.Field) error {
	log := zapcore.NewMapObjectEncoder()
	for _, field := range slices.Concat(s.with, fields) {
		field.AddTo(log)
	}
	thumbprint := fmt.Sprintf("%.4s", log.Fields["thumbprint"])
	switch e.Level.String() + ": " + e.Message {
	case "error: client source failed; keeping previous clients", "info: client source in force":
		err, failed := log.Fields["error"]
		if !failed {
			err = "<nil>"
		}
		s.w.say("%s, %s: %s", log.Fields["source"], log.Fields["place"], err)
	case "error: client record refused; a source of a higher rank has its client_id or credential":
		s.w.say("refused: %s of %s for %s of %s", log.Fields["client_id"], log.Fields["source"], log.Fields["holder"], log.Fields["holder_source"])
	case "info: client record no longer refused":
		s.w.say("admitted: %s of %s", log.Fields["client_id"], log.Fields["source"])
	case "error: client record skipped; it is wrong":
		s.w.say("skipped: %s of %s: %s", log.Fields["client_id"], log.Fields["source"], log.Fields["error"])
	case "error: certificate in JWKS ignored; it fits a credential of another client":
		s.w.say("ignored: %s of %s for %s", thumbprint, log.Fields["holder"], log.Fields["client_id"])
	case "error: certificate in the JWKS of several clients is ambiguous":
		s.w.say("ambiguous: %s of %q", thumbprint, log.Fields["client_ids"])
	case "info: certificate no longer in the JWKS of several clients":
		s.w.say("unambiguous: %s of %q", thumbprint, log.Fields["client_ids"])
	case "error: reading JWKS copies failed; waiting for fetches":
		s.w.say("copies: %s", log.Fields["error"])
	case "info: loading clients":
		s.w.say("loading: %v of %s after %v", log.Fields["read"], log.Fields["source"], log.Fields["after"])
	case "info: clients loaded":
		s.w.say("loaded: %v of %s after %v", log.Fields["records"], log.Fields["source"], log.Fields["after"])
	default:
		s.w.say("%sing: %s", e.Level, e.Message)
	}
	return nil
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, strings.ReplaceAll(fmt.Sprintf(format, args...), w.dir+string(filepath.Separator), ""))
}

// saw takes what was said and wants it to hold each of these, and no more lines.
func (w *world) saw(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.said) != len(want) {
		w.t.Errorf("said %q, want %q", w.said, want)
	}
	for i := range min(len(want), len(w.said)) {
		if !strings.Contains(w.said[i], want[i]) {
			w.t.Errorf("said %q, want %q", w.said[i], want[i])
		}
	}
	w.said = nil
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// write writes a file in place, at the time of the clock.
func (w *world) write(name string, content []byte) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chtimes(w.path(name), w.now, w.now); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) records(name string, records ...clients.Record) {
	w.t.Helper()
	text, err := json.Marshal(records)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(name, text)
}

func (w *world) load() error {
	var err error
	if w.Directory, err = New(w.t.Context(), w.config); err == nil {
		w.maxHold = time.Hour // the machine may be busy
	}
	return err
}

func (w *world) mustLoad() {
	w.t.Helper()
	if err := w.load(); err != nil {
		w.t.Fatal(err)
	}
}

// poll polls twice after a while, because the second poll finds what was fetched.
func (w *world) poll(after time.Duration) {
	w.t.Helper()
	w.mu.Lock()
	w.now = w.now.Add(after)
	w.mu.Unlock()
	poll := func() {
		for _, f := range w.files {
			f.poll(w.t.Context())
		}
		w.Poll(w.t.Context())
	}
	poll()
	wait := func() {
		if len(w.documents.urls.all) > 0 {
			synctest.Wait()
		}
	}
	wait()
	poll()
	wait()
}

// ids are the clients, sorted.
func (w *world) ids() string {
	var ids []string
	for client := range w.Registry().All() {
		ids = append(ids, client.ID)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

func (w *world) wantClients(want string) {
	w.t.Helper()
	if got := w.ids(); got != want {
		w.t.Errorf("clients %q, want %q", got, want)
	}
}

func (w *world) wantPin(leaf *testpki.Leaf, want string) {
	w.t.Helper()
	if got := who(w.Registry(), leaf); got != want {
		w.t.Errorf("pin %q, want %q", got, want)
	}
}

// who returns the clients that have the certificate as a pin, and the kind of pin.
func who(r *clients.Registry, leaf *testpki.Leaf) string {
	var ids []string
	for _, pin := range r.Pins(leaf.Cert, sha256.Sum256(leaf.Cert.Raw)) {
		ids = append(ids, pin.Client.ID+" by "+string(pin.Kind))
	}
	return strings.Join(ids, ", ")
}

func pinned(id string) clients.Record {
	sum := sha256.Sum256([]byte(id))
	return clients.Record{ClientID: id, Thumbprints: clients.Strings{hex.EncodeToString(sum[:])}}
}

func (w *world) state(source string) SourceState {
	w.t.Helper()
	for _, state := range w.States(100) {
		if strings.ReplaceAll(state.Source, w.dir+string(filepath.Separator), "") == source {
			return state
		}
	}
	w.t.Errorf("no state of %s in %+v", source, w.States(100))
	return SourceState{}
}

func TestDirectoryOfFiles(t *testing.T) {
	w := newWorld(t)
	w.records("a.json", pinned("a1"), pinned("a2"))
	w.records("b.json", pinned("b1"))
	w.config.Records = []clients.Record{pinned("c")}
	w.config.Sources = []clients.Source{w.file("a.json"), w.file("b.json")}
	w.mustLoad()
	w.wantClients("a1 a2 b1 c")
	w.poll(time.Hour)
	w.saw()
	if w.uses != 0 {
		t.Error("nothing has changed, but there is another registry")
	}
	before := w.Registry().Client("b1")

	w.records("a.json", pinned("a1"), pinned("a3"))
	w.poll(0)
	w.wantClients("a1 a3 b1 c")
	w.saw("clients:a.json, file:a.json: <nil>")
	if w.Registry().Client("b1") != before || w.uses != 1 {
		t.Error("what has not changed was made anew")
	}
	if got := fmt.Sprint(w.Sizes()); strings.ReplaceAll(got, w.dir+string(filepath.Separator), "") != "[{config 1 0} {file:a.json 2 0} {file:b.json 1 0}]" {
		t.Error(got)
	}
	changed := w.now

	// B4: broken, refused, gone: the old state stays, and it is reported once
	w.write("a.json", []byte(`[{"client_id":"a4"`))
	w.poll(time.Minute)
	w.saw("clients:a.json, file:a.json: unexpected end")
	w.poll(time.Minute)
	w.saw()
	w.wantClients("a1 a3 b1 c")
	if state := w.state("clients:a.json"); !state.Success.Equal(changed) || state.Failure == "" {
		t.Errorf("%+v at %s", state, w.now)
	}
	w.records("a.json", pinned("a1"), pinned("a1"))
	w.poll(time.Minute)
	w.saw("record 2: client 'a1' is twice in file:a.json; keep one")
	w.poll(time.Minute)
	w.saw()
	w.wantClients("a1 a3 b1 c")
	if state := w.state("clients:a.json"); !state.Success.Equal(changed) || !strings.Contains(state.Failure, "a1") {
		t.Errorf("%+v", state)
	}

	w.refuse = "x"
	w.records("a.json", pinned("x"))
	w.records("b.json", pinned("b3"))
	w.poll(time.Minute)
	w.wantClients("a1 a3 b3 c")
	w.saw("clients:a.json, file:a.json: client 'x' is refused", "clients:b.json, file:b.json: <nil>")
	w.refuse = ""
	w.poll(time.Minute)
	w.wantClients("b3 c x")
	w.saw("clients:a.json, file:a.json: <nil>")

	if err := os.Remove(w.path("a.json")); err != nil {
		t.Fatal(err)
	}
	w.poll(time.Minute)
	w.saw("clients:a.json, file:a.json: open ")
	w.wantClients("b3 c x")
	w.write("a.json", []byte("[]"))
	w.poll(time.Minute)
	w.saw("warning: client source has no clients", "clients:a.json, file:a.json: <nil>")
	w.wantClients("b3 c")
	if state := w.state("clients:a.json"); state.Failure != "" || !state.Success.Equal(w.now) {
		t.Errorf("%+v", state)
	}
}

func TestDirectoryAtTheStart_B4(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		check bool
		want  string
	}{
		"missing":      {nil, false, "clients from file:a.json: open a.json: no such file"},
		"empty":        {map[string]string{"a.json": ""}, false, "clients from file:a.json: unexpected end of JSON input"},
		"broken":       {map[string]string{"a.json": "[{}"}, false, "clients from file:a.json: unexpected end of JSON input"},
		"bad client":   {map[string]string{"a.json": `[{"client_id":"a"}]`}, false, "clients from file:a.json: record 1: client 'a': no credential"},
		"no https URL": {map[string]string{"a.json": `[{"client_id":"a","jwks_uri":"http://a.example/"}]`}, false, "client 'a': jwks_uri: 'http://a.example/' is not an https URL"},
		"bad claim":    {map[string]string{"a.json": `[{"client_id":"a","jwks_uri":"https://a.example/"}]`}, true, "clients from file:a.json: record 1: client 'a': checked"},
		"two ways":     {map[string]string{"a.json": `[{"client_id":"a","jwks_uri":"https://a.example/","jwks_file":"x"}]`}, false, "keep one (RFC 7591 §2)"},
		"twice":        {map[string]string{"a.json": `[{"client_id":"a","jwks_uri":"https://a.example/"},{"client_id":"a","jwks_uri":"https://a.example/"}]`}, false, "client 'a' is twice in file:a.json; keep one"},
		"no JWKS":      {map[string]string{"a.json": `[{"client_id":"a","jwks_file":"nowhere.json"}]`}, false, "client 'a': jwks 'nowhere.json': stat nowhere.json"},
		"empty JWKS":   {map[string]string{"a.json": `[{"client_id":"a","jwks":{"keys":[]}}]`}, false, "client 'a': jwks 'written out': it has no keys"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for file, text := range test.files {
				w.write(file, []byte(text))
			}
			w.config.Records = []clients.Record{pinned("c")}
			w.config.Sources = []clients.Source{w.file("a.json")}
			if test.check {
				w.config.Check = func(c *clients.Client) error {
					if c.ID == "a" {
						return errors.New("checked")
					}
					return nil
				}
			}
			err := w.load()
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), w.dir+string(filepath.Separator), ""), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// TestDirectoryWatchesCertificateFiles: a certificate file that changes affects its
// client only.
func TestDirectoryWatchesCertificateFiles(t *testing.T) {
	w := newWorld(t)
	one, two, third := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	w.write("a.pem", one.PEM())
	w.write("b.pem", third.PEM())
	w.write("a.jwks", testpki.JWKS(t, two))
	w.config.Records = []clients.Record{
		{ClientID: "a", CertificateFiles: clients.Strings{w.path("a.pem")}}, {ClientID: "b", CertificateFiles: clients.Strings{w.path("b.pem")}},
		{ClientID: "j", JWKSFile: w.path("a.jwks")}, pinned("c"),
	}
	w.mustLoad()
	w.wantPin(one, "a by certificate")
	w.wantPin(two, "j by jwks")
	w.poll(time.Hour)
	w.saw()
	other, same := w.Registry().Client("b"), w.Registry().Client("a")

	w.write("a.pem", two.PEM()) // declared, so that it is no longer the JWKS's
	w.poll(0)
	w.wantPin(one, "")
	w.wantPin(two, "a by certificate")
	w.saw("ignored: ", "certificate:a.pem, a.pem: <nil>")
	if w.Registry().Client("b") != other || w.Registry().Client("a") == same {
		t.Error("the wrong client was made anew")
	}
	w.write("a.pem", third.PEM()) // that of b
	w.poll(time.Minute)
	w.wantPin(two, "a by certificate")
	w.wantPin(third, "b by certificate")
	w.saw("is also a credential of client '")
	w.write("b.pem", one.PEM())
	w.poll(time.Minute)
	w.wantPin(third, "a by certificate")
	w.wantPin(one, "b by certificate")
	w.wantPin(two, "j by jwks")
	w.saw("certificate:a.pem, a.pem: <nil>", "certificate:b.pem, b.pem: <nil>")

	for _, broken := range []string{"", "no PEM", string(one.KeyPEM())} {
		w.write("a.pem", []byte(broken))
		w.write("a.jwks", []byte(broken))
		w.poll(time.Minute)
		w.saw()
		w.poll(source.QuietTime)
		w.wantPin(third, "a by certificate")
		w.wantPin(two, "j by jwks")
		w.mu.Lock()
		if len(w.said) != 2 {
			t.Errorf("said %q", w.said)
		}
		w.said = nil
		w.mu.Unlock()
		w.poll(time.Minute)
		w.saw()
		if w.state("certificate:a.pem").Failure == "" || w.state("jwks:j").Failure == "" {
			t.Error("no failure is known")
		}
	}
	w.write("a.jwks", testpki.JWKS(t, testpki.MustSelfSigned(t), two))
	w.write("a.pem", third.PEM())
	w.poll(time.Minute)
	w.saw("certificate:a.pem", "jwks:j") // the one is as before, and waits for nothing
	if state := w.state("jwks:j"); state.Failure != "" || !state.Success.Equal(w.now) {
		t.Errorf("%+v", state)
	}
}

// TestDirectoryLooksAtManyFilesInTurn: with very many files a poll looks at
// some of them.
func TestDirectoryLooksAtManyFilesInTurn(t *testing.T) {
	w := newWorld(t)
	leaves := []*testpki.Leaf{testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)}
	for i := range maxLooks + 10 {
		name := fmt.Sprintf("%d.pem", i)
		w.write(name, leaves[0].PEM())
		w.config.Records = append(w.config.Records, clients.Record{ClientID: fmt.Sprint("a", i), SharedCredential: true, CertificateFiles: clients.Strings{w.path(name)}})
	}
	w.mustLoad()
	for i := range maxLooks + 10 {
		w.write(fmt.Sprintf("%d.pem", i), leaves[1].PEM())
	}
	w.Poll(t.Context())
	if got := len(w.Registry().Pins(leaves[1].Cert, sha256.Sum256(leaves[1].Cert.Raw))); got != maxLooks {
		t.Errorf("%d after one poll", got)
	}
	w.Poll(t.Context())
	if got := len(w.Registry().Pins(leaves[1].Cert, sha256.Sum256(leaves[1].Cert.Raw))); got != maxLooks+10 {
		t.Errorf("%d after two polls", got)
	}
}
