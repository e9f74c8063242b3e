package tokens

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// newTestRevoked returns a list that has been read from storage, with a test
// clock.
func newTestRevoked(t testing.TB, storage certmagic.Storage) *RevokedTokens {
	t.Helper()
	return startRevoked(t, storage, testenv.NewClock(), nil)
}

func startRevoked(t testing.TB, storage certmagic.Storage, clock *testenv.Clock, before *RevokedTokens) *RevokedTokens {
	t.Helper()
	r, err := NewRevokedTokens(RevokedTokensConfig{Storage: storage, Realm: "default", Issuer: testURL, Now: clock.Now}, before)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// anHour returns a token that lives for an hour from testenv.Now.
func anHour(clientID, tokenID string) *VerifiedToken {
	return &VerifiedToken{ClientID: clientID, ID: tokenID, IssuedAt: testenv.Now, Expires: testenv.Now.Add(time.Hour)}
}

func mustRevoke(t testing.TB, r *RevokedTokens, rev *VerifiedToken) {
	t.Helper()
	if err := r.Revoke(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
}

// objects returns the names of the stored objects of the list.
func objects(t testing.TB, storage certmagic.Storage) []string {
	t.Helper()
	names, err := storage.List(t.Context(), "mtls/default/revocations", true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for i, name := range names {
		names[i] = path.Base(name)
	}
	return names
}

func TestRevokedIsThatTokenOnly(t *testing.T) {
	r := newTestRevoked(t, newStorage(t))
	mustRevoke(t, r, anHour("a", "1"))
	for _, tc := range []struct {
		client, id string
		want       bool
	}{{"a", "1", true}, {"a", "2", false}, {"b", "1", false}, {"", "1", false}, {"a", "", false}, {"a\x001", "", false}} {
		if got := r.Revoked(tc.client, tc.id, testenv.Now); got != tc.want {
			t.Errorf("%q of %q: revoked is %v", tc.id, tc.client, got)
		}
	}
	list := r.current.Load()
	mustRevoke(t, r, anHour("a", "1"))
	if r.current.Load() != list {
		t.Error("to revoke again what is revoked is news")
	}
}

func TestNilListRevokesNothing(t *testing.T) {
	var r *RevokedTokens
	if r.Revoked("a", "1", testenv.Now) || !r.Known() {
		t.Error("a list that does not exist revokes")
	}
}

// TestRevocationsFailClosed checks that every token counts as revoked until
// the list has been read.
func TestRevocationsFailClosed(t *testing.T) {
	storage := newStorage(t)
	mustRevoke(t, newTestRevoked(t, storage), anHour("a", "1"))
	down := errors.New("storage is down")
	storage.OnList = func(context.Context, string) error { return down }
	r, err := NewRevokedTokens(RevokedTokensConfig{Storage: storage, Realm: "default", Issuer: testURL, Now: testenv.NewClock().Now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Load(t.Context()); !errors.Is(err, down) {
		t.Fatalf("error is %v", err)
	}
	if r.Known() || !r.Revoked("a", "1", testenv.Now) || !r.Revoked("b", "2", testenv.Now) || !r.LastRead().IsZero() {
		t.Error("a list that could not be read admits tokens")
	}
	storage.OnList = nil
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.Known() || !r.Revoked("a", "1", testenv.Now) || r.Revoked("b", "2", testenv.Now) || !r.LastRead().Equal(testenv.Now) {
		t.Error("the list that was read is not the one that counts")
	}
}

func TestRevocationsAreSharedAndSurvive(t *testing.T) {
	storage, clock := newStorage(t), testenv.NewClock()
	a, b := startRevoked(t, storage, clock, nil), startRevoked(t, storage, clock, nil)
	mustRevoke(t, a, anHour("client", "of a"))
	mustRevoke(t, b, anHour("client", "of b"))
	for _, r := range []*RevokedTokens{a, b} {
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]*RevokedTokens{"a": a, "b": b, "restarted": startRevoked(t, storage, clock, nil)} {
		if !r.Revoked("client", "of a", testenv.Now) || !r.Revoked("client", "of b", testenv.Now) {
			t.Errorf("%s does not know both", name)
		}
	}
}

// TestRevocationsOutliveTheirStorage checks that a node keeps its list, also
// across a reload, when it cannot reach storage or storage was emptied.
func TestRevocationsOutliveTheirStorage(t *testing.T) {
	storage, clock := newStorage(t), testenv.NewClock()
	r := startRevoked(t, storage, clock, nil)
	mustRevoke(t, r, anHour("a", "1"))
	if err := storage.Storage.Delete(t.Context(), "mtls/default/revocations"); err != nil {
		t.Fatal(err)
	}
	if err := r.Refresh(t.Context()); err != nil || !r.Revoked("a", "1", testenv.Now) {
		t.Errorf("after storage was emptied: %v, revoked is %v", err, r.Revoked("a", "1", testenv.Now))
	}
	storage.OnList = func(context.Context, string) error { return errors.New("down") }
	if err := r.Refresh(t.Context()); err == nil || !r.Revoked("a", "1", testenv.Now) || r.Revoked("a", "2", testenv.Now) {
		t.Errorf("while storage is down: %v", err)
	}
	for _, tc := range []struct {
		realm, issuer string
		want          bool
	}{{"default", testURL, true}, {"other", testURL, false}, {"default", "https://other.example.com", false}} {
		next, err := NewRevokedTokens(RevokedTokensConfig{Storage: storage, Realm: tc.realm, Issuer: tc.issuer, Now: clock.Now}, r)
		if err != nil {
			t.Fatal(err)
		}
		if next.Known() != tc.want || next.LastRead().IsZero() == tc.want {
			t.Errorf("%+v: the list of the running configuration is known: %v", tc, next.Known())
		}
		if tc.want && (!next.Revoked("a", "1", testenv.Now) || next.Revoked("a", "2", testenv.Now)) {
			t.Errorf("%+v: the list was not taken over", tc)
		}
	}
}

func TestRevocationsOfAnotherIssuerConcernNobody(t *testing.T) {
	storage := newStorage(t)
	other, err := NewRevokedTokens(RevokedTokensConfig{Storage: storage, Realm: "default", Issuer: "https://other.example.com", Now: testenv.NewClock().Now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustRevoke(t, other, anHour("a", "1"))
	if newTestRevoked(t, storage).Revoked("a", "1", testenv.Now) {
		t.Error("the token of one issuer is revoked by another")
	}
}

func TestRevocationsAreKeptUntilTheTokenExpires_R40(t *testing.T) {
	storage, clock := newStorage(t), testenv.NewClock()
	r := startRevoked(t, storage, clock, nil)
	mustRevoke(t, r, anHour("a", "1"))
	mustRevoke(t, r, &VerifiedToken{ClientID: "a", ID: "2", IssuedAt: testenv.Now, Expires: testenv.Now.Add(2 * time.Hour)})
	clock.Advance(time.Hour + expiredKeep - time.Minute)
	if err := r.Refresh(t.Context()); err != nil || len(objects(t, storage)) != 2 || !r.Revoked("a", "1", testenv.Now) {
		t.Fatalf("gone before the time: %v", err)
	}
	clock.Advance(2 * time.Minute)
	if err := r.Load(t.Context()); err != nil || len(objects(t, storage)) != 2 {
		t.Fatalf("reading removes objects: %v", err)
	}
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names := objects(t, storage); len(names) != 1 || len(r.current.Load().tokens) != 1 || !r.Revoked("a", "2", testenv.Now) {
		t.Errorf("storage has %v, memory %v", names, r.current.Load().tokens)
	}
	clock.Advance(time.Hour)
	before := storage.Count("store")
	mustRevoke(t, r, anHour("a", "3"))
	if err := r.Refresh(t.Context()); err != nil || len(objects(t, storage)) != 0 || storage.Count("store") != before {
		t.Errorf("an expired token is written down: %v, %v", objects(t, storage), err)
	}
}

func TestRevocationsWithoutStorage(t *testing.T) {
	down := errors.New("storage is down")
	for name, fail := range map[string]func(context.Context, string) error{
		"fails":  func(context.Context, string) error { return down },
		"panics": func(context.Context, string) error { panic("storage") },
	} {
		t.Run(name, func(t *testing.T) {
			storage := newStorage(t)
			r := newTestRevoked(t, storage)
			storage.OnStore = fail
			if err := r.Revoke(t.Context(), anHour("a", "1")); err == nil || name == "fails" && !errors.Is(err, down) {
				t.Errorf("error is %v", err)
			}
			if r.Revoked("a", "1", testenv.Now) {
				t.Error("the token counts as revoked, so a second attempt would do nothing")
			}
			storage.OnStore = nil
			mustRevoke(t, r, anHour("a", "1"))
			if !newTestRevoked(t, storage).Revoked("a", "1", testenv.Now) {
				t.Error("the second attempt was not stored")
			}
			storage.OnList = fail
			if err := r.Refresh(t.Context()); err == nil || !r.Revoked("a", "1", testenv.Now) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// TestRevokeDoesNotHang checks that a storage that never answers blocks only a
// bounded number of writers, and no caller for longer than its context.
func TestRevokeDoesNotHang(t *testing.T) {
	storage := newStorage(t)
	release, entered := make(chan struct{}), make(chan struct{}, maxRevoking+1)
	storage.OnStore = func(context.Context, string) error {
		entered <- struct{}{}
		<-release
		return nil
	}
	r := newTestRevoked(t, storage)
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for n := range maxRevoking + 1 {
		callers.Go(func() {
			if err := r.Revoke(ctx, anHour("a", fmt.Sprint(n))); !errors.Is(err, context.Canceled) {
				t.Errorf("error is %v", err)
			}
		})
	}
	for range maxRevoking {
		<-entered
	}
	cancel()
	callers.Wait()
	close(release)
	for range maxRevoking {
		r.writers <- struct{}{} // all are done
	}
	if got := len(r.current.Load().tokens); got != maxRevoking || len(entered) != 0 {
		t.Errorf("%d were stored, %d more asked for", got, len(entered))
	}
}

func TestConcurrentRevocationsAreAllKept(t *testing.T) {
	storage, clock := newStorage(t), testenv.NewClock()
	nodes := []*RevokedTokens{startRevoked(t, storage, clock, nil), startRevoked(t, storage, clock, nil)}
	var writers sync.WaitGroup
	for n, node := range nodes {
		for m := range 8 {
			writers.Go(func() {
				for k := range 10 {
					if err := node.Revoke(t.Context(), anHour("a", fmt.Sprint(n, m, k))); err != nil {
						t.Error(err)
					}
					node.Revoked("a", "1", testenv.Now)
				}
			})
		}
		writers.Go(func() {
			for range 10 {
				if err := node.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	for _, node := range append(nodes, startRevoked(t, storage, clock, nil)) {
		if err := node.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for n := range nodes {
			for m := range 8 {
				for k := range 10 {
					if !node.Revoked("a", fmt.Sprint(n, m, k), testenv.Now) {
						t.Fatalf("%d %d %d was lost", n, m, k)
					}
				}
			}
		}
	}
}

func TestRevokedDoesNotAllocate(t *testing.T) {
	r := newTestRevoked(t, newStorage(t))
	mustRevoke(t, r, anHour("a", "1"))
	r.learn([]revokedRecord{{client: digestOf(testURL, "b"), all: true, until: 1, expires: testenv.Now.Unix()}}, true)
	if n := testing.AllocsPerRun(100, func() { r.Revoked("mtls.client", "AAAAAAAAAAAAAAAAAAAAAA", testenv.Now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRevokedTokensSettings(t *testing.T) {
	storage := newStorage(t)
	for want, cfg := range map[string]RevokedTokensConfig{
		"need a storage":         {Realm: "default", Issuer: testURL},
		"realm '..' cannot name": {Storage: storage, Realm: "..", Issuer: testURL},
		"realm '' cannot name":   {Storage: storage, Issuer: testURL},
		"need an issu":           {Storage: storage, Realm: "default"},
	} {
		if _, err := NewRevokedTokens(cfg, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}
