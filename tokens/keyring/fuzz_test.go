package keyring

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzParsePrivateKeyPEM parses any file for any algorithm. The result signs,
// and parses again to the same key.
func FuzzParsePrivateKeyPEM(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte, alg string) {
		key, err := ParsePrivateKeyPEM(data, Algorithm(alg))
		if err != nil {
			if err.Error() == "" {
				t.Fatal("the error says nothing")
			}
			return
		}
		if alg != "" && key.Algorithm != Algorithm(alg) {
			t.Fatalf("asked for %q, got %q", alg, key.Algorithm)
		}
		if raw, err := base64.RawURLEncoding.DecodeString(key.ID); err != nil || len(raw) != 32 {
			t.Fatalf("kid is %q", key.ID)
		}
		again, err := encodePrivateKeyPEM(key.private)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := ParsePrivateKeyPEM(again, key.Algorithm); err != nil || same.ID != key.ID {
			t.Fatalf("the key does not survive: %v", err)
		}
		if _, err := key.Sign(AccessToken, []byte("{}")); err != nil {
			t.Fatalf("the key does not sign: %v", err)
		}
	})
}

// FuzzStoredKey decodes any object. It is used only if it is complete and this
// issuer's; otherwise the report does not contain the key.
func FuzzStoredKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		const part = "1hK1bbY8fdp" // of examplePEM
		var object storedKey
		_ = json.Unmarshal(data, &object)
		key, event, err := decodeStoredKey(data, testURL)
		if err != nil {
			if key.Key != nil || event == "" {
				t.Fatalf("got key %v, event %q", key, event)
			}
			// Any other member may hold the same text and be quoted.
			onlyInKey := strings.Count(string(data), part) == strings.Count(object.PrivateKey, part)
			if onlyInKey && strings.Contains(err.Error(), part) {
				t.Fatalf("the error holds the key: %v", err)
			}
			return
		}
		if object.Issuer != testURL || object.Version != storedKeyVersion || object.KeyID != key.ID ||
			object.Algorithm != key.Algorithm || !object.Created.Equal(key.created) {
			t.Fatalf("%s was read as %+v", data, key)
		}
		if !object.SignsFrom.Equal(key.signsFrom) || key.longest <= 0 {
			t.Fatalf("%s signs from %v, tokens for %v", data, key.signsFrom, key.longest)
		}
		encoded, err := encodeStoredKey(key, testURL)
		if err != nil {
			years := []int{key.created.Year(), key.signsFrom.Year()}
			if slices.Min(years) >= 0 && slices.Max(years) <= 9999 {
				t.Fatal(err)
			}
			return
		}
		if same, _, err := decodeStoredKey(encoded, testURL); err != nil || same.ID != key.ID || !same.signsFrom.Equal(key.signsFrom) || same.longest != key.longest {
			t.Fatalf("the key does not survive: %v", err)
		}

		store, _ := newTestStore(t, newStorage(t))
		putRaw(t, store, key.ID, data)
		if ring, err := loadRing(t.Context(), store); err != nil || ring.Signing().ID != key.ID {
			t.Fatalf("%s: got %v, %v", key.Algorithm, ring, err)
		}
	})
}

// The key of RFC 9500 §2.3.
const rfc9500PEM = `-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIObLW92AqkWunJXowVR2Z5/+yVPBaFHnEedDk5WJxk/BoAoGCCqGSM49
AwEHoUQDQgAEQiVI+I+3gv+17KN0RFLHKh5Vj71vc75eSOkyMsxFxbFsTNEMTLjV
uKFxOelIgsiZJXKZNCX0FBmrfpCkKklCcg==
-----END EC PRIVATE KEY-----
`

func TestExampleKeysParse(t *testing.T) {
	if got := exampleKey(t).Algorithm; got != EdDSA {
		t.Errorf("algorithm is %s", got)
	}
	key, err := parsePrivateKeyPEM([]byte(rfc9500PEM), "", time.Time{})
	if err != nil || key.Algorithm != ES256 {
		t.Errorf("got %v, %v", key, err)
	}
}
