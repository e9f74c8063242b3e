package tokens

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// TestFaultsOfTrustedKeys checks that a key which is left out because of a fault is told,
// with its place, kid, cause and remedy, but not one that is for something else.
func TestFaultsOfTrustedKeys(t *testing.T) {
	good := string(mustKey(t, keyring.ES256).publicDoc())
	changed := func(old, replacement string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s has no %s", good, old)
		}
		return strings.Replace(good, old, replacement, 1)
	}
	for _, test := range []struct{ name, key, want string }{
		{"good", good, "[]"},
		{"for encryption", changed(`{`, `{"key_ops":["encrypt"],`), "[]"},
		{"an unknown type", `{"kty":"AKP","kid":"k"}`, "[]"},
		{"an alg that is not for tokens", `{"kty":"RSA","alg":"RSA-OAEP","kid":"k"}`, "[]"},
		{"not an object", `1`, "[key 1: it is not a JSON object; correct it in the JWKS]"},
		{"damaged", `{"kty":"EC","crv":"P-256","x":"!","y":"AA","kid":"k\n1"}`, `[key 1 (kid 'k\n1'): it cannot be read: a member is not base64url without padding (RFC 7518 §6); correct it in the JWKS]`},
		{"private", `{"kty":"EC","d":"AA","kid":"k"}`, "[key 1 (kid 'k'): it has PRIVATE or secret members, so whoever can read the JWKS can sign tokens; replace the key and publish only its public part]"},
		{"a weak RSA key", `{"kty":"RSA","n":"_w","e":"AQAB"}`, "[key 1: the RSA key has 8 bits; use one of at least 2048 (RFC 7518 §3.3)]"},
		{"alg of another key", changed(`"ES256"`, `"RS256"`), "its alg 'RS256' is not one of its key; correct it or leave it out]"},
		{"key_ops of another type", changed(`{`, `{"key_ops":1,`), "its member key_ops has a value of another type (RFC 7517 §4); correct it in the JWKS]"},
		{"many", strings.Repeat("1,", maxKeyFaults+1) + "1", "key 5: it is not a JSON object; correct it in the JWKS 2 more keys]"},
	} {
		_, faults, err := parseTrustedJWKS([]byte(`{"keys":[` + test.key + `]}`))
		if got := fmt.Sprint(faults); err != nil || !strings.HasSuffix(got, test.want) {
			t.Errorf("%s: %s, %v; want %s", test.name, got, err, test.want)
		}
	}
}

// TestFaultsOfTrustedKeysAreToldOnce checks that faults are told when they change, over
// another configuration too.
func TestFaultsOfTrustedKeysAreToldOnce(t *testing.T) {
	v := newVerifierTest(t)
	s := newKeyServer(t, nil)
	keys := s.issuer(t, "", s.URL+"/keys", v.clock.Now)
	for i, step := range []struct {
		keys string
		want int
	}{{`{"kty":"oct","k":"AA"}`, 1}, {`{"kty":"oct","k":"AAAA"}`, 0}, {`{"kty":"oct","k":"AA"},1`, 2}, {``, 0}, {`1`, 1}} {
		s.documents.Store(&map[string]string{"/keys": `{"keys":[` + step.keys + `]}`})
		if _, err := keys.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if told := keys.NewFaults(); len(told) != step.want {
			t.Errorf("step %d: told %q", i, told)
		}
		if told := keys.NewFaults(); told != nil {
			t.Errorf("step %d: told again: %q", i, told)
		}
		next := s.issuer(t, "", s.URL+"/keys", v.clock.Now)
		next.TakeOver(keys)
		if told := next.NewFaults(); told != nil {
			t.Errorf("step %d: told again by the next configuration: %q", i, told)
		}
		keys = next
	}
}
