package keyring

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

func TestKeyringPublishesAllKeysAndSignsWithOne(t *testing.T) {
	first, second := mustKey(t, ES256, testenv.Now), mustKey(t, RS256, testenv.Now)
	ring := New(first, first, second, second)
	if ring.Signing() != first || !slices.Equal(ring.keys, []*Key{first, second}) {
		t.Errorf("keys are %v", ring.keys)
	}
}

func TestJWKSHoldsPublicKeysOnly(t *testing.T) {
	members := map[string][]string{
		"EC":  {"alg", "crv", "kid", "kty", "use", "x", "y"},
		"RSA": {"alg", "e", "kid", "kty", "n", "use"},
		"OKP": {"alg", "crv", "kid", "kty", "use", "x"},
	}
	var keys []*Key
	for _, alg := range []Algorithm{ES256, ES384, ES512, PS256, EdDSA} {
		keys = append(keys, mustKey(t, alg, time.Time{}))
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(New(keys[0], keys[1:]...).JWKS().Body, &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != len(keys) {
		t.Fatalf("%d keys are published, want %d", len(set.Keys), len(keys))
	}
	for n, jwk := range set.Keys {
		var got []string
		for name := range jwk {
			got = append(got, name)
		}
		slices.Sort(got)
		if want := members[jwk["kty"]]; !slices.Equal(got, want) {
			t.Errorf("%s has the members %v, want %v", keys[n].Algorithm(), got, want)
		}
		if jwk["kid"] != keys[n].ID() || jwk["alg"] != string(keys[n].Algorithm()) || jwk["use"] != "sig" {
			t.Errorf("%s is published as %v", keys[n].Algorithm(), jwk)
		}
	}
}

func TestETagFollowsTheBody(t *testing.T) {
	a, b := mustKey(t, ES256, testenv.Now), mustKey(t, ES256, testenv.Now)
	first, again, other := New(a).JWKS(), New(a).JWKS(), New(b).JWKS()
	if first.ETag != again.ETag {
		t.Error("one body has two tags")
	}
	if first.ETag == other.ETag {
		t.Error("two bodies have one tag")
	}
}
