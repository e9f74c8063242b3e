package tokens

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"
)

func readMetadata(t testing.TB, issuer *Issuer) map[string]any {
	t.Helper()
	doc := issuer.Metadata()
	var metadata map[string]any
	if err := json.Unmarshal(doc.Body, &metadata); err != nil {
		t.Fatalf("the metadata does not parse: %v", err)
	}
	if doc.ETag != newDocument(doc.Body).ETag {
		t.Error("the tag is not that of the body")
	}
	return metadata
}

// TestR42_R43_Metadata compares all of the document, so that no endpoint is
// announced which is not served, and no default of RFC 8414 §2 is left to say
// what is not so.
func TestR42_R43_Metadata(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{
		URL:         testURL + "/tenant1",
		Scopes:      []string{"telemetry", "api1", "telemetry"},
		AuthMethods: []string{TLSClientAuth},
	})
	want := map[string]any{
		"issuer":                                testURL + "/tenant1",
		"token_endpoint":                        testURL + "/tenant1/connect/token",
		"jwks_uri":                              testURL + "/tenant1/.well-known/openid-configuration/jwks",
		"scopes_supported":                      []any{"api1", "telemetry"},
		"grant_types_supported":                 []any{"client_credentials"},
		"token_endpoint_auth_methods_supported": []any{"tls_client_auth"},
		"tls_client_certificate_bound_access_tokens": true,
		"mtls_endpoint_aliases":                      map[string]any{"token_endpoint": testURL + "/tenant1/connect/mtls/token"},
		"id_token_signing_alg_values_supported":      []any{"ES256"},
	}
	if got := readMetadata(t, issuer); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestMetadataOmitsEmptyArrays(t *testing.T) {
	if scopes, ok := readMetadata(t, newTestIssuer(t, IssuerConfig{}))["scopes_supported"]; ok {
		t.Errorf("scopes_supported is %v", scopes)
	}
}

func TestR14_BoundTokensAreAnnounced(t *testing.T) {
	if got := readMetadata(t, newTestIssuer(t, IssuerConfig{}))["tls_client_certificate_bound_access_tokens"]; got != true {
		t.Errorf("got %v", got)
	}
}

func TestR17_EndpointAliases(t *testing.T) {
	for _, tc := range []struct{ url, alias, want string }{
		{testURL, "", testURL + "/connect/mtls/token"},
		{testURL + "/", "", testURL + "/connect/mtls/token"},
		{testURL + "/t/", "", testURL + "/t/connect/mtls/token"},
		{testURL, "https://mtls.example.com", "https://mtls.example.com/connect/token"},
		{testURL, "https://mtls.example.com/", "https://mtls.example.com/connect/token"},
		{testURL + "/t", "https://mtls.example.com:8443/m", "https://mtls.example.com:8443/m/connect/token"},
	} {
		issuer := newTestIssuer(t, IssuerConfig{URL: tc.url, MTLSAlias: tc.alias})
		got := readMetadata(t, issuer)["mtls_endpoint_aliases"]
		if want := map[string]any{"token_endpoint": tc.want}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s, %s: got %v, want %v", tc.url, tc.alias, got, want)
		}
	}
}

func TestR26_AuthMethods(t *testing.T) {
	for _, tc := range []struct{ methods, want []string }{
		{[]string{TLSClientAuth}, []string{TLSClientAuth}},
		{[]string{SelfSignedTLSClientAuth}, []string{SelfSignedTLSClientAuth}},
		{[]string{TLSClientAuth, SelfSignedTLSClientAuth, TLSClientAuth}, []string{SelfSignedTLSClientAuth, TLSClientAuth}},
		{nil, []string{SelfSignedTLSClientAuth, TLSClientAuth}},
	} {
		issuer := newTestIssuer(t, IssuerConfig{AuthMethods: tc.methods})
		var got []string
		for _, method := range readMetadata(t, issuer)["token_endpoint_auth_methods_supported"].([]any) {
			got = append(got, method.(string))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%v: got %v, want %v", tc.methods, got, tc.want)
		}
	}
}

func TestMetadataNamesTheAlgorithm(t *testing.T) {
	for _, alg := range Algorithms() {
		issuer, err := NewIssuer(IssuerConfig{URL: testURL}, ManagedKeys(&KeyStore{Algorithm: alg}, nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := readMetadata(t, issuer)["id_token_signing_alg_values_supported"]; fmt.Sprint(got) != fmt.Sprintf("[%s]", alg) {
			t.Errorf("%s: got %v", alg, got)
		}
	}
	ring := NewKeyring(mustKey(t, PS256, time.Time{}))
	issuer, err := NewIssuer(IssuerConfig{URL: testURL}, FixedKeys(ring))
	if err != nil {
		t.Fatal(err)
	}
	if got := readMetadata(t, issuer)["id_token_signing_alg_values_supported"]; fmt.Sprint(got) != "[PS256]" {
		t.Errorf("got %v", got)
	}
}
