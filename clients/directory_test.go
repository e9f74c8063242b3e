package clients

import (
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

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// world is a directory, the files and URLs that it reads, its clock, and what it has
// reported.
type world struct {
	*Directory
	t      *testing.T
	dir    string
	config DirectoryConfig

	mu      sync.Mutex
	now     time.Time
	web     map[string][]byte
	fetched map[string]int
	refuse  string // a client that Use refuses
	said    []string
	uses    int
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), web: map[string][]byte{}, fetched: map[string]int{}}
	w.config = DirectoryConfig{
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
		Use: func(r *Registry) error {
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
	case "error: certificate in JWKS ignored; it fits a credential of another client":
		s.w.say("ignored: %s of %s for %s", thumbprint, log.Fields["holder"], log.Fields["client_id"])
	case "error: certificate in the JWKS of several clients is ambiguous":
		s.w.say("ambiguous: %s of %q", thumbprint, log.Fields["client_ids"])
	case "info: certificate no longer in the JWKS of several clients":
		s.w.say("unambiguous: %s of %q", thumbprint, log.Fields["client_ids"])
	case "error: reading JWKS copies failed; waiting for fetches":
		s.w.say("copies: %s", log.Fields["error"])
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

func (w *world) records(name string, records ...Record) {
	w.t.Helper()
	text, err := json.Marshal(records)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(name, text)
}

func (w *world) load() error {
	var err error
	w.Directory, err = NewDirectory(w.t.Context(), w.config)
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
	w.Poll(w.t.Context())
	wait := func() {
		if len(w.documents.urls) > 0 {
			synctest.Wait()
		}
	}
	wait()
	w.Poll(w.t.Context())
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

func pinned(id string) Record {
	sum := sha256.Sum256([]byte(id))
	return Record{ClientID: id, Thumbprints: Strings{hex.EncodeToString(sum[:])}}
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
	w.config.Records = []Record{pinned("c")}
	w.config.Polled = []PolledSource{NewFileSource(w.path("a.json")), NewFileSource(w.path("b.json"))}
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
	if got := fmt.Sprint(w.Sizes()); strings.ReplaceAll(got, w.dir+string(filepath.Separator), "") != "[{config 1} {file:a.json 2} {file:b.json 1}]" {
		t.Error(got)
	}
	changed := w.now

	// B4: broken, in conflict, refused, gone: the old state stays, and it is
	// reported once, unless the file is still being written
	w.write("a.json", []byte(`[{"client_id":"a4"`))
	w.poll(time.Minute)
	w.saw()
	if state := w.state("clients:a.json"); state.Failure != "" {
		t.Errorf("%+v", state)
	}
	w.poll(source.QuietTime)
	w.saw("clients:a.json, file:a.json: record 1")
	w.poll(time.Minute)
	w.saw()
	w.wantClients("a1 a3 b1 c")
	if state := w.state("clients:a.json"); !state.Success.Equal(changed) || state.Failure == "" {
		t.Errorf("%+v at %s", state, w.now)
	}
	w.records("a.json", pinned("a1"), pinned("b1"))
	w.poll(time.Minute)
	w.saw("client 'b1' is in file:")
	w.poll(time.Minute)
	w.saw()
	w.wantClients("a1 a3 b1 c")
	if state := w.state("clients:a.json"); !state.Success.Equal(changed) || !strings.Contains(state.Failure, "b1") {
		t.Errorf("%+v", state)
	}
	// the other file drops the client, and the pending change gets in force
	w.records("b.json", pinned("b2"))
	w.poll(time.Minute)
	w.wantClients("a1 b1 b2 c")
	w.saw("clients:a.json, file:a.json: <nil>", "clients:b.json, file:b.json: <nil>")

	w.refuse = "x"
	w.records("a.json", pinned("x"))
	w.records("b.json", pinned("b3"))
	w.poll(time.Minute)
	w.wantClients("a1 b1 b3 c")
	w.saw("clients:b.json, file:b.json: <nil>", "clients:a.json, file:a.json: client 'x' is refused")
	// a pending change is dropped when the file breaks
	w.write("a.json", []byte("["))
	w.poll(time.Minute)
	w.poll(source.QuietTime)
	w.saw("clients:a.json, file:a.json: after record 0")
	w.refuse = ""
	w.records("b.json", pinned("b4"))
	w.poll(time.Minute)
	w.wantClients("a1 b1 b4 c")
	w.saw("clients:b.json, file:b.json: <nil>")

	if err := os.Remove(w.path("a.json")); err != nil {
		t.Fatal(err)
	}
	w.poll(time.Minute)
	w.poll(source.QuietTime)
	w.saw("clients:a.json, file:a.json: stat ")
	w.wantClients("a1 b1 b4 c")
	w.write("a.json", []byte("[]"))
	w.poll(time.Minute)
	w.saw("warning: clients from file:a.json: source has no clients", "clients:a.json, file:a.json: <nil>")
	w.wantClients("b4 c")
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
		"missing":      {nil, false, "clients from file:a.json: stat "},
		"empty":        {map[string]string{"a.json": ""}, false, "clients from file:a.json: not a JSON array"},
		"broken":       {map[string]string{"a.json": "[{}"}, false, "clients from file:a.json: after record 1"},
		"bad client":   {map[string]string{"a.json": `[{"client_id":"a"}]`}, false, "clients from file:a.json: client 'a': no credential"},
		"no https URL": {map[string]string{"a.json": `[{"client_id":"a","jwks_uri":"http://a.example/"}]`}, false, "client 'a': jwks_uri: 'http://a.example/' is not an https URL"},
		"bad claim":    {map[string]string{"a.json": `[{"client_id":"a","jwks_uri":"https://a.example/"}]`}, true, "clients from file:a.json: checked"},
		"two ways":     {map[string]string{"a.json": `[{"client_id":"a","jwks_uri":"https://a.example/","jwks_file":"x"}]`}, false, "keep one (RFC 7591 §2)"},
		"twice":        {map[string]string{"a.json": `[{"client_id":"a","jwks_uri":"https://a.example/"},{"client_id":"a","jwks_uri":"https://a.example/"}]`}, false, "client 'a' is in file:a.json and again in file:a.json; keep one"},
		"no JWKS":      {map[string]string{"a.json": `[{"client_id":"a","jwks_file":"nowhere.json"}]`}, false, "client 'a': jwks 'nowhere.json': stat nowhere.json"},
		"empty JWKS":   {map[string]string{"a.json": `[{"client_id":"a","jwks":{"keys":[]}}]`}, false, "client 'a': jwks 'written out': it has no keys"},
		"in the configuration": {
			map[string]string{"a.json": `[{"client_id":"c","jwks_uri":"https://a.example/"}]`}, false, "client 'c' is in config and again in file:a.json; keep one",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for file, text := range test.files {
				w.write(file, []byte(text))
			}
			w.config.Records = []Record{pinned("c")}
			w.config.Polled = []PolledSource{NewFileSource(w.path("a.json"))}
			if test.check {
				w.config.Check = func(c *Client) error {
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
	w.config.Records = []Record{
		{ClientID: "a", CertificateFiles: Strings{w.path("a.pem")}}, {ClientID: "b", CertificateFiles: Strings{w.path("b.pem")}},
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
		w.config.Records = append(w.config.Records, Record{ClientID: fmt.Sprint("a", i), SharedCredential: true, CertificateFiles: Strings{w.path(name)}})
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

// TestDirectoryTriesAgain: a pending change is tried again, because a file that it
// names may have appeared.
func TestDirectoryTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		leaf := testpki.MustSelfSigned(t)
		w.records("a.json", Record{ClientID: "old", Thumbprints: Strings{sha256Hex}})
		w.config.Polled = []PolledSource{NewFileSource(w.path("a.json"))}
		w.mustLoad()
		w.records("a.json", Record{ClientID: "new", JWKSFile: w.path("late.json")})
		w.poll(time.Second)
		w.saw("clients:a.json, file:a.json: clients from file:a.json: client 'new': jwks 'late.json': ")
		w.poll(retryPause)
		w.saw()
		w.write("late.json", testpki.JWKS(t, leaf))
		w.poll(time.Second)
		w.wantPin(leaf, "")
		w.poll(retryPause)
		w.wantPin(leaf, "new by jwks")
		w.saw("clients:a.json, file:a.json: <nil>")
		if state := w.state("clients:a.json"); state.Failure != "" {
			t.Errorf("%+v", state)
		}
		// a file without clients is reported
		w.write("a.json", []byte("[]"))
		w.poll(time.Second)
		w.wantPin(leaf, "")
		w.saw("warning: clients from file:a.json: source has no clients", "clients:a.json, file:a.json: <nil>")
	})
}
