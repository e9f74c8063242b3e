package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// fillKeys replaces KEYS in the text with the folder of [keyFiles].
func fillKeys(dir, text string) string { return strings.ReplaceAll(text, "KEYS", dir) }

// withHandler returns a configuration with a realm and a server with one handler.
func withHandler(handler string) string {
	return `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a","x509_thumbprints":"SHA256"}]}}},` + oneServer(handler) + `}}`
}

// oneServer returns the http app with one server and these handlers.
func oneServer(handler string) string {
	return `"http":{"servers":{"api":{"listen":["127.0.0.1:0"],"automatic_https":{"disable":true},"routes":[{"handle":[` + handler + `]}]}}}`
}

// TestLoadHandler checks mistakes in a directive that only JSON can contain.
func TestLoadHandler(t *testing.T) {
	auth := func(members string) string {
		return withHandler(`{"handler":"mtls_auth","realm":"partners",` + members + `}`)
	}
	checkLoadErrors(t, loadJSON, auth, []loadTest{
		{"unknown member", `"deny":["a"]`, []string{`unknown field "deny"`}},
		{"header name with a space", `"header_up":{"X Y":"a"}`, []string{`mtls_auth: header_up: "X Y" is not a header name; use letters, digits and hyphens`}},
		{"header name with a line end", `"header_up":{"X\r\nY":"a"}`, []string{`mtls_auth: header_up: "X\r\nY" is not a header name`}},
		{"empty header name", `"header_up":{"":"a"}`, []string{"mtls_auth: header_up: the header name is empty"}},
		{"long header name", `"header_up":{"` + strings.Repeat("X", 129) + `":"a"}`, []string{"mtls_auth: header_up: header name", "is longer than 128 characters"}},
		{"header of the connection", `"header_up":{"Transfer_Encoding":"a"}`, []string{"mtls_auth: header_up: header 'Transfer_Encoding' belongs to the connection; choose another name"}},
		{"header without a value", `"header_up":{"X-Client":""}`, []string{"mtls_auth: header_up X-Client has no value; remove it or name a placeholder such as {http.mtls.client_id}"}},
		{"header in two cases", `"header_up":{"X-Client":"a","x-client":"b"}`, []string{"mtls_auth: header_up sets '", "which many servers treat as one header; keep one"}},
		{"header with underscores", `"header_up":{"X-Client":"a","X_Client":"b"}`, []string{"mtls_auth: header_up sets '", "which many servers treat as one header; keep one"}},
		{"kept name with a space", `"keep_header":["X Y"]`, []string{`mtls_auth: keep_header: "X Y" is not a header name; use letters, digits and hyphens`}},
		{"everything kept", `"keep_header":["*"]`, []string{"mtls_auth: keep_header: the header name is empty"}},
		{"kept default header", `"keep_header":["x_client_id"]`, []string{"mtls_auth: keep_header: header 'X-Client-ID' is set by this directive by default, so the caller's value cannot be kept; remove it here, or set another header with header_up"}},
		{"kept own header by prefix", `"header_up":{"X-Tenant":"a"},"keep_header":["Client-Cert","X-Te*"]`, []string{"mtls_auth: keep_header: header 'X-Tenant' is set by this directive"}},
		{"allow with a space", `"allow":["a b"]`, []string{`mtls_auth: allow 'a b': client_id "a b" contains ' '; use letters, digits and`}},
		{"empty list of clients", `"allow":[]`, []string{"mtls_auth: allow is an empty list; name a client, or leave it out"}},
		{"empty list of scopes", `"require_scope":[]`, []string{"mtls_auth: require_scope is an empty list; name a scope or leave it out"}},
		{"empty allow", `"allow":[""]`, []string{"mtls_auth: allow '': client_id is empty; name the client"}},
		{"required scope with a space", `"require_scope":["a b"]`, []string{`mtls_auth: require_scope: scope "a b" holds ' '; use printable ASCII without spaces`}},
		{"empty required scope", `"require_scope":[""]`, []string{"mtls_auth: require_scope: a scope is empty; remove it or set the variable it comes from"}},
	})
	checkLoadErrors(t, loadJSON, withHandler, []loadTest{
		{"unknown placeholder", `{"handler":"mtls_auth","realm":"partners","header_up":{"X-A":"{http.mtls.id}"}}`, []string{`mtls_auth: header_up X-A: unknown placeholder '{http.mtls.id}'; did you mean 'client_id'?`}},
		{"comma in allow", `{"handler":"mtls_auth","realm":"partners","allow":["a,"]}`, []string{`mtls_auth: allow 'a,': client_id 'a,' ends with a comma; remove it`}},
		{"unknown realm", `{"handler":"mtls_auth","realm":"x"}`, []string{`mtls_auth: unknown realm "x"; declared are: partners`}},
		{"default realm that is not declared", `{"handler":"mtls_auth"}`, []string{`mtls_auth: unknown realm "default"; declared are: partners`}},
		{"realm in another case", `{"handler":"mtls_auth","realm":"Partners"}`, []string{`mtls_auth: unknown realm "Partners"; declared are: partners`}},
		{"issuer of an unknown realm", `{"handler":"mtls_issuer","realm":"x"}`, []string{`mtls_issuer: unknown realm "x"; declared are: partners`}},
		{"issuer of a realm without one", `{"handler":"mtls_issuer","realm":"partners"}`, []string{"mtls_issuer: realm 'partners' has no issuer; add 'issuer <https-url>' to it"}},
		{"unknown member of the status page", `{"handler":"mtls_status","realm":"partners"}`, []string{`unknown field "realm"`}},
		{"unknown member of the issuer", `{"handler":"mtls_issuer","realm":"partners","issuer":"https://a.example"}`, []string{`unknown field "issuer"`}},
	})
}

// TestLoadForward checks mistakes in forward_certificate and forward_token.
func TestLoadForward(t *testing.T) {
	key := testtool.WriteTemp(t, t.TempDir(), "key.pem", testpki.KeyPEM(t, testpki.MustKey(t, testpki.P256)))
	t.Setenv("MTLS_TEST_AUDIENCE", "urn:resource")
	issued := func(members string) string {
		return `{"apps":{"mtls":{"realms":{"other":{"issuer":{"url":"https://other.example"}},"partners":{"clients":[{"client_id":"a","x509_thumbprints":"SHA256"}],"issuer":{"url":"https://auth.example","audience":["urn:api"],"signing_key":"` +
			filepath.ToSlash(key) + `","resources":[{"name":"urn:resource","scopes":["x"]}]}}}},` + oneServer(`{"handler":"mtls_auth","realm":"partners",`+members+`}`) + `}}`
	}
	token := func(members string) string { return issued(`"forward_token":{` + members + `}`) }
	const mistaken = "so its access tokens and gateway tokens could be mistaken for each other; choose another audience"
	checkLoadErrors(t, loadJSON, token, []loadTest{
		{"no audience", ``, []string{"mtls_auth: forward_token: it has no audience; add one that nothing else uses"}},
		{"unknown member", `"audience":"urn:b","aud":"x"`, []string{`unknown field "aud"`}},
		{"audience of the realm's issuer", `"audience":"https://auth.example"`, []string{"mtls_auth: forward_token: audience 'https://auth.example' is also the issuer of realm 'partners', " + mistaken}},
		{"audience of another issuer", `"audience":"https://other.example"`, []string{"mtls_auth: forward_token: audience 'https://other.example' is also the issuer of realm 'other', " + mistaken}},
		{"audience of access tokens", `"audience":"urn:api"`, []string{"mtls_auth: forward_token: audience 'urn:api' is also an audience of the issuer of realm 'partners', " + mistaken}},
		{"resource", `"audience":"urn:resource"`, []string{"mtls_auth: forward_token: audience 'urn:resource' is also a resource of realm 'partners', " + mistaken}},
		{"resource by placeholder", `"audience":"{env.MTLS_TEST_AUDIENCE}"`, []string{"mtls_auth: forward_token: audience 'urn:resource' is also a resource of realm 'partners', " + mistaken}},
		{"unset variable", `"audience":"{env.MTLS_TEST_UNSET}"`, []string{"mtls_auth: forward_token: audience '{env.MTLS_TEST_UNSET}': evaluated placeholder {env.MTLS_TEST_UNSET} is empty; set it, or write the value itself"}},
		{"long lifetime", `"audience":"urn:b","lifetime":"6m"`, []string{"mtls_auth: forward_token: lifetime 6m0s is too short or too long; use 1s to 5m0s"}},
		{"short lifetime", `"audience":"urn:b","lifetime":"10ms"`, []string{"mtls_auth: forward_token: lifetime 10ms is too short or too long; use 1s to 5m0s"}},
		{"empty list of scopes", `"audience":"urn:b","scopes":[]`, []string{"mtls_auth: forward_token: scopes is an empty list; name a scope or leave it out"}},
		{"bad scope", `"audience":"urn:b","scopes":["a b"]`, []string{`mtls_auth: forward_token: scopes: scope "a b" holds ' '; use printable ASCII without spaces`}},
		{"bad header", `"audience":"urn:b","header":"X Y"`, []string{`mtls_auth: forward_token: "X Y" is not a header name; use letters, digits and hyphens`}},
		{"header that proxies drop", `"audience":"urn:b","header":"Proxy-Authorization"`, []string{"mtls_auth: forward_token: header 'Proxy-Authorization' belongs to the connection; choose another name"}},
		{"header that is set by default", `"audience":"urn:b","header":"x_client_id"`, []string{"mtls_auth: header 'X_client_id' of forward_certificate or forward_token is already set as 'X-Client-ID'; choose another name for one of the two"}},
	})
	checkLoadErrors(t, loadJSON, issued, []loadTest{
		{"header_up beside the token", `"forward_token":{"audience":"urn:b"},"header_up":{"authorization":"a"}`, []string{"mtls_auth: header 'Authorization' of forward_certificate or forward_token is already set as 'authorization'"}},
		{"header_up beside the certificate", `"forward_certificate":{},"header_up":{"Client-Cert":"a"}`, []string{"mtls_auth: header 'Client-Cert' of forward_certificate or forward_token is already set as 'Client-Cert'"}},
		{"header_up beside the chain", `"forward_certificate":{},"header_up":{"client_cert_chain":"a"}`, []string{"mtls_auth: header 'Client-Cert-Chain' of forward_certificate or forward_token is already set as 'client_cert_chain'"}},
		{"token and certificate in one header", `"forward_certificate":{},"forward_token":{"audience":"urn:b","header":"client-cert"}`, []string{"mtls_auth: header 'Client-Cert' of forward_certificate or forward_token is already set as 'Client-Cert'"}},
		{"kept token", `"forward_token":{"audience":"urn:b"},"keep_header":["Auth*"]`, []string{"mtls_auth: keep_header: header 'Authorization' is set by this directive"}},
		{"kept token of another header", `"forward_token":{"audience":"urn:b","header":"X-Token"},"keep_header":["x_token"]`, []string{"mtls_auth: keep_header: header 'X-Token' is set by this directive"}},
		{"two formats of one header", `"forward_certificate":{"formats":["nginx","rfc9440","haproxy"]}`, []string{"mtls_auth: forward_certificate: formats nginx and haproxy have the same header 'X-SSL-Client-Cert'; keep one"}},
		{"a format twice", `"forward_certificate":{"formats":["envoy","envoy"]}`, []string{"mtls_auth: forward_certificate: duplicate format 'envoy'; keep one"}},
		{"header of several formats", `"forward_certificate":{"formats":["nginx","envoy"],"header":"X-A"}`, []string{"mtls_auth: forward_certificate: header 'X-A' cannot have 2 formats; keep one format, or remove the header"}},
		{"no format", `"forward_certificate":{"formats":[]}`, []string{"mtls_auth: forward_certificate: formats is an empty list; name a format, or leave it out for rfc9440"}},
		{"unknown format", `"forward_certificate":{"formats":["Nginx"]}`, []string{`mtls_auth: forward_certificate: unknown format "Nginx" of a forwarded certificate; use one of rfc9440, nginx, haproxy, envoy, aws_alb, traefik`}},
		{"what it was", `"forward_certificate":true`, []string{"cannot unmarshal bool into Go struct field Handler.forward_certificate"}},
		{"unknown member of the certificate", `"forward_certificate":{"format":"nginx"}`, []string{`unknown field "format"`}},
		{"bad header of the certificate", `"forward_certificate":{"header":"X Y"}`, []string{`mtls_auth: forward_certificate: "X Y" is not a header name; use letters, digits and hyphens`}},
		{"certificate in the header of the chain", `"forward_certificate":{"header":"client_cert_chain"}`, []string{"mtls_auth: forward_certificate: header 'client_cert_chain' has the chain; name another one for the client's certificate"}},
		{"certificate in the header of the client id", `"forward_certificate":{"header":"X_Client_ID"}`, []string{"mtls_auth: header 'X_client_id' of forward_certificate or forward_token is already set as 'X-Client-ID'"}},
		{"header_up beside another format", `"forward_certificate":{"formats":["nginx"]},"header_up":{"x_ssl_client_cert":"a"}`, []string{"mtls_auth: header 'X-Ssl-Client-Cert' of forward_certificate or forward_token is already set as 'x_ssl_client_cert'"}},
		{"kept certificate of another format", `"forward_certificate":{"formats":["haproxy"],"header":"X-ARR-ClientCert"},"keep_header":["x-arr-*"]`, []string{"mtls_auth: keep_header: header 'X-Arr-Clientcert' is set by this directive"}},
		{"kept certificate", `"forward_certificate":{},"keep_header":["Client-Cert*"]`, []string{"mtls_auth: keep_header: header 'Client-Cert' is set by this directive"}},
	})
	checkLoadErrors(t, loadJSON, withHandler, []loadTest{
		{"no issuer", `{"handler":"mtls_auth","realm":"partners","forward_token":{"audience":"urn:b"}}`, []string{"mtls_auth: forward_token: realm 'partners' has no issuer to sign it; add 'issuer <https-url>' to the realm"}},
	})
	// several directives may have the same upstream
	twice := issued(`"forward_certificate":{},"forward_token":{"audience":"urn:b"}},{"handler":"mtls_auth","realm":"partners","forward_token":{"audience":"urn:b","header":"X-Token"}`)
	if result := loadJSON(t, fillLoadTest("", twice)); result.err != nil {
		t.Error(result.err)
	}
}

// TestLoadWithoutApp checks the errors of a directive whose realm does not exist.
func TestLoadWithoutApp(t *testing.T) {
	alone := func(handler string) string { return `{"apps":{` + oneServer(handler) + `}}` }
	checkLoadErrors(t, loadJSON, alone, []loadTest{
		{"mtls_auth", `{"handler":"mtls_auth"}`, []string{"mtls_auth: no realm is declared; add 'mtls { … }' to the global options"}},
		{"mtls_status", `{"handler":"mtls_status"}`, []string{"mtls_status: no realm is declared; add 'mtls { … }' to the global options"}},
		{"mtls_issuer", `{"handler":"mtls_issuer","realm":"a"}`, []string{"mtls_issuer: no realm is declared; add 'mtls { … }' to the global options"}},
	})
	// the app's own error is reported, not that the app is missing
	broken := func(handler string) string {
		return `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a"}]}}},` + oneServer(handler) + `}}`
	}
	checkLoadErrors(t, loadJSON, broken, []loadTest{
		{"app that does not load", `{"handler":"mtls_auth","realm":"partners"}`, []string{"realm 'partners': client 'a': no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks"}},
	})
}
