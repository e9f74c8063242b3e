package clients

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// keptStorage is a storage that can be made to fail, and tells what is written.
type keptStorage struct {
	certmagic.Storage
	// ask, if set, is called before anything is done to the object of a client
	ask func(what, clientID string) error

	mu    sync.Mutex
	saved []string
}

func (s *keptStorage) asked(what, key string) error {
	if s.ask == nil {
		return nil
	}
	text, err := s.Storage.Load(context.Background(), key)
	if err != nil {
		return s.ask(what, "")
	}
	c, _ := parseCopy(text)
	return s.ask(what, c.ClientID)
}

func (s *keptStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.asked("load", key); err != nil {
		return nil, err
	}
	return s.Storage.Load(ctx, key)
}

func (s *keptStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	if err := s.asked("stat", key); err != nil {
		return certmagic.KeyInfo{}, err
	}
	return s.Storage.Stat(ctx, key)
}

func (s *keptStorage) Delete(ctx context.Context, key string) error {
	if err := s.asked("delete", key); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}

func (s *keptStorage) Store(ctx context.Context, key string, text []byte) error {
	c, err := parseCopy(text)
	if err != nil {
		return err
	}
	if s.ask != nil {
		if err := s.ask("store", c.ClientID); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = append(s.saved, c.ClientID)
	return s.Storage.Store(ctx, key, text)
}

// keepCopies gives the world a storage.
func (w *world) keepCopies() (*CopyStore, *keptStorage) {
	kept := &keptStorage{Storage: &certmagic.FileStorage{Path: w.t.TempDir()}}
	store := &CopyStore{
		Storage: kept, Realm: "default", Now: w.config.Now,
		Report: func(object string, err error) { w.say("%s: %v", object, err) },
	}
	w.config.Recall = func(clientIDs []string) []Copy {
		copies, err := store.Load(w.t.Context(), clientIDs)
		if err != nil {
			w.say("copies: %v", err)
		}
		return copies
	}
	return store, kept
}

// save returns the clients whose copies were written.
func (w *world) save(store *CopyStore) string {
	w.t.Helper()
	if err := w.SaveCopies(w.t.Context(), store); err != nil {
		w.t.Error(err)
	}
	kept := store.Storage.(*keptStorage)
	kept.mu.Lock()
	defer kept.mu.Unlock()
	saved := slices.Compact(slices.Sorted(slices.Values(kept.saved)))
	kept.saved = nil
	return strings.Join(saved, " ")
}

// sync has a change stored, and what storage knows better counted.
func (w *world) sync(store *CopyStore) {
	w.t.Helper()
	w.save(store)
	w.poll(0)
	w.save(store)
}

func (w *world) wantSaved(store *CopyStore, want string) {
	w.t.Helper()
	if got := w.save(store); got != want {
		w.t.Errorf("saved %q, want %q", got, want)
	}
}

// TestB10_JWKSAfterARestart: who held a certificate holds it after a restart,
// whoever is declared or fetched first, and even if his own JWKS cannot be had.
func TestB10_JWKSAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const victim, thief = "https://victim.example/jwks", "https://thief.example/jwks"
		w := newWorld(t)
		store, _ := w.keepCopies()
		leaf, own, next := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
		w.config.Records = []Record{{ClientID: "thief", JWKSURI: thief}, {ClientID: "victim", JWKSURI: victim}}
		w.web[victim], w.web[thief] = testpki.JWKS(t, leaf), testpki.JWKS(t, own)
		w.mustLoad()
		w.poll(0)
		w.wantSaved(store, "thief victim")
		w.wantSaved(store, "")
		w.web[thief] = testpki.JWKS(t, own, leaf)
		w.poll(time.Hour)
		w.wantPin(leaf, "victim by jwks")
		w.wantSaved(store, "thief")
		w.said = nil

		// both are there at once, though nothing can be fetched
		web := w.web
		w.web = nil
		w.mustLoad()
		w.wantPin(leaf, "victim by jwks")
		w.wantPin(own, "thief by jwks")
		w.saw("ignored: ")
		if state := w.state("jwks:victim"); state.Success.IsZero() || state.Failure != "" || w.Unfetched() != 0 {
			t.Errorf("%+v, %d unfetched", state, w.Unfetched())
		}
		w.poll(0)
		w.saw("jwks:", "jwks:")
		w.wantPin(leaf, "victim by jwks")
		w.wantSaved(store, "")

		// after a day they wait for a fetch, and the certificate is nobody else's
		w.now = w.now.Add(48 * time.Hour)
		w.mustLoad()
		w.wantPin(leaf, "")
		w.wantPin(own, "")
		w.web = map[string][]byte{thief: web[thief]}
		w.poll(0)
		w.wantPin(leaf, "")
		w.wantPin(own, "thief by jwks")
		w.said = nil
		w.web = web
		w.poll(time.Hour)
		w.wantPin(leaf, "victim by jwks")
		w.saw("jwks:victim")

		// the same when the operator moves it to another URL
		const moved = "https://victim.example/new"
		w.config.Records[1].JWKSURI = moved
		w.config.Before = w.Directory
		w.mustLoad()
		w.poll(0)
		w.wantPin(leaf, "")
		w.save(store)
		w.config.Before = nil
		w.mustLoad()
		w.poll(0)
		w.wantPin(leaf, "")
		w.web[moved] = testpki.JWKS(t, leaf)
		w.poll(time.Hour)
		w.wantPin(leaf, "victim by jwks")

		// until he gives it up
		w.web[moved] = testpki.JWKS(t, next)
		w.poll(time.Hour)
		w.wantPin(leaf, "thief by jwks")
		w.save(store)
		w.web[moved] = testpki.JWKS(t, next, leaf)
		w.poll(time.Hour)
		w.save(store)
		w.mustLoad()
		w.poll(0)
		w.wantPin(leaf, "thief by jwks")
		w.wantPin(next, "victim by jwks")
	})
}

// TestCopiesOfContestedJWKS: of a JWKS that is there at every start something is
// stored only if another lists one of its certificates, so that it keeps it.
func TestCopiesOfContestedJWKS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		store, _ := w.keepCopies()
		leaf, own := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
		w.write("thief.json", testpki.JWKS(t, own))
		w.config.Records = []Record{{ClientID: "thief", JWKSFile: w.path("thief.json")}, {ClientID: "victim", JWKS: testpki.JWKS(t, leaf)}}
		w.mustLoad()
		w.poll(time.Second)
		w.wantSaved(store, "")
		w.write("thief.json", testpki.JWKS(t, own, leaf))
		w.poll(time.Second)
		w.wantSaved(store, "thief victim")
		w.mustLoad()
		w.wantPin(leaf, "victim by jwks")
		// what it drops, it drops there too
		w.config.Records[1].JWKS = testpki.JWKS(t, testpki.MustSelfSigned(t))
		w.config.Before = w.Directory
		w.mustLoad()
		w.wantPin(leaf, "thief by jwks")
		w.wantSaved(store, "victim")
		w.config.Records[1].JWKS = testpki.JWKS(t, leaf)
		w.mustLoad()
		w.wantPin(leaf, "victim by jwks") // by its copy, since a fresh thief is later
		w.config.Before = nil
	})
}

// TestCopiesAreRefreshed: a JWKS that stays the same is stored again now and
// then, for a copy counts for a day.
func TestCopiesAreRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const address = "https://a.example/"
		w := newWorld(t)
		store, _ := w.keepCopies()
		leaf := testpki.MustSelfSigned(t)
		w.web[address] = testpki.JWKS(t, leaf)
		w.config.Records = []Record{{ClientID: "a", JWKSURI: address}}
		w.mustLoad()
		w.poll(0)
		w.wantSaved(store, "a")
		saved := 0
		for range 24 {
			w.poll(time.Hour)
			if w.save(store) != "" {
				saved++
			}
		}
		if saved != 4 {
			t.Errorf("it was stored %d times in a day", saved)
		}
		w.web = nil
		w.mustLoad()
		w.wantPin(leaf, "a by jwks")
		// a copy that has become unusable is as good as none
		copied, _ := w.copyOf(w.Registry().Client("a"))
		w.config.Recall = func([]string) []Copy {
			return []Copy{{ClientID: "a", Address: copied.Address, Content: []byte("{}"), Fetched: w.now}}
		}
		w.mustLoad()
		w.wantPin(leaf, "")
		if w.Unfetched() != 1 {
			t.Error("it counts as fetched")
		}
	})
}

// TestCopiesThatCannotBeStored are stored later, by the next configuration too.
func TestCopiesThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		store, kept := w.keepCopies()
		for _, id := range []string{"a", "b"} {
			address := "https://" + id + ".example/"
			w.web[address] = testpki.JWKS(t, testpki.MustSelfSigned(t))
			w.config.Records = append(w.config.Records, Record{ClientID: id, JWKSURI: address})
		}
		w.mustLoad()
		w.poll(0)
		full := errors.New("disk full")
		kept.ask = func(what, _ string) error {
			if what == "store" {
				return full
			}
			return nil
		}
		for range 2 {
			if err := w.SaveCopies(t.Context(), store); !errors.Is(err, full) {
				t.Error(err)
			}
		}
		kept.ask = nil
		w.config.Before = w.Directory
		w.mustLoad()
		w.wantSaved(store, "a b")
		// what is lost is stored again, and again if that is noted meanwhile
		forget := func() {
			t.Helper()
			if err := store.Delete(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		}
		forget()
		w.CopiesLost([]string{"a"})
		kept.ask = func(what, _ string) error {
			if kept.ask = nil; what == "load" {
				w.CopiesLost([]string{"a"})
			}
			return nil
		}
		w.wantSaved(store, "a")
		forget()
		w.wantSaved(store, "a")
		// and what is gone is not
		forget()
		w.CopiesLost([]string{"a", "c"})
		w.wantSaved(store, "a")
		w.wantSaved(store, "")
		if ids, _ := w.Copied(); len(ids) != 2 {
			t.Errorf("copied are %q", ids)
		}
	})
}

// TestCopyThatPanics: a copy that nobody can read without a panic does not keep
// Caddy from starting.
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
