package config_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

const allPlaceholders = "use one of claim.<name>, client_id, credential, error, fingerprint_sha1, fingerprint_sha256, issuer, issuer_legacy, matched, not_after, not_before, realm, scope, serial, subject, subject_legacy, thumbprint"

func TestBadHandler(t *testing.T) {
	checkBadBlocks(t, "{\n\tadmin off\n}\n\n:443 {\nBLOCK\n}\n", []badBlock{
		{"mtls_auth", 1, "no realm is declared; add 'mtls { … }' to the global options"},
		{"mtls_status", 1, "no realm is declared; add 'mtls { … }' to the global options"},
	})
	checkBadBlocks(t, aroundBareSite, []badBlock{
		{"mtls_issuer {\nrealm default\n}", 3, "realm 'default' has no issuer; add 'issuer <https-url>' to it"},
		{"mtls_bearer", 1, "realm 'default' has no issuer, so it issues no tokens; add 'issuer <https-url>' to it, or trust_issuer here"},
	})
	checkBadBlocks(t, aroundSite, []badBlock{
		{"mtls_auth partners", 1, "mtls_auth: unexpected 'partners'; name a realm in the block, as in 'mtls_auth { realm partners }'"},
		{"mtls_issuer https://auth.example.com", 1, "mtls_issuer: unexpected 'https://auth.example.com'; it takes a matcher, such as /path or @name, and a block"},
		{"mtls_status partners", 1, "mtls_status: unexpected 'partners'; it takes a matcher, such as /path or @name, and nothing else"},
		{"mtls_status /status page", 1, "mtls_status: unexpected 'page'; it takes a matcher, such as /path or @name, and nothing else"},
		{"mtls_status {\nrealm partners\n}", 2, "mtls_status: unexpected 'realm'; it shows all realms and has no subdirectives"},
	})
	checkBadBlocks(t, aroundHandler, []badBlock{
		{"realm", 1, missing("realm <name>")},
		{"realm Default", 1, `realm: realm name "Default" contains 'D'; use a-z, 0-9 and hyphens`},
		{"realm {env.REALM}", 2, `unknown realm "{env.REALM}"; declared are: default`},
		{"realm partners", 2, `unknown realm "partners"; declared are: default`},
		{`realm "{$MTLS_TEST_UNSET}"`, 1, "realm is empty; give it a value or remove the line"},
		{"realm default\nrealm default", 2, "duplicate option 'realm'; keep one"},
		{"allow", 1, missing("allow <client_id>...")},
		{`allow "{$MTLS_TEST_UNSET}"`, 1, "allow is empty; give it a value or remove it"},
		{"allow a\nallow a", 2, "duplicate allow 'a'; keep one"},
		{`allow "a b"`, 1, `allow: client_id "a b" contains ' '; use letters, digits and ._~:@/+-,`},
		{"allow {env.CLIENT}", 2, `client_id "{env.CLIENT}" contains '{'; use letters, digits and ._~:@/+-,`},
		{"require_scope", 1, missing("require_scope <scope>...")},
		{"require_scope a a", 1, "duplicate require_scope 'a'; keep one"},
		{`require_scope "api1 api2"`, 1, "use printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)"},
		{"require_scope {env.SCOPE}", 1, "scope '{env.SCOPE}': placeholders are not expanded in scopes; write {$NAME} for an environment variable"},
		{"optional\noptional", 2, "duplicate option 'optional'; keep one"},
		{"optional true", 1, surplus("optional", "true")},
		{"report_only\nreport_only", 2, "duplicate option 'report_only'; keep one"},
		{"report_only on", 1, surplus("report_only", "on")},
		{"header_up X-Client", 1, missing("header_up <name> <value>", "X-Client")},
		{"header_up X-Client a b", 1, surplus("header_up <name> <value>", "b")},
		{`header_up "X Client" a`, 1, `"X Client" is not a header name; use letters, digits and hyphens`},
		{"header_up Connection a", 1, "header 'Connection' belongs to the connection; choose another name"},
		{`header_up X-Client "{$MTLS_TEST_UNSET}"`, 1, "header_up X-Client has no value; remove the line or name a placeholder such as {http.mtls.client_id}"},
		{"header_up X-Client a\nheader_up x-client b", 2, "duplicate header_up 'x-client'; keep one"},
		{"header_up X-Client a\nheader_up X_Client b", 3, "which many servers treat as one header; keep one"},
		{"allow a, b", 1, "allow 'a,' ends with a comma; separate values by spaces alone"},
		{"allow a,b c,", 1, "allow 'c,' ends with a comma; separate values by spaces alone"},
		{"require_scope read, write", 1, "require_scope 'read,' ends with a comma; separate values by spaces alone"},
		{"header_up +X-A {http.mtls.client_id}", 1, "header_up +X-A: it always replaces the caller's header; write header_up X-A"},
		{"header_up X-A {http.mtls.clientid}", 1, "header_up X-A: unknown placeholder '{http.mtls.clientid}'; did you mean 'client_id'?"},
		{"header_up X-A {http.mtls.issuer_dn}", 1, "unknown placeholder '{http.mtls.issuer_dn}'; did you mean 'issuer'?"},
		{"header_up X-A {http.mtls.fingerprint_sha265}", 1, "unknown placeholder '{http.mtls.fingerprint_sha265}'; did you mean 'fingerprint_sha256'?"},
		{"header_up X-A {http.mtls.serial", 1, "'{http.mtls.serial' is a placeholder that lacks a brace; write {http.mtls.serial}"},
		{"header_up X-A {http.mtls.nonsense}", 1, "unknown placeholder '{http.mtls.nonsense}'; " + allPlaceholders},
		{"header_up X-A {http.mtls.claim}", 1, "unknown placeholder '{http.mtls.claim}'; " + allPlaceholders},
		{`header_up X-A "{http.mtls.claim.ten ant}"`, 1, "unknown placeholder '{http.mtls.claim.ten ant}'; " + allPlaceholders},
		{"header_up X-A {http.mtls.}", 1, "unknown placeholder '{http.mtls.}'; " + allPlaceholders},
		{"header_up X-A id={mtls.client_id}", 1, "header_up X-A: unknown placeholder '{mtls.client_id}'; write {http.mtls.client_id}"},
		{"header_up X-A {HTTP.mtls.client_id}", 1, "unknown placeholder '{HTTP.mtls.client_id}'; write {http.mtls.client_id}"},
		{"header_up X-A http.mtls.client_id", 1, "header_up X-A: 'http.mtls.client_id' is a placeholder that lacks a brace; write {http.mtls.client_id}"},
		{`header_up X-A "{http.mtls.client_id} http.mtls.claim.tenant"`, 1, "'http.mtls.claim.tenant' is a placeholder that lacks a brace; write {http.mtls.claim.tenant}"},
		{`header_up X-A "{http.mtls.client_id"`, 1, "'{http.mtls.client_id' is a placeholder that lacks a brace; write {http.mtls.client_id}"},
		{"keep_header", 1, missing("keep_header <name>...")},
		{`keep_header "X Y"`, 1, `"X Y" is not a header name; use letters, digits and hyphens`},
		{"keep_header *", 1, "the header name is empty"},
		{"keep_header X-Client-*", 2, "header 'X-Client-ID' is set by this directive by default, so the caller's value cannot be kept; remove it here, or set another header with header_up"},
		{"keep_header Client-Cert Client-Cert", 1, "duplicate keep_header 'Client-Cert'; keep one"},
		{"optional {\nx\n}", 1, "optional: it takes no block; remove the braces and write 'optional'"},
		{"forward_certificate on", 1, `forward_certificate: unknown format "on" of a forwarded certificate; use one of rfc9440, nginx, haproxy, envoy, aws_alb, traefik`},
		{"forward_certificate nginx apache", 1, `unknown format "apache" of a forwarded certificate; use nginx with the function escape in Apache's RequestHeader`},
		{"forward_certificate AspNetCore", 1, `unknown format "AspNetCore" of a forwarded certificate; use haproxy with header X-Client-Cert`},
		{"forward_certificate\nforward_certificate", 2, "duplicate option 'forward_certificate'; name all formats in one line"},
		{"forward_certificate nginx, envoy", 1, "forward_certificate 'nginx,' ends with a comma; separate values by spaces alone"},
		{"forward_certificate {$MTLS_TEST_UNSET}\nforward_certificate \"{$MTLS_TEST_UNSET}\"", 2, "duplicate option 'forward_certificate'; name all formats in one line"},
		{"forward_certificate \"{$MTLS_TEST_UNSET}\"", 1, "forward_certificate is empty; give it a value or remove it"},
		{"forward_certificate {env.MTLS_TEST_FORMAT}", 1, `forward_certificate: unknown format "{env.MTLS_TEST_FORMAT}" of a forwarded certificate; use one of rfc9440, nginx, haproxy, envoy, aws_alb, traefik`},
		{"forward_certificate nginx nginx", 1, "duplicate forward_certificate 'nginx'; keep one"},
		{"optional\nforward_certificate envoy nginx haproxy", 2, "forward_certificate: formats nginx and haproxy have the same header 'X-SSL-Client-Cert'; keep one"},
		{"forward_certificate nginx envoy {\nheader X-A\n}", 3, "forward_certificate: header 'X-A' cannot have 2 formats; keep one format, or remove the header"},
		{"forward_certificate {\nheader Client-Cert-Chain\n}", 3, "forward_certificate: header 'Client-Cert-Chain' has the chain; name another one for the client's certificate"},
		{"forward_certificate nginx {\nheader\n}", 2, missing("header <name>")},
		{"forward_certificate nginx {\nheader X-A X-B\n}", 2, surplus("header <name>", "X-B")},
		{"forward_certificate nginx {\nheader X-A\nheader X-B\n}", 3, "duplicate option 'header'; keep one"},
		{"forward_certificate nginx {\nheader \"X A\"\n}", 2, `"X A" is not a header name; use letters, digits and hyphens`},
		{"forward_certificate nginx {\nheader X-Forwarded-For\n}", 2, "header: reverse_proxy overwrites header 'X-Forwarded-For'; choose another name"},
		{"forward_certificate nginx {\nfrom 10.0.0.1\n}", 2, "unrecognized forward_certificate option 'from'; it belongs in forwarded_certificate"},
		{"forward_certificate nginx\nheader_up X_SSL_Client_Cert a", 3, "header 'X-Ssl-Client-Cert' of forward_certificate or forward_token is already set as 'X_SSL_Client_Cert'; choose another name for one of the two"},
		{"forward_certificate haproxy {\nheader X-Client-Cert\n}\nkeep_header x_client_cert", 5, "header 'X-Client-Cert' is set by this directive, so the caller's value cannot be kept; remove one of the two"},
		{"forward_certificate traefik {\nheader X-Token\n}\nforward_token x_token {\naudience a\n}", 7, "header 'X_token' of forward_certificate or forward_token is already set as 'X-Token'; choose another name for one of the two"},
		{"forward_certificate\nheader_up Client-Cert a", 3, "header 'Client-Cert' of forward_certificate or forward_token is already set as 'Client-Cert'; choose another name for one of the two"},
		{"forward_certificate\nheader_up client_cert {http.mtls.subject}", 3, "header 'Client-Cert' of forward_certificate or forward_token is already set as 'client_cert'; choose another name for one of the two"},
		{"forward_certificate\nkeep_header client-cert-chain", 3, "header 'Client-Cert-Chain' is set by this directive, so the caller's value cannot be kept; remove one of the two"},
		{"forward_token", 2, "forward_token: it has no audience; add one that nothing else uses"},
		{"forward_token X-Token Y", 1, surplus("forward_token [<header>] {", "Y")},
		{"forward_token \"{$MTLS_TEST_UNSET}\" {\naudience a\n}", 1, "forward_token: the header name is empty"},
		{"forward_token \"X Y\" {\naudience a\n}", 1, `forward_token: "X Y" is not a header name; use letters, digits and hyphens`},
		{"forward_token Proxy-Authorization {\naudience a\n}", 1, "forward_token: header 'Proxy-Authorization' belongs to the connection; choose another name"},
		{"forward_token {\naudience\n}", 2, missing("audience <aud>")},
		{"forward_token {\naudience a b\n}", 2, surplus("audience <aud>", "b")},
		{"forward_token {\naudience a\naudience b\n}", 3, "duplicate option 'audience'; keep one"},
		{"forward_token {\naudience \"{$MTLS_TEST_UNSET}\"\n}", 2, "audience is empty; give it a value or remove the line"},
		{"forward_token {\naudience a\nscopes\n}", 3, missing("scopes <scope>...")},
		{"forward_token {\naudience a\nscopes x x\n}", 3, "duplicate scopes 'x'; keep one"},
		{"forward_token {\naudience a\nscopes {env.SCOPE}\n}", 3, "scope '{env.SCOPE}': placeholders are not expanded in scopes; write {$NAME} for an environment variable"},
		{"forward_token {\naudience a\nlifetime 1h\n}", 3, "lifetime 1h0m0s is too short or too long; use 1s to 5m0s"},
		{"forward_token {\naudience a\nlifetime 0\n}", 3, "lifetime 0s is too short or too long; use 1s to 5m0s"},
		{"forward_token {\naudience a\nlifetime 1m\nlifetime 1m\n}", 4, "duplicate option 'lifetime'; keep one"},
		{"forward_token {\naudience a\nclaim b c\n}", 3, "unrecognized forward_token option 'claim'; it belongs in client"},
		{"forward_token {\naudience a\n}\nforward_token {\naudience a\n}", 4, "duplicate option 'forward_token'; a directive forwards one token"},
		{"forward_token {\naudience a\n}\nkeep_header Authorization", 5, "header 'Authorization' is set by this directive, so the caller's value cannot be kept; remove one of the two"},
		{"forward_token {\naudience a\n}", 4, "forward_token: realm 'default' has no issuer to sign it; add 'issuer <https-url>' to the realm"},
	})
	checkBadBlocks(t, aroundIssuerHandler, []badBlock{
		{"issuer a", 1, "unrecognized subdirective 'issuer'; it belongs in mtls"},
		{"realm", 1, missing("realm <name>")},
		{"realm default\nrealm default", 2, "duplicate option 'realm'; keep one"},
		{"realm other", 2, `unknown realm "other"; declared are: default`},
	})
}

func TestBadBearer(t *testing.T) {
	checkBadBlocks(t, aroundSite, []badBlock{
		{"mtls_bearer partners", 1, "mtls_bearer: unexpected 'partners'; name a realm in the block, as in 'mtls_bearer { realm partners }'"},
		{"mtls_bearer {\ntrust_issuer\n}", 2, missing("trust_issuer <https-url>")},
		{"mtls_bearer {\ntrust_issuer https://login.example.net {\naudience a\n}\naudience b\n}", 6, "audience applies to a realm's tokens, but no realm is named; move it into trust_issuer, or name the realm"},
		{"mtls_bearer {\ntrust_issuer http://login.example.net {\naudience a\n}\n}", 2, "trust_issuer 'http://login.example.net': not an https URL; use one like https://auth.example.com"},
		{"mtls_bearer {\ntrust_issuer https://login.example.net\n}", 3, "trust_issuer 'https://login.example.net': it has no audience; add the name that its tokens have for this API"},
		{"mtls_bearer {\nrealm default\ntrust_issuer https://login.example.net {\naudience a\n}\n}", 6, "trust_issuer 'https://login.example.net': with another issuer or a realm, its client 'a' could be mistaken for another client 'a'; add id_prefix"},
	})
	checkBadBlocks(t, aroundResources, []badBlock{
		{"mtls_bearer {\nrequire_scope read\n}", 3, "the issuer of realm 'default' has resources, so its tokens are for several APIs; name this one with 'audience'"},
	})
	checkBadBlocks(t, aroundBearer, []badBlock{
		{"realm", 1, missing("realm <name>")},
		{`realm "{$MTLS_TEST_UNSET}"`, 1, "realm is empty; give it a value or remove the line"},
		{"realm default\nrealm default", 2, "duplicate option 'realm'; keep one"},
		{"realm other", 2, `unknown realm "other"; declared are: default`},
		{"audience", 1, missing("audience <aud>...")},
		{`audience "{$MTLS_TEST_UNSET}"`, 1, "audience is empty; give it a value or remove it"},
		{"audience a\naudience a", 2, "duplicate audience 'a'; keep one"},
		{"require_scope", 1, missing("require_scope <scope>...")},
		{"require_scope a a", 1, "duplicate require_scope 'a'; keep one"},
		{"require_scope {env.SCOPE}", 1, "scope '{env.SCOPE}': placeholders are not expanded in scopes; write {$NAME} for an environment variable"},
		{"header_up X-Client", 1, missing("header_up <name> <value>", "X-Client")},
		{"header_up Connection a", 1, "header 'Connection' belongs to the connection; choose another name"},
		{"header_up X-Client a\nheader_up x-client b", 2, "duplicate header_up 'x-client'; keep one"},
		{"keep_header", 1, missing("keep_header <name>...")},
		{"keep_header *", 1, "the header name is empty"},
		{"keep_header X-Client-ID", 2, "header 'X-Client-ID' is set by this directive by default, so the caller's value cannot be kept; remove it here, or set another header with header_up"},
		{"trust_issuer https://a.example?x {\naudience a\n}", 1, "trust_issuer 'https://a.example?=…': the URL has a query or fragment; remove it (RFC 8414 §2)"},
		{`trust_issuer "{$MTLS_TEST_UNSET}"`, 1, "trust_issuer is empty; give it a value or remove the line"},
		{"trust_issuer https://a.example {\naudience a\nid_prefix a/\n}\ntrust_issuer https://a.example {\naudience a\nid_prefix b/\n}", 9, "trust_issuer 'https://a.example': it is declared twice; merge the two"},
		{"trust_issuer https://a.example {\naudience a\nid_prefix a\n}\ntrust_issuer https://b.example {\naudience a\nid_prefix ab\n}", 9, "id_prefix 'ab' and 'a' of trust_issuer 'https://a.example' overlap, so their clients could have the same name; choose others"},
	})
	checkBadBlocks(t, aroundTrusted, []badBlock{
		{"jwks_uri", 1, missing("jwks_uri <https-url>")},
		{"jwks_uri a", 1, "jwks_uri 'a': not an https URL; use one like https://auth.example.com/keys"},
		{"jwks_uri http://login.example.net/keys", 1, "jwks_uri 'http://login.example.net/keys': not an https URL; use one like https://auth.example.com/keys"},
		{`jwks_uri "{$MTLS_TEST_UNSET}"`, 1, "jwks_uri is empty; give it a value or remove the line"},
		{"jwks_uri https://a.example\njwks_uri https://a.example", 2, "duplicate option 'jwks_uri'; keep one"},
		{"audience a", 1, "duplicate audience 'a'; keep one"},
		{`audience "{$MTLS_TEST_UNSET}"`, 1, "audience is empty; give it a value or remove it"},
		{"id_prefix", 1, missing("id_prefix <text>")},
		{"id_prefix ä", 1, "id_prefix 'ä': use at most 200 letters, digits and ._~:@/+-, but no comma"},
		{"id_prefix a,b/", 1, "id_prefix 'a,b/': use at most 200 letters, digits and ._~:@/+-, but no comma"},
		{"id_prefix {env.PREFIX}", 3, "id_prefix '{env.PREFIX}': placeholders are not expanded in it; write {$NAME} for an environment variable"},
		{"id_prefix a\nid_prefix b", 2, "duplicate option 'id_prefix'; keep one"},
		{"algorithms", 1, missing("algorithms <alg>...")},
		{"algorithms HS256", 1, "algorithms: signing algorithm 'HS256' is not supported; use one of ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA"},
		{"algorithms none", 1, "signing algorithm 'none' is not supported; use one of ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA"},
		{"algorithms ES256 ES256", 1, "duplicate algorithms 'ES256'; keep one"},
		{"type at+jwt\ntype JWT", 2, "duplicate option 'type'; keep one"},
		{"type jwt", 1, "token type 'jwt' is not supported; use at+jwt or JWT"},
		{"type id_token", 1, "token type 'id_token' is not supported; use at+jwt or JWT"},
		{"id_claim a b", 1, surplus("id_claim <name>", "b")},
		{`id_claim "{$MTLS_TEST_UNSET}"`, 1, "id_claim is empty; give it a value or remove the line"},
		{"allow_unbound yes", 1, surplus("allow_unbound", "yes")},
		{"allow_unbound\nallow_unbound", 2, "duplicate option 'allow_unbound'; keep one"},
		{"trust_pool", 1, missing("trust_pool <module> ...")},
		{"trust_pool nonsense", 0, "nonsense"},
		{"trust_pool file a.pem\ntrust_pool file b.pem", 2, "duplicate option 'trust_pool'; use 'combined' for several sources"},
	})
}

// TestEveryPlaceholderIsKnown checks that header_up accepts every placeholder of the
// documentation.
func TestEveryPlaceholderIsKnown(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/placeholders.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\{http\.mtls\.[^}]+\}`).FindAllString(string(page), -1)
	if len(names) < 10 {
		t.Fatalf("placeholders.md has %q", names)
	}
	for _, name := range names {
		line := "header_up X-A " + strings.Replace(name, "<name>", "tenant", 1)
		if _, _, err := adaptText("Caddyfile", strings.Replace(aroundHandler, "BLOCK", line, 1)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
