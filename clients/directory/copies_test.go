package directory

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/clients"
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
	w.config.Copies = &KeySetCopies{Storage: kept, Realm: "default"}
	return kept
}

// copied is a world with two clients whose JWK Sets are behind URLs, which have
// been fetched and stored.
func copied(t *testing.T) (w *world, kept *copyStorage, a, b *testpki.Leaf) {
	w, a, b = newWorld(t), testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	kept = w.keepCopies()
	w.web[urlA], w.web[urlB] = testpki.JWKS(t, a), testpki.JWKS(t, b)
	w.config.Records = []clients.Record{{ClientID: "a", JWKSURI: urlA}, {ClientID: "b", JWKSURI: urlB}}
	w.mustLoad()
	w.poll(0)
	w.wantStored(kept, 1)
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
		w.t.Errorf("the copies were stored %d times, want %d", kept.stored, want)
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
		if state := w.state("jwks:a"); state.Success.IsZero() || state.Failure != "" || w.Unfetched() != 0 || state.Copy != CopyStorage || !state.CopyTime.Equal(state.Success) {
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
		if state := w.state("jwks:a"); state.Copy != "" {
			t.Errorf("%+v", state)
		}
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
		if kept.stored != 4 {
			t.Errorf("the copies were stored %d times in a day", kept.stored)
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
		if got := asked.Load(); got != 1 {
			t.Errorf("a start asks storage %d times", got)
		}
		kept.before = nil
		w.wantStored(kept, 0)
	})
}

// TestCopiesThatCannotBeRead are reported and skipped. The next fetch replaces
// them.
func TestCopiesThatCannotBeRead(t *testing.T) {
	for text, want := range map[string]struct {
		report string
		other  bool // the other copy counts
	}{
		"":                        {"unexpected end of JSON input", false},
		`{"A":{"fetched":"2026"`:  {"unexpected end of JSON input", false},
		"[]":                      {"cannot unmarshal array", false},
		"{}":                      {"", false},
		`{B}`:                     {"", true},
		`{"A":{"fetched":1},B}`:   {"Time.UnmarshalJSON", false},
		`{"A":7,B}`:               {"cannot unmarshal number", true},
		`{"A":{},B}`:              {"", true}, // is too old
		`{"A":{"fetched":NOW},B}`: {"", true},
		`{"A":{"fetched":NOW,"jwks":{"keys":[]}},B}`:  {"", true},
		`{"A":{"fetched":NOW,"jwks":"text"},B}`:       {"", true},
		`{"A":{"fetched":NOW,"jwks":{"keys":[7]}},B}`: {"", true},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, kept, a, b := copied(t)
			object := w.config.Copies.object()
			if object != "mtls/default/jwks.json" {
				t.Errorf("object %s", object)
			}
			good := `"` + copyName(urlB) + `":{"fetched":NOW,"jwks":` + string(w.web[urlB]) + "}"
			text := strings.NewReplacer(`"A"`, `"`+copyName(urlA)+`"`, "B", good).Replace(text)
			text = strings.ReplaceAll(text, "NOW", `"2026-03-01T12:00:00Z"`)
			if err := kept.Storage.Store(t.Context(), object, []byte(text)); err != nil {
				t.Fatal(err)
			}
			w.mustLoad()
			w.wantPin(a, "")
			unfetched := 2
			if want.other {
				unfetched = 1
				w.wantPin(b, "b by jwks")
			} else {
				w.wantPin(b, "")
			}
			if got := w.Unfetched(); got != unfetched {
				t.Errorf("%q: %d unfetched, want %d", text, got, unfetched)
			}
			if want.report == "" {
				w.saw()
			} else {
				w.saw(want.report)
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

// TestCopiesThatCannotBeStored are stored later, by the next configuration too.
func TestCopiesThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept, a, b := copied(t)
		next := testpki.MustSelfSigned(t)
		w.web[urlA] = testpki.JWKS(t, a, next)
		w.poll(time.Hour)
		full := errors.New("disk full")
		object := w.config.Copies.object()
		kept.before = func(what, _ string) error {
			if what == "store" {
				return full
			}
			return nil
		}
		for range 2 {
			if err := w.SaveCopies(t.Context()); !errors.Is(err, full) || !strings.Contains(err.Error(), object) {
				t.Error(err)
			}
		}
		w.config.Before = w.Directory
		w.mustLoad()
		kept.before = nil
		w.wantStored(kept, 1)
		w.wantStored(kept, 0)
		w.config.Before = nil
		w.mustLoad()
		w.wantBoth(a, b, true)
		w.wantPin(next, "a by jwks")
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
		w.web[urlA] = testpki.JWKS(t, a, testpki.MustSelfSigned(t))
		w.poll(time.Hour)
		w.said = nil
		kept.before = func(string, string) error { panic("a bug") }
		if err := w.SaveCopies(t.Context()); err == nil || !strings.Contains(err.Error(), "storage panicked: a bug") {
			t.Error(err)
		}
		running := w.Directory
		w.mustLoad()
		w.saw("storage panicked: a bug")
		w.wantBoth(a, b, false)

		mended := make(chan struct{})
		kept.before = func(string, string) error {
			<-mended
			return errors.New("too late")
		}
		began := time.Now()
		if err := running.SaveCopies(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		w.mustLoad()
		w.saw("storage does not answer")
		if took := time.Since(began); took != 2*copyTimeout {
			t.Errorf("it took %v", took)
		}
		w.wantBoth(a, b, false)
		close(mended)
		synctest.Wait()
	})
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
		w.wantStored(kept, 1)
		text, err := kept.Storage.Load(t.Context(), w.config.Copies.object())
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

// TestLargeKeySetsAreNotCopied: a JWK Set that is too large is not stored, nor is one
// for which there is no more room, which is not a failure. One with as many ordinary
// certificates as are allowed is stored.
func TestLargeKeySetsAreNotCopied(t *testing.T) {
	w := newWorld(t)
	kept := w.keepCopies()
	w.mustLoad()
	certificates := make([]*x509.Certificate, jwks.MaxKeys)
	for i := range certificates {
		certificates[i] = testpki.MustSelfSigned(t).Cert
	}
	add := func(address string, certificates []*x509.Certificate) {
		t.Helper()
		document, err := w.newPlan().openKeySet(documentKey{clients.KindJWKS, address, true})
		if err != nil {
			t.Fatal(err)
		}
		if !document.url.Begin(testpki.JWKS(t, testpki.MustSelfSigned(t)), w.now) {
			t.Fatal("it has not begun")
		}
		document.contents = &contents{certificates: certificates}
		w.documents.urls.add(document)
	}
	add(urlA, certificates)
	add(urlB, slices.Repeat(certificates, 10))
	w.wantStored(kept, 1)
	found, err := w.config.Copies.load(t.Context())
	if err != nil {
		t.Error(err)
	}
	again, _, err := clients.ParseKeySet(found[copyName(urlA)].KeySet)
	if err != nil || len(found) != 1 || !sameCertificates(again, certificates) {
		t.Errorf("%d of %d, %v", len(again), len(certificates), err)
	}
	const count = 500
	for i := range count {
		add(fmt.Sprintf("https://%d.example/", i), certificates)
	}
	w.wantStored(kept, 1)
	text, err := kept.Storage.Load(t.Context(), w.config.Copies.object())
	found, loadErr := w.config.Copies.load(t.Context())
	if err != nil || loadErr != nil || len(found) < 10 || len(found) > count || len(text) > maxCopiesBytes*11/10 {
		t.Errorf("%d copies of %d bytes, %v", len(found), len(text), err)
	}
	w.wantStored(kept, 0)
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

// TestReloadsWhileJWKSAreFetched is for the race detector.
func TestReloadsWhileJWKSAreFetched(t *testing.T) {
	w := newWorld(t)
	w.keepCopies()
	began := time.Now()
	var offset atomic.Int64
	w.config.Now = func() time.Time { return began.Add(time.Duration(offset.Load())) }
	w.web[urlA] = testpki.JWKS(t, testpki.MustSelfSigned(t))
	w.config.Records = []clients.Record{{ClientID: "a", JWKSURI: urlA}}
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
