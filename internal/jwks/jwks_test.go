package jwks

import (
	"errors"
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	for content, want := range map[string]int{`{"keys":[]}`: 0, `{"keys":[1,{}],"more":true}`: 2} {
		if keys, err := Keys([]byte(content)); err != nil || len(keys) != want {
			t.Errorf("%s: %q, %v", content, keys, err)
		}
	}
	for _, content := range []string{"", "null", "[]", "{}", `{"keys":null}`, `{"keys":{}}`, `{"Keys":[]}`, `{"keys":[]`} {
		if _, err := Keys([]byte(content)); !errors.Is(err, ErrNotSet) {
			t.Errorf("%s: %v", content, err)
		}
	}
	many := `{"keys":[1` + strings.Repeat(",1", MaxKeys) + `]}`
	if _, err := Keys([]byte(many)); err == nil || err.Error() != "it has 101 keys; at most 100 are read" {
		t.Error(err)
	}
}

func TestMembers(t *testing.T) {
	for jwk, want := range map[string]bool{`{"kty":"EC"}`: false, `{"kty":"EC","d":""}`: true, `{"k":null}`: true, `{"D":""}`: false} {
		if members, private, err := Members([]byte(jwk)); err != nil || private != want || len(members) == 0 {
			t.Errorf("%s: %q, %v, %v", jwk, members, private, err)
		}
	}
	for _, jwk := range []string{"", "1", "[]", "null", "{"} {
		if _, _, err := Members([]byte(jwk)); err == nil {
			t.Errorf("%q is a JWK", jwk)
		}
	}
}
