package tokens

import (
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// TestRevocationsSurviveAFastClock_S4 checks that a node whose clock is hours
// ahead deletes no revocation that another node needs.
func TestRevocationsSurviveAFastClock_S4(t *testing.T) {
	for _, fast := range []time.Duration{71 * time.Minute, 3 * time.Hour, 24*time.Hour + 59*time.Minute} {
		t.Run(fast.String(), func(t *testing.T) {
			storage, clock, ahead := newStorage(t), testenv.NewClock(), testenv.NewClock()
			mustRevoke(t, startRevoked(t, storage, clock, nil), anHour("a", "1"))
			ahead.Advance(fast)
			node := startRevoked(t, storage, ahead, nil)
			if err := node.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			clock.Advance(time.Minute)
			for name, r := range map[string]*RevokedTokens{"the fast node": node, "a node that starts": startRevoked(t, storage, clock, nil)} {
				if !r.Known() || !r.Revoked("a", "1", testenv.Now) {
					t.Errorf("%s does not know the revocation", name)
				}
			}
		})
	}
}

// TestRevocationsSurviveAClockThatJumps_S4 checks that a clock which jumps ahead
// and back undoes no revocation, in storage or in memory.
func TestRevocationsSurviveAClockThatJumps_S4(t *testing.T) {
	storage, clock := newStorage(t), testenv.NewClock()
	r := startRevoked(t, storage, clock, nil)
	mustRevoke(t, r, anHour("a", "1"))
	for _, jump := range []time.Duration{2 * time.Hour, 24 * time.Hour} {
		clock.Advance(jump)
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock.Advance(-jump)
		if !r.Revoked("a", "1", testenv.Now) || len(objects(t, storage)) != 1 {
			t.Errorf("after a jump of %v and back: revoked is %v, storage has %v", jump, r.Revoked("a", "1", testenv.Now), objects(t, storage))
		}
	}
}

// TestRevokeWithAWrongClock_S4 checks that a node whose clock is wrong stores the
// revocation of a token that is good on the others.
func TestRevokeWithAWrongClock_S4(t *testing.T) {
	for _, wrong := range []time.Duration{-2 * time.Hour, 2 * time.Hour, 24 * time.Hour} {
		storage, right, clock := newStorage(t), testenv.NewClock(), testenv.NewClock()
		keys := managedKeys(t, storage, right)
		if _, err := keys.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
		issuer, err := NewIssuer(IssuerConfig{URL: testURL, Now: right.Now}, keys)
		if err != nil {
			t.Fatal(err)
		}
		token := mustMint(t, issuer, newGrant(), newRequest(""))
		clock.Advance(wrong)
		node, err := NewIssuer(IssuerConfig{URL: testURL, Now: clock.Now, RevokedTokens: startRevoked(t, storage, clock, nil)}, keys)
		if err != nil {
			t.Fatal(err)
		}
		result, oauthErr := node.Revoke(t.Context(), "mtls.client", token.AccessToken)
		if oauthErr != nil || result.TokenID != token.ID {
			t.Errorf("with a clock that is %v off, revoking returns %+v, %v", wrong, result, oauthErr)
		}
		if !startRevoked(t, storage, right, nil).Revoked("mtls.client", token.ID, testenv.Now) {
			t.Errorf("with a clock that is %v off, the token is not revoked", wrong)
		}
	}
}

// fillRevoked revokes as many tokens of a client as are listed, and one more.
func fillRevoked(t testing.TB, r *RevokedTokens, client string) {
	t.Helper()
	for n := range maxRevokedPerClient + 1 {
		mustRevoke(t, r, &VerifiedToken{ClientID: client, ID: fmt.Sprint(n), IssuedAt: r.cfg.Now(), Expires: r.cfg.Now().Add(time.Hour)})
	}
}

// TestCutoffLastsAsLongAsAnyToken_S9 checks that a cutoff revokes tokens with a long
// lifetime until they expire, even if nobody revoked them one by one.
func TestCutoffLastsAsLongAsAnyToken_S9(t *testing.T) {
	const day = 24 * time.Hour
	storage, clock := newStorage(t), testenv.NewClock()
	r, err := NewRevokedTokens(RevokedTokensConfig{Storage: storage, Realm: "default", Issuer: testURL, Now: clock.Now, LongestToken: func() time.Duration { return 90 * day }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	fillRevoked(t, r, "a")
	clock.Advance(89 * day)
	for range 2 {
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*RevokedTokens{r, startRevoked(t, storage, clock, nil)} {
		if !r.Revoked("a", "another", testenv.Now) || r.Revoked("a", "another", clock.Now()) {
			t.Error("a token that was issued before the cutoff is good again")
		}
	}
}

// TestRevocationLastsAsLongAsTheToken_S9 checks that a token which a cutoff
// revokes stays revoked beyond the end of the cutoff, if somebody revoked it.
func TestRevocationLastsAsLongAsTheToken_S9(t *testing.T) {
	const day = 24 * time.Hour
	storage, clock := newStorage(t), testenv.NewClock()
	r := startRevoked(t, storage, clock, nil)
	long := &VerifiedToken{ClientID: "a", ID: "long", IssuedAt: clock.Now(), Expires: clock.Now().Add(90 * day)}
	longer := &VerifiedToken{ClientID: "a", ID: "longer", IssuedAt: clock.Now(), Expires: clock.Now().Add(91 * day)}
	clock.Advance(time.Hour)
	fillRevoked(t, r, "a")
	mustRevoke(t, r, long)
	mustRevoke(t, r, longer)
	stored := storage.Count("store")
	mustRevoke(t, r, long) // the cutoff of the other lasts longer
	if got := storage.Count("store"); got != stored {
		t.Errorf("%d objects more were stored", got-stored)
	}
	for range 2 {
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if names := objects(t, storage); len(names) != maxRevokedPerClient+1 {
		t.Errorf("storage has %d objects", len(names))
	}
	for _, after := range []time.Duration{31 * day, 58 * day, 2*day - 2*time.Hour} {
		clock.Advance(after)
		for range 2 {
			if err := r.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range []*RevokedTokens{r, startRevoked(t, storage, clock, nil)} {
			for _, rev := range []*VerifiedToken{long, longer} {
				if clock.Now().Before(rev.Expires) && !r.Revoked(rev.ClientID, rev.ID, rev.IssuedAt) {
					t.Errorf("at %v, %s is good again until %v", clock.Now(), rev.ID, rev.Expires)
				}
			}
		}
	}
}

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
