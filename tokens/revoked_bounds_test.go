package tokens

import (
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// TestRevocationsOfOneClientAreBounded checks that beyond the bound one object
// revokes every token that the client was issued until then.
func TestRevocationsOfOneClientAreBounded(t *testing.T) {
	storage, clock := newStorage(t), testenv.NewClock()
	r := startRevoked(t, storage, clock, nil)
	for n := range maxRevokedPerClient {
		mustRevoke(t, r, anHour("a", fmt.Sprint(n)))
	}
	if r.Revoked("a", "another", testenv.Now) {
		t.Fatal("more is revoked than was asked for")
	}
	mustRevoke(t, r, anHour("b", "1"))
	for n := range 50 {
		rev := anHour("a", fmt.Sprint("late ", n))
		rev.IssuedAt = testenv.Now.Add(time.Duration(n) * time.Second)
		mustRevoke(t, r, rev)
	}
	if err := r.Refresh(t.Context()); err != nil { // removes the cutoffs that a later one includes
		t.Fatal(err)
	}
	if names := objects(t, storage); len(names) != maxRevokedPerClient+2 {
		t.Errorf("storage has %d objects", len(names))
	}
	for _, r := range []*RevokedTokens{r, startRevoked(t, storage, clock, nil)} {
		for _, tc := range []struct {
			client string
			issued time.Duration
			want   bool
		}{{"a", 0, true}, {"a", 49 * time.Second, true}, {"a", 50 * time.Second, false}, {"b", 0, false}} {
			if got := r.Revoked(tc.client, "another", testenv.Now.Add(tc.issued)); got != tc.want {
				t.Errorf("a token of %s issued after %v: revoked is %v", tc.client, tc.issued, got)
			}
		}
		if !r.Revoked("a", "another", time.Time{}) {
			t.Error("a token without iat is not revoked")
		}
	}
	clock.Advance(cutoffKeep)
	for range 2 { // as many as one refresh deletes, and the rest
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(objects(t, storage)) != 1 || !r.Revoked("a", "another", testenv.Now) {
		t.Errorf("after %v storage has %v", cutoffKeep, objects(t, storage))
	}
}

func TestRevocationsOfAllClientsAreBounded(t *testing.T) {
	r := newTestRevoked(t, newStorage(t))
	records := make([]revokedRecord, maxRevoked)
	for n := range records {
		id := fmt.Sprint(n)
		records[n] = revokedRecord{client: digestOf(testURL, id), token: digestOf(testURL, id, id), expires: testenv.Now.Unix()}
	}
	r.learn(records, true)
	mustRevoke(t, r, anHour("a", "1"))
	list := r.current.Load()
	if len(list.tokens) != maxRevoked || len(list.cutoffs) != 1 || !r.Revoked("a", "1", testenv.Now) || !r.Revoked("a", "2", testenv.Now) || r.Revoked("b", "2", testenv.Now) {
		t.Errorf("there are %d tokens and %d cutoffs", len(list.tokens), len(list.cutoffs))
	}
}

// TestSupersededCutoffsAreRemoved covers several nodes that each store a
// cutoff.
func TestSupersededCutoffsAreRemoved(t *testing.T) {
	storage, clock := newStorage(t), testenv.NewClock()
	client := digestOf(testURL, "a")
	expires := testenv.Now.Add(time.Hour).Unix()
	for _, record := range []revokedRecord{
		{client: client, all: true, until: 10, expires: expires},
		{client: client, all: true, until: 20, expires: expires},
		{client: client, all: true, until: 5, expires: expires + 1},
		{client: digestOf(testURL, "b"), all: true, until: 1, expires: expires},
	} {
		if err := storage.Storage.Store(t.Context(), path.Join("mtls/default/revocations", record.name()), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	r := startRevoked(t, storage, clock, nil)
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names := objects(t, storage); len(names) != 3 || strings.Contains(strings.Join(names, " "), "until-10") {
		t.Errorf("storage has %v", names)
	}
	if limit := r.current.Load().cutoffs[client]; limit != (cutoff{until: 20, expires: expires + 1}) {
		t.Errorf("the cutoff is %+v", limit)
	}
}
