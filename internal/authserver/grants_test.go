package authserver

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

func registryOf(t *testing.T, records ...clients.Record) *clients.Registry {
	t.Helper()
	d, err := directory.New(t.Context(), directory.Config{Records: records})
	if err != nil {
		t.Fatal(err)
	}
	return d.Registry()
}

// TestGrantsAreMadeForTheFirstToken checks that nothing is prepared for a client before
// it gets a token, and that it is kept then.
func TestGrantsAreMadeForTheFirstToken(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	record := clients.Record{
		ClientID: "a", Thumbprints: clients.Strings{testpki.HashOf(leaf.Cert.Raw)},
		Claims: map[string]json.RawMessage{"tenant": []byte(`"acme"`)},
	}
	registry := registryOf(t, record)
	client := registry.Client("a")
	if client.Memo().Load() != nil {
		t.Error("something is prepared before the first token")
	}
	grant, err := GrantOf(client)
	want, wantErr := tokens.PrepareClaims(map[string]any{"tenant": "acme"})
	if err != nil || wantErr != nil || grant.ClientID != "a" || fmt.Sprint(grant.Claims) != fmt.Sprint(want) {
		t.Errorf("%+v, %v", grant, err)
	}
	kept := client.Memo().Load()
	if _, err := GrantOf(client); err != nil || kept == nil || client.Memo().Load() != kept {
		t.Errorf("the grant is made again: %v", err)
	}
}

// TestCredentialOfATokenCounts checks which credentials a client still has, as far as
// its tokens are concerned.
func TestCredentialOfATokenCounts(t *testing.T) {
	clock := testenv.NewClockAt(time.Now())
	leaf, listed := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	thumbprint := testpki.HashOf(leaf.Cert.Raw)
	end := clock.Now().Add(time.Hour).UTC()
	a := clients.Record{
		ClientID: "a", SubjectDN: clients.Strings{"cn=a"}, JWKS: testpki.JWKS(t, listed),
		Thumbprints: clients.Strings{thumbprint + " until " + end.Format(time.RFC3339)},
	}
	asked := registered{registryOf(t, a, clients.Record{ClientID: "b", SubjectDN: clients.Strings{"CN=b"}}), clock.Now}
	has := func(id string, kind clients.Kind, value string) bool {
		want := tokenCredential(&clients.Credential{Kind: kind, Value: value})
		return asked.HasCredential(id, func(c tokens.Credential) bool { return c == want })
	}
	for _, step := range []struct {
		ahead time.Duration
		pin   bool
	}{{0, true}, {time.Hour, false}} {
		clock.Advance(step.ahead)
		for _, test := range []struct {
			id    string
			kind  clients.Kind
			value string
			want  bool
		}{
			{"a", clients.KindThumbprint, thumbprint, step.pin},
			{"a", clients.KindCertificate, thumbprint, step.pin},
			{"a", clients.KindPublicKey, thumbprint, false},
			{"a", clients.KindSubject, "CN=a", true},
			{"a", clients.KindSubject, "CN=b", false},
			{"b", clients.KindSubject, "CN=a", false},
			{"a", clients.KindJWKS, testpki.HashOf(listed.Cert.Raw), true},
			{"b", clients.KindJWKS, testpki.HashOf(listed.Cert.Raw), false},
			{"nobody", clients.KindSubject, "CN=a", false},
		} {
			if got := has(test.id, test.kind, test.value); got != test.want {
				t.Errorf("after %s, %s, %s %s: %t", step.ahead, test.id, test.kind, test.value, got)
			}
		}
	}
}
