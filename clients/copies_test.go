package clients

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const urlA, urlB = "https://a.example/", "https://b.example/"

// copyStorage is a storage that can be made to fail. It counts the objects written.
type copyStorage struct {
	certmagic.Storage
	// before, if set, is called before each access to an object
	before func(what, object string) error

	mu     sync.Mutex
	stored int
}

func (s *copyStorage) ask(what, object string) error {
	if s.before == nil {
		return nil
	}
	return s.before(what, object)
}

func (s *copyStorage) Load(ctx context.Context, object string) ([]byte, error) {
	if err := s.ask("load", object); err != nil {
		return nil, err
	}
	return s.Storage.Load(ctx, object)
}

func (s *copyStorage) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	if err := s.ask("list", folder); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, folder, recursive)
}

func (s *copyStorage) Store(ctx context.Context, object string, text []byte) error {
	if err := s.ask("store", object); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored++
	return s.Storage.Store(ctx, object, text)
}

// keepCopies gives the world a storage for copies.
func (w *world) keepCopies() *copyStorage {
	kept := &copyStorage{Storage: &certmagic.FileStorage{Path: w.t.TempDir()}}
	w.config.Copies = &KeySetCopies{Storage: kept, Realm: "default", Report: func(err error) { w.say("copies: %v", err) }}
	return kept
}

// copied is a world with two clients whose JWK Sets are behind URLs, which have
// been fetched and stored.
func copied(t *testing.T) (w *world, kept *copyStorage, a, b *testpki.Leaf) {
	w, a, b = newWorld(t), testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	kept = w.keepCopies()
	w.web[urlA], w.web[urlB] = testpki.JWKS(t, a), testpki.JWKS(t, b)
	w.config.Records = []Record{{ClientID: "a", JWKSURI: urlA}, {ClientID: "b", JWKSURI: urlB}}
	w.mustLoad()
	w.poll(0)
	w.wantStored(kept, 2)
	w.said = nil
	return w, kept, a, b
}

func (w *world) wantStored(kept *copyStorage, want int) {
	w.t.Helper()
	kept.stored = 0
	if err := w.SaveCopies(w.t.Context()); err != nil {
		w.t.Error(err)
	}
	if kept.stored != want {
		w.t.Errorf("%d copies were stored, want %d", kept.stored, want)
	}
}

// wantBoth wants both certificates to authenticate their clients, or none.
func (w *world) wantBoth(a, b *testpki.Leaf, want bool) {
	w.t.Helper()
	if !want {
		w.wantPin(a, "")
		w.wantPin(b, "")
		return
	}
	w.wantPin(a, "a by jwks")
	w.wantPin(b, "b by jwks")
}

// TestRestartWithoutJWKSServers: the last JWK Set of each URL counts after a
// restart until it is fetched again, for a day. It is stored when it changes.
func TestRestartWithoutJWKSServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept, a, b := copied(t)
		w.wantStored(kept, 0)
		w.web = nil
		w.now = w.now.Add(23 * time.Hour)
		w.mustLoad()
		w.wantBoth(a, b, true)
		if state := w.state("jwks:a"); state.Success.IsZero() || state.Failure != "" || w.Unfetched() != 0 {
			t.Errorf("%+v, %d unfetched", state, w.Unfetched())
		}
		w.poll(0)
		w.saw("jwks:", "jwks:")
		w.wantBoth(a, b, true)
		w.wantStored(kept, 0) // nothing has been fetched

		// a change is stored, and no other
		next := testpki.MustSelfSigned(t)
		w.web = map[string][]byte{urlA: testpki.JWKS(t, next)}
		w.poll(time.Hour)
		w.wantStored(kept, 1)
		w.web = nil
		w.mustLoad()
		w.wantPin(a, "")
		w.wantPin(next, "a by jwks")
		w.wantPin(b, "") // which is older than a day by now

		// another realm has other copies
		w.config.Copies.Realm = "other"
		w.mustLoad()
		w.wantBoth(next, b, false)
		w.config.Copies.Realm = "default"

		w.now = w.now.Add(25 * time.Hour)
		w.mustLoad()
		w.wantBoth(next, b, false)
		// nor does a copy from far in the future
		w.now = w.now.Add(-120 * time.Hour)
		w.mustLoad()
		w.wantBoth(next, b, false)
	})
}

// TestCopiesAreRenewed: a JWK Set that stays the same is stored again now and
// then, because a copy counts for a day.
func TestCopiesAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept, a, b := copied(t)
		kept.stored = 0
		for range 24 {
			w.poll(time.Hour)
			if err := w.SaveCopies(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if kept.stored != 8 {
			t.Errorf("%d copies were stored in a day", kept.stored)
		}
		w.web = nil
		w.mustLoad()
		w.wantBoth(a, b, true)
	})
}

// TestCopiesAreReadOnce: a reload uses the JWK Sets in memory, and loading a
// configuration writes nothing.
func TestCopiesAreReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept, a, b := copied(t)
		var asked atomic.Int32
		kept.before = func(what, _ string) error {
			if asked.Add(1); what != "load" {
				t.Errorf("loading does '%s'", what)
			}
			return nil
		}
		w.config.Before = w.Directory
		w.mustLoad()
		w.wantBoth(a, b, true)
		if got := asked.Load(); got != 0 {
			t.Errorf("a reload asks storage %d times", got)
		}
		w.config.Before = nil
		w.mustLoad()
		if got := asked.Load(); got != 2 {
			t.Errorf("a start asks storage %d times", got)
		}
		kept.before = nil
		w.wantStored(kept, 0)
	})
}

// TestCopiesThatCannotBeRead are reported and skipped. The next fetch replaces
// them.
func TestCopiesThatCannotBeRead(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "unexpected end of JSON input",
		`{"fetched":"yesterday"`:             "unexpected end of JSON input",
		`{"fetched":1}`:                      "Time.UnmarshalJSON",
		"[]":                                 "cannot unmarshal array",
		"{}":                                 "", // is too old
		`{"fetched":"2026-03-01T12:00:00Z"}`: "",
		`{"fetched":"2026-03-01T12:00:00Z","jwks":{"keys":[]}}`:  "",
		`{"fetched":"2026-03-01T12:00:00Z","jwks":"text"}`:       "",
		`{"fetched":"2026-03-01T12:00:00Z","jwks":{"keys":[7]}}`: "",
	} {
		synctest.Test(t, func(t *testing.T) {
			w, kept, a, b := copied(t)
			object := w.config.Copies.object(urlA)
			if !strings.HasPrefix(object, "mtls/default/jwks/") || !strings.HasSuffix(object, ".json") {
				t.Errorf("object %s", object)
			}
			if err := kept.Storage.Store(t.Context(), object, []byte(text)); err != nil {
				t.Fatal(err)
			}
			w.mustLoad()
			w.wantPin(a, "")
			w.wantPin(b, "b by jwks")
			if want == "" {
				w.saw()
			} else {
				w.saw(want)
			}
			if w.Unfetched() != 1 {
				t.Errorf("%q: %d unfetched", text, w.Unfetched())
			}
			w.poll(0)
			w.wantBoth(a, b, true)
			w.wantStored(kept, 1)
			w.web = nil
			w.mustLoad()
			w.wantBoth(a, b, true)
		})
	}
}

// TestCopiesThatCannotBeStored are stored later, by the next configuration too,
// and keep no others from being stored.
func TestCopiesThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept, a, _ := copied(t)
		next := testpki.MustSelfSigned(t)
		w.web[urlA], w.web[urlB] = testpki.JWKS(t, a, testpki.MustSelfSigned(t)), testpki.JWKS(t, next)
		w.poll(time.Hour)
		full := errors.New("disk full")
		refused := w.config.Copies.object(urlA)
		kept.before = func(what, object string) error {
			if what == "store" && object == refused {
				return full
			}
			return nil
		}
		kept.stored = 0
		for range 2 {
			if err := w.SaveCopies(t.Context()); !errors.Is(err, full) || !strings.Contains(err.Error(), refused) {
				t.Error(err)
			}
		}
		if kept.stored != 1 {
			t.Errorf("%d copies were stored", kept.stored)
		}
		w.config.Before = w.Directory
		w.mustLoad()
		kept.before = nil
		w.wantStored(kept, 1)
		w.wantStored(kept, 0)
	})
}

// TestCopyOfAJWKSThatChangesMeanwhile: what changes while a copy is stored is
// stored by the next call.
func TestCopyOfAJWKSThatChangesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept, a, _ := copied(t)
		next := testpki.MustSelfSigned(t)
		w.web[urlA] = testpki.JWKS(t, a, next)
		w.poll(time.Hour)
		kept.before = func(what, _ string) error {
			if what == "store" {
				kept.before = nil
				w.web[urlA] = testpki.JWKS(t, next)
				w.poll(time.Hour)
			}
			return nil
		}
		w.wantStored(kept, 1)
		w.wantStored(kept, 1)
		w.wantStored(kept, 0)
	})
}

// TestCopiesInABrokenStorage: a storage module that panics is an error, and one
// that hangs is waited for a while. Neither keeps a realm from starting.
func TestCopiesInABrokenStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept, a, b := copied(t)
		broken := w.config.Copies.object(urlA)
		w.web[urlA] = testpki.JWKS(t, a, testpki.MustSelfSigned(t))
		w.poll(time.Hour)
		w.said = nil
		panics := func(_, object string) error {
			if object == broken || object == w.config.Copies.folder() {
				panic("a bug")
			}
			return nil
		}
		kept.before = panics
		if err := w.SaveCopies(t.Context()); err == nil || !strings.Contains(err.Error(), "storage panicked: a bug") {
			t.Error(err)
		}
		w.config.Copies.deleteUnused(t.Context(), w.now)
		running := w.Directory
		w.mustLoad()
		w.saw("storage panicked: a bug")
		w.wantPin(a, "")
		w.wantPin(b, "b by jwks")

		mended := make(chan struct{})
		kept.before = func(_, object string) error {
			if object == broken || object == w.config.Copies.folder() {
				<-mended
				return errors.New("too late")
			}
			return nil
		}
		began := time.Now()
		if err := running.SaveCopies(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		w.config.Copies.deleteUnused(t.Context(), w.now)
		w.mustLoad()
		w.saw("storage does not answer")
		if took := time.Since(began); took != 3*copyTimeout {
			t.Errorf("it took %v", took)
		}
		w.wantPin(a, "")
		w.wantPin(b, "b by jwks")
		close(mended)
		synctest.Wait()
	})
}

// statless is a storage that does not know when something was written.
type statless struct{ certmagic.Storage }

func (s statless) Stat(ctx context.Context, object string) (certmagic.KeyInfo, error) {
	info, err := s.Storage.Stat(ctx, object)
	info.Modified = time.Time{}
	return info, err
}

// TestUnusedCopiesAreDeleted: a copy that no node has renewed for a month is
// deleted, also in a realm that has no JWKS any more, and no other is.
func TestUnusedCopiesAreDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept, _, _ := copied(t)
		left := func() int {
			objects, err := kept.Storage.List(t.Context(), w.config.Copies.folder(), false)
			if err != nil {
				t.Fatal(err)
			}
			return len(objects)
		}
		w.config.Records = []Record{pinned("c")}
		w.mustLoad()
		step := func(now time.Time, want int) {
			t.Helper()
			w.now = now
			w.wantStored(kept, 0)
			if got := left(); got != want {
				t.Errorf("%d are left, want %d", got, want)
			}
		}
		written := wallClock(t, kept, w.config.Copies.object(urlA))
		step(written.Add(29*24*time.Hour), 2)
		kept.Storage = statless{kept.Storage}
		step(written.Add(31*24*time.Hour), 2)
		kept.Storage = kept.Storage.(statless).Storage
		step(written.Add(31*24*time.Hour+time.Minute), 2) // it is looked at once a day
		step(written.Add(33*24*time.Hour), 0)
		kept.before = func(string, string) error { return errors.New("storage is down") }
		step(written.Add(35*24*time.Hour), 0)
	})
}

// wallClock returns when an object was written, which files know by the clock of
// the machine.
func wallClock(t *testing.T, kept *copyStorage, object string) time.Time {
	info, err := kept.Stat(t.Context(), object)
	if err != nil {
		t.Fatal(err)
	}
	return info.Modified
}

// TestWhatCopiesHold: a copy has the certificates of a JWK Set alone, so that
// padding costs storage nothing, and no private key gets there.
func TestWhatCopiesHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept, a, b := copied(t)
		before, uses := w.Registry(), w.uses
		private := json.RawMessage(`{"kty":"EC","d":"c2VjcmV0LXBhcnQ"}`)
		w.web[urlA] = testpki.KeySet(t, private, testpki.JWK(t, a))
		w.web[urlA] = append(w.web[urlA], strings.Repeat(" ", 700<<10)...)
		w.poll(7 * time.Hour)
		if w.Registry() != before || w.uses != uses {
			t.Error("there is another registry")
		}
		w.wantStored(kept, 2)
		text, err := kept.Storage.Load(t.Context(), w.config.Copies.object(urlA))
		if err != nil || len(text) > 8<<10 || bytes.Contains(text, []byte("c2VjcmV0LXBhcnQ")) {
			t.Errorf("%.100q, %d bytes, %v", text, len(text), err)
		}
		next := testpki.MustSelfSigned(t)
		w.web[urlA] = testpki.JWKS(t, next, a)
		w.poll(time.Hour)
		w.web[urlA] = testpki.JWKS(t, a, next)
		w.wantStored(kept, 1)
		registry := w.Registry()
		w.poll(time.Hour) // the same certificates in another order
		if w.Registry() != registry {
			t.Error("there is another registry")
		}
		w.wantStored(kept, 0)
		w.web = nil
		w.mustLoad()
		w.wantBoth(a, b, true)
	})
}

// TestLargeKeySetsAreNotCopied: a JWK Set that is too large for a storage is not
// stored, which is not a failure. One with as many ordinary certificates as are
// allowed is stored.
func TestLargeKeySetsAreNotCopied(t *testing.T) {
	w := newWorld(t)
	kept := w.keepCopies()
	certificates := make([]*x509.Certificate, jwks.MaxKeys)
	for i := range certificates {
		certificates[i] = testpki.MustSelfSigned(t).Cert
	}
	copies := w.config.Copies
	if err := copies.save(t.Context(), urlA, certificates, w.now); err != nil {
		t.Error(err)
	}
	if err := copies.save(t.Context(), urlB, slices.Repeat(certificates, 10), w.now); err != nil || kept.stored != 1 {
		t.Errorf("%d are stored, %v", kept.stored, err)
	}
	found := copies.load(t.Context(), []string{urlA, urlB})
	again, _, err := parseKeySet(found[urlA].KeySet)
	if err != nil || len(found) != 1 || !sameCertificates(again, certificates) {
		t.Errorf("%d of %d, %v", len(again), len(certificates), err)
	}
}

// TestCopyThatPanics: a copy that makes the parser panic does not keep Caddy from
// starting.
func TestCopyThatPanics(t *testing.T) {
	url, err := source.NewURL(source.URLConfig{
		Address: "https://a.example/", Accept: func([]byte) error { panic("index out of range") },
		Fetch: func(context.Context, string, int64) (source.Document, error) { return source.Document{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if url.Begin([]byte("x"), time.Now()) {
		t.Error("it was taken")
	}
	if _, known := url.Content(); known {
		t.Error("it is known")
	}
}

// TestReloadParsesNoJWKS: a reload takes over what the previous configuration has
// parsed.
func TestReloadParsesNoJWKS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _, _ := copied(t)
		one := w.documents.byKey[documentKey{KindJWKS, urlA, true}].certificates[0]
		w.config.Before = w.Directory
		w.mustLoad()
		if w.documents.byKey[documentKey{KindJWKS, urlA, true}].certificates[0] != one {
			t.Error("it was parsed again")
		}
	})
}

// TestReloadsWhileJWKSAreFetched is for the race detector.
func TestReloadsWhileJWKSAreFetched(t *testing.T) {
	w := newWorld(t)
	w.keepCopies()
	began := time.Now()
	var offset atomic.Int64
	w.config.Now = func() time.Time { return began.Add(time.Duration(offset.Load())) }
	w.web[urlA] = testpki.JWKS(t, testpki.MustSelfSigned(t))
	w.config.Records = []Record{{ClientID: "a", JWKSURI: urlA}}
	w.mustLoad()
	running := w.Directory
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			offset.Add(int64(7 * time.Hour))
			running.Poll(t.Context())
			_ = running.SaveCopies(t.Context())
		}
	}()
	w.config.Before = running
	for range 100 {
		w.mustLoad()
	}
	<-done
}
