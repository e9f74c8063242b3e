package keyring

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

func TestJWKSHoldsPublicKeysOnly(t *testing.T) {
	members := map[string][]string{
		"EC":  {"alg", "crv", "kid", "kty", "use", "x", "y"},
		"RSA": {"alg", "e", "kid", "kty", "n", "use"},
		"OKP": {"alg", "crv", "kid", "kty", "use", "x"},
	}
	for _, alg := range []Algorithm{ES256, ES384, ES512, PS256, EdDSA} {
		key := mustKey(t, alg, time.Time{})
		var set struct{ Keys []map[string]string }
		if err := json.Unmarshal(New(key).JWKS().Body, &set); err != nil {
			t.Fatal(err)
		}
		if len(set.Keys) != 1 {
			t.Fatalf("%s: %d keys are published", alg, len(set.Keys))
		}
		jwk := set.Keys[0]
		if got, want := slices.Sorted(maps.Keys(jwk)), members[jwk["kty"]]; !slices.Equal(got, want) {
			t.Errorf("%s has the members %v, want %v", alg, got, want)
		}
		if jwk["kid"] != key.ID || jwk["alg"] != string(alg) || jwk["use"] != "sig" {
			t.Errorf("%s is published as %v", alg, jwk)
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
