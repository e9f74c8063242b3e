package clients

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

var copyTime = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func newCopy(id string) Copy {
	return Copy{
		ClientID: id, Address: sha256.Sum256([]byte("https://a.example/")), Content: []byte(`{"keys":[]}`), Fetched: copyTime,
		Listed: map[[sha256.Size]byte]time.Time{sha256.Sum256([]byte(id)): copyTime},
	}
}

func newCopyStore(t *testing.T) (*CopyStore, *[]string) {
	var told []string
	return &CopyStore{
		Storage: &certmagic.FileStorage{Path: t.TempDir()}, Realm: "default", Now: time.Now,
		Report: func(object string, err error) { told = append(told, fmt.Sprintf("%s: %v", object, err)) },
	}, &told
}

func TestCopyStore(t *testing.T) {
	s, told := newCopyStore(t)
	if copies, err := s.Load(t.Context(), []string{"a"}); err != nil || len(copies) != 0 {
		t.Fatal(copies, err)
	}
	long := strings.Repeat("Ä", 100)[:200]
	for _, id := range []string{"a", "A", "b@example.com", "x/y"} {
		if _, err := s.Save(t.Context(), newCopy(id)); err != nil {
			t.Fatal(err)
		}
		copies, err := s.Load(t.Context(), []string{id, long})
		if err != nil || len(copies) != 1 || !reflect.DeepEqual(copies[0], newCopy(id)) {
			t.Errorf("%+v, %v", copies, err)
		}
	}
	if copies, err := s.Load(t.Context(), []string{"a", "A", "b@example.com", "x/y"}); err != nil || len(copies) != 4 {
		t.Errorf("%+v, %v", copies, err)
	}
	// who has seen a certificate first is right, and what is dropped is gone
	later := newCopy("a")
	sum, other := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("other"))
	later.Listed = map[[sha256.Size]byte]time.Time{sum: copyTime.Add(time.Hour), other: copyTime.Add(time.Minute)}
	if _, err := s.Save(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	copies, err := s.Load(t.Context(), []string{"a"})
	if err != nil || len(copies[0].Listed) != 2 || !copies[0].Listed[sum].Equal(copyTime) || !copies[0].Listed[other].Equal(copyTime.Add(time.Minute)) {
		t.Errorf("%+v, %v", copies, err)
	}
	if len(*told) != 0 {
		t.Errorf("told %q", *told)
	}
	// nobody but the owner reads them
	info, err := os.Stat(filepath.Join(s.Storage.(*certmagic.FileStorage).Path, filepath.FromSlash(s.object("a"))))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

// TestCopiesThatCannotBeRead are told and skipped; one of a later release stays
// as it is.
func TestCopiesThatCannotBeRead(t *testing.T) {
	good, err := newCopy("a").encode()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                           "EOF",
		"{}":                         "no copy of a JWKS",
		`{"version":2}`:              "a later release wrote it",
		`{"version":"1"}`:            "cannot unmarshal string",
		string(good[:40]):            "EOF",
		string(good) + "{}":          "text after",
		`{"version":1,"a":{},"a":1}`: "duplicate member",
		strings.Replace(string(good), `"client_id":"a"`, `"client_id":"b"`, 1):          "it is of client 'b'",
		strings.Replace(string(good), `"client_id":"a"`, `"client_id":"a b"`, 1):        "no copy of a JWKS",
		strings.Replace(string(good), `"jwks_uri_sha256":"`, `"jwks_uri_sha256":"x`, 1): "no SHA-256 hash",
		strings.Replace(string(good), `"listed":{"`, `"listed":{"00`, 1):                "no SHA-256 hash",
		strings.Repeat(" ", maxCopyBytes) + string(good):                                "larger than",
	} {
		s, told := newCopyStore(t)
		if err := s.Storage.Store(t.Context(), s.object("a"), []byte(text)); err != nil {
			t.Fatal(err)
		}
		if copies, err := s.Load(t.Context(), []string{"a"}); err != nil || len(copies) != 0 {
			t.Errorf("%.60s: %+v, %v", text, copies, err)
		}
		if len(*told) != 1 || !strings.Contains((*told)[0], want) {
			t.Errorf("%.60s: told %q, want %q", text, *told, want)
		}
		if _, err := s.Save(t.Context(), newCopy("a")); err != nil {
			t.Error(err)
		}
		kept, err := s.Storage.Load(t.Context(), s.object("a"))
		if err != nil || bytes.Equal(kept, []byte(text)) != (text == `{"version":2}`) {
			t.Errorf("%.60s: %s, %v", text, kept, err)
		}
	}
}

func TestCopiesAreSwept(t *testing.T) {
	s, _ := newCopyStore(t)
	for _, id := range []string{"a", "gone"} {
		if _, err := s.Save(t.Context(), newCopy(id)); err != nil {
			t.Fatal(err)
		}
	}
	missing, err := s.Sweep(t.Context(), []string{"a", "b"}, nil)
	if err != nil || fmt.Sprint(missing) != "[b]" || !s.Storage.Exists(t.Context(), s.object("gone")) {
		t.Error(missing, err)
	}
	s.Now = func() time.Time { return time.Now().Add(copyUnused + time.Hour) }
	if missing, err = s.Sweep(t.Context(), []string{"a"}, nil); err != nil || len(missing) != 0 {
		t.Error(missing, err)
	}
	if !s.Storage.Exists(t.Context(), s.object("a")) || s.Storage.Exists(t.Context(), s.object("gone")) {
		t.Error("the wrong ones are gone")
	}
}

// statless is a storage that does not tell when something was written.
type statless struct{ certmagic.Storage }

func (s statless) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	info, err := s.Storage.Stat(ctx, key)
	info.Modified = time.Time{}
	return info, err
}

// TestCopiesThatAreNotSwept: those that may be of clients that there are, and
// those of which nobody knows how old they are.
func TestCopiesThatAreNotSwept(t *testing.T) {
	s, _ := newCopyStore(t)
	for _, id := range []string{"unread", "gone"} {
		if _, err := s.Save(t.Context(), newCopy(id)); err != nil {
			t.Fatal(err)
		}
	}
	s.Now = func() time.Time { return time.Now().Add(2 * copyUnused) }
	for _, untold := range []bool{true, false} {
		store := *s
		if untold {
			store.Storage = statless{s.Storage}
		}
		missing, err := store.Sweep(t.Context(), nil, []string{"unread", "none"})
		if err != nil || len(missing) != 0 {
			t.Error(missing, err)
		}
		if !s.Storage.Exists(t.Context(), s.object("unread")) || s.Storage.Exists(t.Context(), s.object("gone")) != untold {
			t.Errorf("untold %t: the wrong ones are gone", untold)
		}
	}
}

// FuzzCopy: a copy that can be read is written and read as it is.
func FuzzCopy(f *testing.F) {
	good, err := newCopy("a").encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"client_id":"a","listed":{}}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		one, err := parseCopy(text)
		if err != nil {
			return
		}
		if len(one.Listed) > MaxJWKSKeys || CheckID(one.ClientID) != nil {
			t.Fatalf("%+v", one)
		}
		again, err := one.encode()
		if err != nil {
			return // a year that has no RFC 3339
		}
		two, err := parseCopy(again)
		if err != nil || two.ClientID != one.ClientID || two.Address != one.Address || !bytes.Equal(two.Content, one.Content) || len(two.Listed) != len(one.Listed) {
			t.Fatalf("%+v, then %+v, %v", one, two, err)
		}
		for sum, since := range one.Listed {
			if !two.Listed[sum].Equal(since) {
				t.Errorf("%v, then %v", since, two.Listed[sum])
			}
		}
	})
}

// TestCopiesOfAnotherNode: of two copies of a JWKS the later one counts, unless
// its time cannot be, and of each certificate the earlier time.
func TestCopiesOfAnotherNode(t *testing.T) {
	x, y := sha256.Sum256([]byte("x")), sha256.Sum256([]byte("y"))
	type dates = map[[sha256.Size]byte]time.Time
	early, late := copyTime.Add(-time.Hour), copyTime.Add(time.Minute)
	stored := newCopy("a")
	stored.Content, stored.Listed = []byte(`{"keys":["stored"]}`), dates{x: copyTime}
	for name, test := range map[string]struct {
		change func(c *Copy)
		stored bool // its content counts
		want   dates
	}{
		"later":         {func(c *Copy) { c.Fetched, c.Listed = late, dates{y: late} }, false, dates{y: late}},
		"earlier":       {func(c *Copy) { c.Fetched, c.Listed = early, dates{x: early, y: early} }, true, dates{x: early}},
		"never fetched": {func(c *Copy) { c.Fetched, c.Content, c.Listed = time.Time{}, nil, dates{} }, true, dates{x: copyTime}},
		"elsewhere":     {func(c *Copy) { c.Fetched, c.Address, c.Listed = early, x, dates{x: late, y: early} }, false, dates{x: copyTime, y: early}},
		"elsewhere, never fetched": {func(c *Copy) {
			c.Fetched, c.Content, c.Address, c.Listed = time.Time{}, nil, x, dates{y: late}
		}, false, dates{x: copyTime, y: late}},
		"earlier than what cannot be": {func(c *Copy) { c.Fetched, c.Listed = copyTime.Add(-48*time.Hour), dates{y: early} }, false, dates{y: early}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newCopyStore(t)
			s.Now = func() time.Time { return copyTime }
			if name == "earlier than what cannot be" {
				s.Now = func() time.Time { return copyTime.Add(-47 * time.Hour) }
			}
			if _, err := s.Save(t.Context(), stored); err != nil {
				t.Fatal(err)
			}
			c := newCopy("a")
			test.change(&c)
			want := c
			if test.stored {
				want = stored
			}
			want.Listed = test.want
			merged, err := s.Save(t.Context(), c)
			if err != nil || !reflect.DeepEqual(merged, want) {
				t.Errorf("%+v, %v, want %+v", merged, err, want)
			}
			copies, err := s.Load(t.Context(), []string{"a"})
			if err != nil || len(copies) != 1 || !reflect.DeepEqual(copies[0], want) {
				t.Errorf("%+v, %v, want %+v", copies, err, want)
			}
		})
	}
}

// TestCopiesInABrokenStorage: a storage module that panics is an error, and one
// that hangs is not waited for; what it has answered till then counts.
func TestCopiesInABrokenStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newCopyStore(t)
		for _, id := range []string{"a", "b"} {
			if _, err := s.Save(t.Context(), newCopy(id)); err != nil {
				t.Fatal(err)
			}
		}
		s.Now = func() time.Time { return time.Now().Add(100 * 365 * 24 * time.Hour) }
		kept := &keptStorage{Storage: s.Storage}
		s.Storage = kept
		ask := map[string]func(ctx context.Context) error{
			"load": func(ctx context.Context) error {
				copies, err := s.Load(ctx, []string{"a", "b"})
				if len(copies) != 1 {
					t.Errorf("%d copies", len(copies))
				}
				return err
			},
			"save":   func(ctx context.Context) error { _, err := s.Save(ctx, newCopy("a")); return err },
			"sweep":  func(ctx context.Context) error { _, err := s.Sweep(ctx, []string{"b"}, nil); return err },
			"delete": func(ctx context.Context) error { return s.Delete(ctx, "a") },
		}
		for what, call := range ask {
			kept.ask = func(_, id string) error {
				if id == "a" {
					panic("a bug")
				}
				return nil
			}
			if err := call(t.Context()); err == nil || err.Error() != "storage panicked: a bug" {
				t.Errorf("%s: %v", what, err)
			}
			mended := make(chan struct{})
			kept.ask = func(_, id string) error {
				if id == "a" {
					<-mended
					return errors.New("too late")
				}
				return nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
			cancel()
			began := time.Now()
			if what != "load" { // which is bounded by who asks
				if err := call(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > sweepTimeout {
					t.Errorf("%s: %v after %v", what, err, time.Since(began))
				}
			}
			close(mended)
			synctest.Wait()
		}
	})
}

// TestSweepGoesOn: an object that cannot be looked at keeps no other from being
// deleted.
func TestSweepGoesOn(t *testing.T) {
	s, _ := newCopyStore(t)
	for i := range 20 {
		if _, err := s.Save(t.Context(), newCopy(fmt.Sprint("a", i))); err != nil {
			t.Fatal(err)
		}
	}
	s.Now = func() time.Time { return time.Now().Add(2 * copyUnused) }
	s.Storage = &keptStorage{Storage: s.Storage, ask: func(_, id string) error {
		if id == "a7" {
			return errors.New("no access")
		}
		return nil
	}}
	if _, err := s.Sweep(t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), "no access") {
		t.Error(err)
	}
	names, err := s.names(t.Context())
	if _, left := names[s.object("a7")]; err != nil || len(names) != 1 || !left {
		t.Errorf("left are %v, %v", names, err)
	}
}

// TestLargeKeySet: what is too large for a storage is not kept.
func TestLargeKeySet(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	if content := keySetOf(slices.Repeat([]*x509.Certificate{leaf.Cert}, 1000)); content != nil {
		t.Errorf("%d bytes are kept", len(content))
	}
	var most []*x509.Certificate
	for range MaxJWKSKeys {
		most = append(most, testpki.MustSelfSigned(t).Cert)
	}
	content := keySetOf(most)
	if again, _, err := ParseJWKS(content); err != nil || !sameCertificates(again, most) {
		t.Errorf("%d of %d, %v", len(again), len(most), err)
	}
	if content := keySetOf(nil); content != nil {
		t.Errorf("%s", content)
	}
}
