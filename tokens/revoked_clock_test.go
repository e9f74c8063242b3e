package tokens

import (
	"fmt"
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
