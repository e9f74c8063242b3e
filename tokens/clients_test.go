package tokens

import (
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// TestTokenEndsWithItsCredential checks that a token is inactive, at an issuer that has
// only the keys of the one that issued it, while the client does not have the
// credential that it got the token with.
func TestTokenEndsWithItsCredential(t *testing.T) {
	key := mustKey(t, keyring.ES256)
	var credentials []Credential
	node := func() *Issuer {
		issuer, err := NewIssuer(IssuerConfig{URL: testURL, Now: testenv.NewClock().Now, Clients: testClients{credentials: &credentials}}, fixedKeys(key))
		if err != nil {
			t.Fatal(err)
		}
		return issuer
	}
	grant := newGrant("a")
	grant.Credential = Credential{"thumbprint", "aa"}
	tagged := mustMint(t, node(), grant, newRequest("")).AccessToken
	plain := mustMint(t, node(), newGrant("a"), newRequest("")).AccessToken
	for name, tc := range map[string]struct {
		credentials []Credential
		active      bool
	}{
		"the same":               {[]Credential{{"thumbprint", "aa"}}, true},
		"one of several":         {[]Credential{{"subject", "CN=a"}, {"thumbprint", "aa"}}, true},
		"none":                   {nil, false},
		"another value":          {[]Credential{{"thumbprint", "ab"}}, false},
		"another kind":           {[]Credential{{"public_key", "aa"}}, false},
		"split elsewhere":        {[]Credential{{"thumbprinta", "a"}}, false},
		"the zero credential":    {[]Credential{{}}, false},
		"parts of it separately": {[]Credential{{"thumbprint", ""}, {"", "aa"}}, false},
	} {
		credentials = tc.credentials
		for token, active := range map[string]bool{tagged: tc.active, plain: true} {
			answer, failure := node().Introspect(t.Context(), Introspector{ClientID: "mtls.client"}, token)
			if failure != nil || (answer.Token != nil) != active || !active && answer.Cause != errCredentialGone {
				t.Errorf("%s, tagged %t: %+v, %v", name, token == tagged, answer, failure)
			}
		}
	}
}

// TestTokenIDs checks that the tags of a credential differ from token to token, and that
// the identifiers of other servers have none.
func TestTokenIDs(t *testing.T) {
	credential := Credential{"subject", strings.Repeat("x", 4096)}
	seen := make(map[string]bool)
	for range 100 {
		random, tag, _ := strings.Cut(newTokenID("a", credential), tagSeparator)
		if seen[random] || seen[tag] || len(random) != 22 || len(tag) != 11 {
			t.Fatalf("%s, %s", random, tag)
		}
		seen[random], seen[tag] = true, true
	}
	id := newTokenID("a", credential)
	for _, other := range []string{
		"", newTokenID("a", Credential{}), "0F8FAD5BD9CB469FA16570867728950E", "0f8fad5b-d9cb-469f-a165-70867728950e", "a.b", ".", id + ".", id + "a", id[1:],
	} {
		if _, tagged := credentialOf(&VerifiedToken{ID: other, ClientID: "a"}); tagged {
			t.Errorf("%q has a tag", other)
		}
	}
	is, tagged := credentialOf(&VerifiedToken{ID: id, ClientID: "a"})
	if !tagged || !is(credential) {
		t.Errorf("%q is not for its credential", id)
	}
	if is, _ := credentialOf(&VerifiedToken{ID: id, ClientID: "b"}); is(credential) {
		t.Errorf("%q is for the credential of another client", id)
	}
}

// TestMetadataFollowsTheClients checks that an issuer that is asked for its metadata
// again after clients have changed names what they have now.
func TestMetadataFollowsTheClients(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{Clients: testClients{scopes: []string{"a"}}})
	if got := readMetadata(t, issuer)["scopes_supported"].([]any); !slices.Equal(got, []any{"a"}) {
		t.Errorf("got %v", got)
	}
	later := issuer.WithClients(testClients{scopes: []string{"a", "b"}})
	for range 2 {
		if got := readMetadata(t, later)["scopes_supported"].([]any); !slices.Equal(got, []any{"a", "b"}) {
			t.Errorf("later: %v", got)
		}
		if got := readMetadata(t, issuer)["scopes_supported"].([]any); !slices.Equal(got, []any{"a"}) {
			t.Errorf("the issuer before: %v", got)
		}
	}
}
