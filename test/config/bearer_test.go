package config_test

import (
	"testing"
)

// withBearer returns a configuration with several realms, with and without an
// issuer, and a server with one handler.
func withBearer(handler string) string {
	return `{"apps":{"mtls":{"realms":{
		"partners":{"clients":[{"client_id":"a","x509_thumbprints":"SHA256"}],"issuer":{"url":"https://auth.example.com"}},
		"several":{"clients":[{"client_id":"b","x509_thumbprints":"SHA256","scope":"x"}],"issuer":{"url":"https://several.example.com","resources":[{"name":"https://x.example.com","scopes":["x"]}]}},
		"proxied":{"clients":[{"client_id":"c","x509_thumbprints":"SHA256"}],"issuer":{"url":"https://proxied.example.com"},"forwarded_certificate":{"format":"nginx","from":["10.0.0.7"]}},
		"bare":{"clients":[{"client_id":"d","x509_thumbprints":"SHA256"}]}}},` + oneServer(handler) + `}}`
}

// TestLoadBearer checks mistakes that appear only with the realm, a placeholder or a
// file, or that only JSON can contain.
func TestLoadBearer(t *testing.T) {
	bearer := func(members string) string {
		return withBearer(`{"handler":"mtls_bearer","realm":"partners",` + members + `}`)
	}
	trusted := func(members string) string {
		return bearer(`"trust_issuers":[{"issuer":"https://login.example.net","audience":["a"],"id_prefix":"l/"` + members + `}]`)
	}
	checkLoadErrors(t, loadJSON, bearer, []loadTest{
		{"unknown member", `"allow":["a"]`, []string{`unknown field "allow"`}},
		{"empty list of scopes", `"require_scope":[]`, []string{"mtls_bearer: require_scope is an empty list; name a scope or leave it out"}},
		{"required scope with a space", `"require_scope":["a b"]`, []string{`mtls_bearer: require_scope: scope "a b" holds ' '`}},
		{"empty list of audiences", `"audience":[]`, []string{"mtls_bearer: audience is an empty list; name this API or leave it out"}},
		{"unset audience", `"audience":["{env.MTLS_TEST_UNSET}"]`, []string{"mtls_bearer: audience '{env.MTLS_TEST_UNSET}': ", "set it, or write the value itself"}},
		{"header name with a space", `"header_up":{"X Y":"a"}`, []string{`mtls_bearer: header_up: "X Y" is not a header name; use letters, digits and hyphens`}},
		{"kept default header", `"keep_header":["x_client_id"]`, []string{"mtls_bearer: keep_header: header 'X-Client-ID' is set by this directive"}},
		{"null issuer", `"trust_issuers":[null]`, []string{"mtls_bearer: trust_issuer is null; name an issuer or remove it"}},
		{"issuer without a name", `"trust_issuers":[{"audience":["a"]}]`, []string{"mtls_bearer: trust_issuer '': the issuer is empty; name its https URL"}},
		{"issuer without an audience", `"trust_issuers":[{"issuer":"https://login.example.net"}]`, []string{"trust_issuer 'https://login.example.net': it has no audience; add the name that its tokens have for this API"}},
		{"issuer without a prefix", `"trust_issuers":[{"issuer":"https://login.example.net","audience":["a"]}]`, []string{"trust_issuer 'https://login.example.net': with another issuer or a realm, its client 'a' could be mistaken for another client 'a'; add id_prefix"}},
		{"issuer of the realm", `"trust_issuers":[{"issuer":"https://auth.example.com","audience":["a"],"id_prefix":"x/"}]`, []string{"trust_issuer 'https://auth.example.com': it is the realm's own issuer, or declared twice; remove one"}},
		{"issuer over http", `"trust_issuers":[{"issuer":"http://login.example.net","audience":["a"],"id_prefix":"x/"}]`, []string{"trust_issuer 'http://login.example.net': ", "not an https URL"}},
		{"unset issuer", `"trust_issuers":[{"issuer":"{env.MTLS_TEST_UNSET}","audience":["a"],"id_prefix":"x/"}]`, []string{"trust_issuer '{env.MTLS_TEST_UNSET}': ", "set it, or write the value itself"}},
	})
	checkLoadErrors(t, loadJSON, trusted, []loadTest{
		{"unknown member of an issuer", `,"secret":"x"`, []string{`unknown field "secret"`}},
		{"jwks_uri over http", `,"jwks_uri":"http://login.example.net/keys"`, []string{"trust_issuer 'https://login.example.net': jwks_uri 'http://login.example.net/keys': ", "not an https URL"}},
		{"unset jwks_uri", `,"jwks_uri":"{env.MTLS_TEST_UNSET}"`, []string{"jwks_uri: ", "set it, or write the value itself"}},
		{"algorithm none", `,"algorithms":["none"]`, []string{"algorithms: signing algorithm 'none' is not supported"}},
		{"no algorithm", `,"algorithms":[]`, []string{"algorithms is an empty list; name one or leave it out"}},
		{"type", `,"type":"id"`, []string{"token type 'id' is not supported; use at+jwt or JWT"}},
		{"unknown trust pool", `,"trust_pool":{"provider":"nonsense"}`, []string{"trust_pool: ", "nonsense"}},
		{"missing trust pool", `,"trust_pool":{"provider":"file","pem_files":["/nonexistent/ca.pem"]}`, []string{"trust_pool: ", "/nonexistent/ca.pem"}},
		{"empty trust pool", `,"trust_pool":{"provider":"file","pem_files":["/dev/null"]}`, []string{"trust_issuer 'https://login.example.net': trust_pool: /dev/null is not a regular file"}},
	})
	checkLoadErrors(t, loadJSON, withBearer, []loadTest{
		{"unknown realm", `{"handler":"mtls_bearer","realm":"x"}`, []string{`mtls_bearer: unknown realm "x"; declared are: bare, partners, proxied, several`}},
		{"default realm that is not declared", `{"handler":"mtls_bearer"}`, []string{`mtls_bearer: unknown realm "default"`}},
		{"realm without an issuer", `{"handler":"mtls_bearer","realm":"bare"}`, []string{"mtls_bearer: realm 'bare' has no issuer, so it issues no tokens; add 'issuer <https-url>' to it, or trust_issuer here"}},
		{"audience of a realm without an issuer", `{"handler":"mtls_bearer","realm":"bare","audience":["b"],"trust_issuers":[{"issuer":"https://login.example.net","audience":["a"],"id_prefix":"l/"}]}`, []string{"mtls_bearer: audience applies to the tokens of realm 'bare', which has no issuer; move it into trust_issuer"}},
		{"audience of no realm", `{"handler":"mtls_bearer","audience":["b"],"trust_issuers":[{"issuer":"https://login.example.net","audience":["a"]}]}`, []string{"mtls_bearer: audience applies to a realm's tokens, but no realm is named; move it into trust_issuer, or name the realm"}},
		{"one API of several", `{"handler":"mtls_bearer","realm":"several"}`, []string{"mtls_bearer: the issuer of realm 'several' has resources, so its tokens are for several APIs; name this one with 'audience'"}},
		{"kept header of the proxies", `{"handler":"mtls_bearer","realm":"proxied","keep_header":["X-SSL-*"]}`, []string{"mtls_bearer: keep_header: the realm takes certificates from header 'X-Ssl-Client-Cert', so it cannot be kept; remove one of the two"}},
	})
}

// TestLoadBearerAlone checks that tokens of other servers need no realm, that
// accepting unbound tokens causes a warning, and that validating a configuration
// fetches nothing.
func TestLoadBearerAlone(t *testing.T) {
	alone := func(members string) loaded {
		return loadJSON(t, `{"apps":{`+oneServer(`{"handler":"mtls_bearer","trust_issuers":[{"issuer":"https://login.example.net","audience":["a"]`+members+`}]}`)+`}}`)
	}
	if got := alone(""); got.err != nil || len(got.warnings()) != 1 {
		t.Errorf("%v, warnings %q", got.err, got.warnings())
	}
	if got := alone(`,"allow_unbound":true`); got.err != nil || len(got.warnings()) != 1 || got.warnings()[0] != "allow_unbound admits tokens that are not bound to a certificate" {
		t.Errorf("%v, warnings %q", got.err, got.warnings())
	}
	// a realm without an issuer is useful for its proxies and its deny file
	if got := loadJSON(t, fillLoadTest("", withBearer(`{"handler":"mtls_bearer","realm":"bare","trust_issuers":[{"issuer":"https://login.example.net","audience":["a"],"id_prefix":"l/"}]}`))); got.err != nil {
		t.Error(got.err)
	}
}
