package tokens

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

func readMetadata(t testing.TB, issuer *Issuer) map[string]any {
	t.Helper()
	doc := issuer.Metadata()
	var metadata map[string]any
	if err := json.Unmarshal(doc.Body, &metadata); err != nil {
		t.Fatalf("the metadata does not parse: %v", err)
	}
	if doc.ETag != keyring.NewDocument(doc.Body).ETag {
		t.Error("the tag is not that of the body")
	}
	return metadata
}

// TestMetadata_R42_R43 compares the whole document: it names no endpoint that
// is not served, and no default of RFC 8414 §2 applies that is wrong.
func TestMetadata_R42_R43(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{
		URL:           testURL + "/tenant1",
		Clients:       testClients{scopes: []string{"telemetry", "api1", "telemetry"}, methods: []string{TLSClientAuth}},
		RevokedTokens: newTestRevoked(t, newStorage(t)),
	})
	want := map[string]any{
		"issuer":                                testURL + "/tenant1",
		"token_endpoint":                        testURL + "/tenant1/connect/token",
		"jwks_uri":                              testURL + "/tenant1/.well-known/openid-configuration/jwks",
		"scopes_supported":                      []any{"api1", "telemetry"},
		"grant_types_supported":                 []any{"client_credentials"},
		"token_endpoint_auth_methods_supported": []any{"tls_client_auth"},
		"introspection_endpoint":                testURL + "/tenant1/connect/introspect",
		"introspection_endpoint_auth_methods_supported": []any{"tls_client_auth"},
		"revocation_endpoint":                           testURL + "/tenant1/connect/revocation",
		"revocation_endpoint_auth_methods_supported":    []any{"tls_client_auth"},
		"tls_client_certificate_bound_access_tokens":    true,
		"mtls_endpoint_aliases": map[string]any{
			"token_endpoint":         testURL + "/tenant1/connect/mtls/token",
			"introspection_endpoint": testURL + "/tenant1/connect/mtls/introspect",
			"revocation_endpoint":    testURL + "/tenant1/connect/mtls/revocation",
		},
		"id_token_signing_alg_values_supported": []any{"ES256"},
		"subject_types_supported":               []any{"public"},
	}
	if got := readMetadata(t, issuer); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestMetadataOmitsWhatThereIsNot(t *testing.T) {
	metadata := readMetadata(t, newTestIssuer(t, IssuerConfig{}))
	for _, name := range []string{"scopes_supported", "revocation_endpoint", "revocation_endpoint_auth_methods_supported"} {
		if value, ok := metadata[name]; ok {
			t.Errorf("%s is %v", name, value)
		}
	}
	if value, ok := metadata["mtls_endpoint_aliases"].(map[string]any)["revocation_endpoint"]; ok {
		t.Errorf("the alias of revocation_endpoint is %v", value)
	}
}

func TestBoundTokensAreAnnounced_R14(t *testing.T) {
	if got := readMetadata(t, newTestIssuer(t, IssuerConfig{}))["tls_client_certificate_bound_access_tokens"]; got != true {
		t.Errorf("got %v", got)
	}
}

func TestEndpointAliases_R17(t *testing.T) {
	for _, tc := range []struct{ url, alias, want string }{
		{testURL, "", testURL + "/connect/mtls/"},
		{testURL + "/", "", testURL + "/connect/mtls/"},
		{testURL + "/t/", "", testURL + "/t/connect/mtls/"},
		{testURL, "https://mtls.example.com", "https://mtls.example.com/connect/"},
		{testURL, "https://mtls.example.com/", "https://mtls.example.com/connect/"},
		{testURL + "/t", "https://mtls.example.com:8443/m", "https://mtls.example.com:8443/m/connect/"},
	} {
		issuer := newTestIssuer(t, IssuerConfig{URL: tc.url, MTLSAlias: tc.alias, RevokedTokens: newTestRevoked(t, newStorage(t))})
		got := readMetadata(t, issuer)["mtls_endpoint_aliases"]
		want := map[string]any{
			"token_endpoint": tc.want + "token", "introspection_endpoint": tc.want + "introspect", "revocation_endpoint": tc.want + "revocation",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s, %s: got %v, want %v", tc.url, tc.alias, got, want)
		}
	}
}

func TestAuthMethods_R26(t *testing.T) {
	for _, tc := range []struct{ methods, want []string }{
		{[]string{TLSClientAuth}, []string{TLSClientAuth}},
		{[]string{SelfSignedTLSClientAuth}, []string{SelfSignedTLSClientAuth}},
		{[]string{TLSClientAuth, SelfSignedTLSClientAuth, TLSClientAuth}, []string{SelfSignedTLSClientAuth, TLSClientAuth}},
		{nil, []string{SelfSignedTLSClientAuth, TLSClientAuth}},
	} {
		issuer := newTestIssuer(t, IssuerConfig{Clients: testClients{methods: tc.methods}, RevokedTokens: newTestRevoked(t, newStorage(t))})
		metadata := readMetadata(t, issuer)
		for _, endpoint := range []string{"token", "introspection", "revocation"} {
			var got []string
			for _, method := range metadata[endpoint+"_endpoint_auth_methods_supported"].([]any) {
				got = append(got, method.(string))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%v, %s: got %v, want %v", tc.methods, endpoint, got, tc.want)
			}
		}
	}
}

func TestMetadataNamesTheAlgorithm(t *testing.T) {
	for _, alg := range keyring.Algorithms() {
		keys, err := keyring.Managed(keyring.Config{Storage: newStorage(t), Realm: "default", Issuer: testURL, Algorithm: alg}, nil)
		if err != nil {
			t.Fatal(err)
		}
		issuer, err := NewIssuer(IssuerConfig{URL: testURL}, keys)
		if err != nil {
			t.Fatal(err)
		}
		if got := readMetadata(t, issuer)["id_token_signing_alg_values_supported"]; fmt.Sprint(got) != fmt.Sprintf("[%s]", alg) {
			t.Errorf("%s: got %v", alg, got)
		}
	}
	ring := keyring.New(mustKey(t, keyring.PS256).Key)
	issuer, err := NewIssuer(IssuerConfig{URL: testURL}, keyring.Fixed(ring))
	if err != nil {
		t.Fatal(err)
	}
	if got := readMetadata(t, issuer)["id_token_signing_alg_values_supported"]; fmt.Sprint(got) != "[PS256]" {
		t.Errorf("got %v", got)
	}
}
