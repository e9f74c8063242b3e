package mtlsauth

import (
	"strings"
	"testing"
)

// fillKeys puts the folder of keyFiles into a text.
func fillKeys(dir, text string) string { return strings.ReplaceAll(text, "KEYS", dir) }

// withHandler is a configuration of a realm and a server with one handler.
func withHandler(handler string) string {
	return `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a","x509_thumbprints":"SHA256"}]}}},` + oneServer(handler) + `}}`
}

func oneServer(handler string) string {
	return `"http":{"servers":{"api":{"listen":["127.0.0.1:0"],"automatic_https":{"disable":true},"routes":[{"handle":[` + handler + `]}]}}}`
}

// TestLoadHandler: mistakes in a directive that only JSON can bring in, for the
// adapter has caught those of a Caddyfile.
func TestLoadHandler(t *testing.T) {
	auth := func(members string) string {
		return withHandler(`{"handler":"mtls_auth","realm":"partners",` + members + `}`)
	}
	checkLoadErrors(t, loadJSON, auth, []loadTest{
		{"unknown member", `"deny":["a"]`, []string{`unknown field "deny"`}},
		{"setting not built yet", `"forward_token":{}`, []string{`unknown field "forward_token"`}},
		{"header name with a space", `"header_up":{"X Y":"a"}`, []string{`mtls_auth: header_up: "X Y" is no header name; use letters, digits and hyphens`}},
		{"header name with a line end", `"header_up":{"X\r\nY":"a"}`, []string{`mtls_auth: header_up: "X\r\nY" is no header name`}},
		{"empty header name", `"header_up":{"":"a"}`, []string{"mtls_auth: header_up: the header name is empty"}},
		{"long header name", `"header_up":{"` + strings.Repeat("X", 129) + `":"a"}`, []string{"mtls_auth: header_up: header name", "is longer than 128 characters"}},
		{"header of the connection", `"header_up":{"Transfer_Encoding":"a"}`, []string{"mtls_auth: header_up: header 'Transfer_Encoding' belongs to the connection; choose another name"}},
		{"header without a value", `"header_up":{"X-Client":""}`, []string{"mtls_auth: header_up X-Client has no value; remove it or name a placeholder such as {http.mtls.client_id}"}},
		{"header in two cases", `"header_up":{"X-Client":"a","x-client":"b"}`, []string{"mtls_auth: header_up sets '", "which are one name to many servers; keep one"}},
		{"header with underscores", `"header_up":{"X-Client":"a","X_Client":"b"}`, []string{"mtls_auth: header_up sets '", "which are one name to many servers; keep one"}},
		{"kept name with a space", `"keep_header":["X Y"]`, []string{`mtls_auth: keep_header: "X Y" is no header name; use letters, digits and hyphens`}},
		{"everything kept", `"keep_header":["*"]`, []string{"mtls_auth: keep_header: the header name is empty"}},
		{"kept default header", `"keep_header":["x_client_id"]`, []string{"mtls_auth: keep_header: header 'X-Client-ID' is set for the API behind, so what the caller sends in it cannot be kept; remove one of the two"}},
		{"kept own header by prefix", `"header_up":{"X-Tenant":"a"},"keep_header":["Client-Cert","X-Te*"]`, []string{"mtls_auth: keep_header: header 'X-Tenant' is set for the API behind"}},
		{"allow with a space", `"allow":["a b"]`, []string{`mtls_auth: allow 'a b': client_id "a b" holds ' '; use letters, digits and`}},
		{"empty list of clients", `"allow":[]`, []string{"mtls_auth: allow is an empty list; name a client, or leave it out"}},
		{"empty list of scopes", `"require_scope":[]`, []string{"mtls_auth: require_scope is an empty list; name a scope or leave it out"}},
		{"empty allow", `"allow":[""]`, []string{"mtls_auth: allow '': client_id is empty; name the client"}},
		{"required scope with a space", `"require_scope":["a b"]`, []string{`mtls_auth: require_scope: scope "a b" holds ' '; use printable ASCII without spaces`}},
		{"empty required scope", `"require_scope":[""]`, []string{"mtls_auth: require_scope: a scope is empty; remove it or set the variable it comes from"}},
	})
	checkLoadErrors(t, loadJSON, withHandler, []loadTest{
		{"unknown realm", `{"handler":"mtls_auth","realm":"x"}`, []string{"mtls_auth: unknown realm 'x'; declared are: partners"}},
		{"default realm that is not declared", `{"handler":"mtls_auth"}`, []string{"mtls_auth: unknown realm 'default'; declared are: partners"}},
		{"realm in another case", `{"handler":"mtls_auth","realm":"Partners"}`, []string{"mtls_auth: unknown realm 'Partners'; declared are: partners"}},
		{"issuer of an unknown realm", `{"handler":"mtls_issuer","realm":"x"}`, []string{"mtls_issuer: unknown realm 'x'; declared are: partners"}},
		{"issuer of a realm without one", `{"handler":"mtls_issuer","realm":"partners"}`, []string{"mtls_issuer: realm 'partners' has no issuer; add 'issuer <https-url>' to it"}},
		{"unknown member of the issuer", `{"handler":"mtls_issuer","realm":"partners","issuer":"https://a.example"}`, []string{`unknown field "issuer"`}},
	})
}

// TestLoadWithoutApp: a directive alone admits nobody, and says why.
func TestLoadWithoutApp(t *testing.T) {
	alone := func(handler string) string { return `{"apps":{` + oneServer(handler) + `}}` }
	checkLoadErrors(t, loadJSON, alone, []loadTest{
		{"mtls_auth", `{"handler":"mtls_auth"}`, []string{"mtls_auth: no realm is declared; add 'mtls { … }' to the global options"}},
		{"mtls_issuer", `{"handler":"mtls_issuer","realm":"a"}`, []string{"mtls_issuer: no realm is declared; add 'mtls { … }' to the global options"}},
	})
	// the reason is the app's, not that it is missing
	broken := func(handler string) string {
		return `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a"}]}}},` + oneServer(handler) + `}}`
	}
	checkLoadErrors(t, loadJSON, broken, []loadTest{
		{"app that does not load", `{"handler":"mtls_auth","realm":"partners"}`, []string{"realm 'partners': client 'a': no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks"}},
	})
}
