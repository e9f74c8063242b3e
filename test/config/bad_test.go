package config_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// badBlock has lines of a Caddyfile with a mistake, and the error about it. SHA256 and
// SHA1 stand for a hash.
type badBlock struct {
	block string
	line  int // of the mistake in the block; 0 if Caddy does not name it
	want  string
}

// Caddyfiles around a block. They are valid without it.
const (
	aroundRealm = "{\n\tmtls {\n\t\ttrust_pool file other.pem\nBLOCK\n\t}\n}\n"
	// aroundBareRealm has no trust pool, because a second one is a mistake
	aroundBareRealm     = "{\n\tmtls {\nBLOCK\n\t}\n}\n"
	aroundClient        = "{\n\tmtls {\n\t\tclient a {\n\t\t\tthumbprint " + otherSHA256 + "\nBLOCK\n\t\t}\n\t}\n}\n"
	aroundIssuer        = "{\n\tmtls {\n\t\tissuer https://auth.example.com {\nBLOCK\n\t\t}\n\t}\n}\n"
	aroundHandler       = "{\n\tmtls\n}\n\n:443 {\n\tmtls_auth {\nBLOCK\n\t}\n}\n"
	aroundIssuerHandler = "{\n\tmtls {\n\t\tissuer https://auth.example.com\n\t}\n}\n\n:443 {\n\tmtls_issuer {\nBLOCK\n\t}\n}\n"
	aroundBearer        = "{\n\tmtls {\n\t\tissuer https://auth.example.com\n\t}\n}\n\n:443 {\n\tmtls_bearer {\nBLOCK\n\t}\n}\n"
	aroundTrusted       = "{\n\tmtls\n}\n\n:443 {\n\tmtls_bearer {\n\t\ttrust_issuer https://login.example.net {\n\t\t\taudience a\nBLOCK\n\t\t}\n\t}\n}\n"
	aroundBareSite      = "{\n\tmtls\n}\n\n:443 {\nBLOCK\n}\n"
	aroundResources     = "{\n\tmtls {\n\t\tissuer https://auth.example.com {\n\t\t\tresource https://api.example.com {\n\t\t\t\tscopes read\n\t\t\t}\n\t\t}\n\t}\n}\n\n:443 {\nBLOCK\n}\n"
	aroundSite          = "{\n\tmtls {\n\t\tissuer https://auth.example.com\n\t}\n}\n\n:443 {\nBLOCK\n}\n"
)

// wrongCount is the adapter's error about missing or surplus arguments.
func wrongCount(last string) string {
	return "wrong argument count or unexpected line ending after '" + last + "'"
}

func checkBadBlocks(t *testing.T, around string, tests []badBlock) {
	t.Helper()
	if err := os.Unsetenv("MTLS_TEST_UNSET"); err != nil {
		t.Fatal(err)
	}
	hashes := strings.NewReplacer("SHA256", someSHA256, "SHA1", someSHA1)
	if _, _, err := adaptText("Caddyfile", strings.Replace(around, "BLOCK", "", 1)); err != nil {
		t.Fatalf("without a bad block: %v", err)
	}
	firstLine := 1 + strings.Count(around[:strings.Index(around, "BLOCK")], "\n")
	for _, test := range tests {
		t.Run(test.block, func(t *testing.T) {
			_, _, err := adaptText("Caddyfile", strings.Replace(around, "BLOCK", hashes.Replace(test.block), 1))
			if test.line == 0 {
				testtool.WantError(t, err, hashes.Replace(test.want), "Caddyfile:")
				return
			}
			testtool.WantError(t, err, hashes.Replace(test.want)+fmt.Sprintf(", at Caddyfile:%d", firstLine+test.line-1))
		})
	}
}

func TestBadRealm(t *testing.T) {
	checkBadBlocks(t, "{\n\tadmin off\nBLOCK\n}\n", []badBlock{
		{`mtls "{$MTLS_TEST_UNSET}"`, 1, "realm name '' has 0 characters; use 1 to 63"},
		{"mtls " + strings.Repeat("a", 64), 1, "has 64 characters; use 1 to 63"},
		{"mtls a_b", 1, `realm name "a_b" contains '_'; use a-z, 0-9 and hyphens`},
		{"mtls a b {\n}", 1, wrongCount("b")},
		{"mtls {\nclient a {\nsubject CN=a\n}\n}\nmtls default {\nclient a {\nsubject CN=b\n}\n}", 9, "client 'a' is declared twice; give each client one block"},
		{"mtls {\nissuer https://a.example\n}\nmtls {\nissuer https://a.example\n}", 5, "duplicate option 'issuer'; declare another realm for another issuer"},
		{"mtls {\ntrust_pool file a.pem\n}\nmtls {\ntrust_pool file a.pem\n}", 5, "duplicate option 'trust_pool'; use 'combined' for several sources"},
		{"mtls {\nshadow_trust_pool file b.pem\n}\nmtls {\nshadow_trust_pool file b.pem\n}", 5, "duplicate option 'shadow_trust_pool'; use 'combined' for several sources"},
		{"mtls {\nstorage file_system a\n}\nmtls {\nstorage file_system a\n}", 5, "duplicate option 'storage'; a realm has one storage"},
		{"mtls {\nissuer https://a.example\nissuer https://b.example\n}", 3, "duplicate option 'issuer'; declare another realm for another issuer"},
	})
	checkBadBlocks(t, aroundBareRealm, []badBlock{
		{"trust_pool", 1, wrongCount("trust_pool")},
		{"trust_pool file", 1, "no certificates specified"},
		{"trust_pool file {$MTLS_TEST_UNSET}", 1, "no certificates specified"},
		{"trust_pool files ca.pem", 1, "getting module named 'tls.ca_pool.source.files': module not registered: tls.ca_pool.source.files"},
		{"trust_pool_refresh", 1, wrongCount("trust_pool_refresh")},
		{"trust_pool_refresh {$MTLS_TEST_UNSET}", 1, wrongCount("trust_pool_refresh")},
		{"trust_pool_refresh 1h 2h", 1, wrongCount("1h")},
		{"trust_pool_refresh hourly", 1, `parsing trust_pool_refresh 'hourly': time: invalid duration "hourly"`},
		{"trust_pool_refresh 59s", 1, "trust_pool_refresh '59s': 59s is too short; use at least 1m"},
		{"trust_pool_refresh 0", 1, "trust_pool_refresh '0': 0s is too short; use at least 1m"},
		{"trust_pool_refresh 1h\ntrust_pool_refresh 1h", 2, "duplicate option 'trust_pool_refresh'"},
		{"shadow_trust_pool", 1, wrongCount("shadow_trust_pool")},
		{"shadow_trust_pool file {$MTLS_TEST_UNSET}", 1, "no certificates specified"},
		{"shadow_trust_pool nonsense", 1, "module not registered: tls.ca_pool.source.nonsense"},
		{"shadow_trust_pool file a.pem\nshadow_trust_pool file a.pem", 2, "duplicate option 'shadow_trust_pool'; use 'combined' for several sources"},
	})
	checkBadBlocks(t, aroundRealm, []badBlock{
		{"trust_pool file b.pem", 1, "duplicate option 'trust_pool'; use 'combined' for several sources"},
		{"Issuer https://auth.example.com", 1, "unrecognized mtls option 'Issuer'"},
		{"storage", 1, wrongCount("storage")},
		{"storage nowhere", 1, "module not registered: caddy.storage.nowhere"},
		{"clients_from", 1, wrongCount("clients_from")},
		{"clients_from nowhere a.json", 1, "module not registered: mtls.clients.nowhere"},
		{"clients_from file", 1, wrongCount("file")},
		{`clients_from file "{$MTLS_TEST_UNSET}"`, 1, "file is empty; give it a value or remove it"},
		{"clients_from file a.json a.json", 1, "duplicate file 'a.json'"},
		{"clients_from file a.json {\nx\n}", 2, "unrecognized clients_from option 'x'"},
		{"issuer", 1, wrongCount("issuer")},
		{"issuer https://a.example https://b.example", 1, wrongCount("https://a.example")},
		{`issuer "{$MTLS_TEST_UNSET}"`, 1, "issuer is empty; give it a value or remove the line"},
		{"issuer http://auth.example.com", 1, "issuer 'http://auth.example.com': not an https URL; use one like https://auth.example.com"},
		{"issuer https://auth.example.com/#a", 1, "the URL has a query or fragment; remove it (RFC 8414 §2)"},
		{"issuer https://auth.example.com/?a=b", 1, "the URL has a query or fragment; remove it (RFC 8414 §2)"},
		{"client {\nsubject CN=a\n}", 1, wrongCount("client")},
		{"client a b {\nsubject CN=a\n}", 1, wrongCount("a")},
		{"client \"{$MTLS_TEST_UNSET}\" {\nsubject CN=a\n}", 1, "client_id is empty; name the client"},
		{"client \"a b\" {\nsubject CN=a\n}", 1, `client_id "a b" contains ' '; use letters, digits and ._~:@/+-,`},
		{"client {env.CLIENT_ID} {\nsubject CN=a\n}", 1, "contains '{'; use letters, digits and ._~:@/+-,"},
		{"client " + strings.Repeat("a", 201) + " {\nsubject CN=a\n}", 1, "has 201 characters; at most 200 are allowed"},
		{"client a", 1, "client 'a' has no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks"},
		{"client a {\n}", 2, "client 'a' has no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks"},
		{"client a {\nscopes api1\n}", 3, "client 'a' has no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks"},
		{"client a {\nsubject CN=a\n}\nclient a {\nsubject CN=b\n}", 6, "client 'a' is declared twice; give each client one block"},
	})
}

func TestBadRevocation(t *testing.T) {
	checkBadBlocks(t, aroundRealm, []badBlock{
		{"revocation on {\n}", 1, wrongCount("on")},
		{"revocation {\n}", 2, "revocation: it names no source; add crl, ocsp or deny"},
		{"revocation {\nx\n}", 2, "unrecognized revocation option 'x'"},
		{"revocation {\ndeny a\n}\nrevocation {\ndeny b\n}", 4, "duplicate option 'revocation'; name all sources in one block"},
		{"revocation {\ncrl\n}", 2, wrongCount("crl")},
		{"revocation {\ncrl a.crl\ncrl a.crl\n}", 3, "duplicate crl 'a.crl'"},
		{"revocation {\ncrl \"{$MTLS_TEST_UNSET}\"\n}", 2, "crl is empty; give it a value or remove it"},
		{"revocation {\ncrl a.crl\nrefresh 1s\n}", 3, "refresh 1s is too short; use at least 1m"},
		{"revocation {\ncrl a.crl\nrefresh often\n}", 3, `parsing refresh 'often': time: invalid duration "often"`},
		{"revocation {\ndeny\n}", 2, wrongCount("deny")},
		{"revocation {\ndeny a\ndeny b\n}", 3, "duplicate option 'deny'"},
		{"revocation {\ndeny a\non_unavailable maybe\n}", 3, "on_unavailable 'maybe': it is neither refuse nor allow"},
		{"revocation {\ndeny a\non_unavailable allow\n}", 4, "revocation: on_unavailable allow has no effect with deny alone, because that file is always available; remove it, or add crl or ocsp"},
	})
}

func TestBadClient(t *testing.T) {
	checkBadBlocks(t, aroundClient, []badBlock{
		{"subject client", 1, "if it belongs to the value before it, write a backslash before the separator (as in \"\\,\") or put that value in double quotes"},
		{`subject ""`, 1, "subject is empty; give it a value or remove it"},
		{"subject {$MTLS_TEST_UNSET}", 1, wrongCount("subject")},
		{"subject CN=client, OU=production", 1, `a subject with spaces needs quotes; write subject "CN=client, OU=production"`},
		{"subject CN=a\nsubject CN=a", 2, "duplicate subject 'CN=a'"},
		{`subject "CN={$MTLS_TEST_UNSET},O=company"`, 1, "the value of CN is empty; write one, leave the attribute out, or set the variable it comes from"},
		{`subject "/O=company/CN=client"`, 1, `it is in the form that OpenSSL prints; write "CN=client,O=company" (RFC 4514)`},
		{`subject "CN=client\00.example"`, 1, "has the control, invisible or private character U+0000; remove it"},
		{"subject \"CN=cli\u200bent\"", 1, "has the control, invisible or private character U+200B; remove it"},
		{"thumbprint bca0d040", 1, `has 8 hexadecimal digits; expected SHA-256 (64 hexadecimal digits or 43 base64url characters) or SHA-1 (40 or 27)`},
		{"thumbprint e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 1, "is the hash of empty input; hash the certificate's DER encoding"},
		{`thumbprint "{$MTLS_TEST_UNSET}"`, 1, "thumbprint is empty; give it a value or remove it"},
		{"thumbprint SHA256 SHA1", 1, wrongCount("thumbprint")},
		{"thumbprint SHA256\nthumbprint SHA256", 2, "duplicate thumbprint 'SHA256'"},
		{"thumbprint SHA256 {\nx\n}", 1, "unrecognized client option '{'"},
		{"thumbprint SHA256 until", 1, wrongCount("thumbprint")},
		{"thumbprint SHA256 before 2030-01-01T00:00:00Z", 1, "thumbprint: unexpected 'before'; write 'thumbprint <hash> until <time>'"},
		{"thumbprint SHA256 until tomorrow", 1, "until 'tomorrow' is not a time; write it as 2027-01-31T12:00:00Z"},
		{"public_key", 1, wrongCount("public_key")},
		{"public_key SHA1", 1, "it is a SHA-1 hash, which is not accepted here; expected SHA-256: 64 hexadecimal digits or 43 base64url characters"},
		{"public_key SHA256 until 2030-01-01", 1, "until '2030-01-01' is not a time; write it as 2027-01-31T12:00:00Z"},
		{"public_key SHA256\npublic_key SHA256", 2, "duplicate public_key 'SHA256'"},
		{"san_dns", 1, wrongCount("san_dns")},
		{"san_dns a.example b.example", 1, wrongCount("san_dns")},
		{`san_dns "{$MTLS_TEST_UNSET}"`, 1, "san_dns is empty; give it a value or remove it"},
		{"san_dns *.com", 1, "san_dns '*.com': '*.' must be above at least two labels, as in *.example.com; declare each name instead"},
		{"san_uri not-a-uri", 1, "san_uri 'not-a-uri': the URI has no scheme; write an absolute one, as in spiffe://example.com/billing or urn:example:billing (RFC 5280 §4.2.1.6)"},
		{"san_uri spiffe://prod.example/a*", 1, `san_uri 'spiffe://prod.example/a*': segment "a*": '*' stands for a whole segment; declare each URI instead, or write '*' alone between slashes`},
		{"san_ip 192.0.2.0/24", 1, "san_ip '192.0.2.0/24': a client certificate cannot have a range of addresses; declare each address"},
		{"san_email billing", 1, "san_email 'billing': the email address has no '@'; write local-part@domain"},
		{"certificate", 1, wrongCount("certificate")},
		{"certificate a.pem b.pem", 1, wrongCount("certificate")},
		{`certificate "{$MTLS_TEST_UNSET}"`, 1, "certificate is empty; give it a value or remove it"},
		{"certificate a.pem\ncertificate a.pem", 2, "duplicate certificate 'a.pem'"},
		{"jwks", 1, wrongCount("jwks")},
		{"jwks a.json b.json", 1, wrongCount("a.json")},
		{`jwks "{$MTLS_TEST_UNSET}"`, 1, "jwks is empty; give it a value or remove the line"},
		{"jwks a.json\njwks https://a.example/jwks", 2, "duplicate option 'jwks'"},
		{"jwks https://a.example/jwks\njwks https://b.example/jwks", 2, "duplicate option 'jwks'"},
		{"jwks http://a.example/jwks", 1, "jwks: 'http://a.example/jwks' is not an https URL; use one, or a file"},
		{"issued_by", 1, wrongCount("issued_by")},
		{`issued_by "{$MTLS_TEST_UNSET}"`, 1, "issued_by is empty; give it a value or remove it"},
		{"issued_by SHA256 SHA256", 1, "duplicate issued_by 'SHA256'"},
		{"issued_by SHA1", 1, "issued_by 'SHA1': it is a SHA-1 hash, which is not accepted here; expected SHA-256: 64 hexadecimal digits or 43 base64url characters"},
		{"require_chain\nrequire_chain", 2, "duplicate option 'require_chain'"},
		{"require_chain yes", 1, wrongCount("yes")},
		{"shared_credential\nshared_credential", 2, "duplicate option 'shared_credential'"},
		{"shared_credential b", 1, wrongCount("b")},
		{"scopes", 1, wrongCount("scopes")},
		{`scopes api1 "{$MTLS_TEST_UNSET}"`, 1, "scopes is empty; give it a value or remove it"},
		{"scopes api1\nscopes api1", 2, "duplicate scopes 'api1'"},
		{`scopes api1 "a b"`, 1, "use printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)"},
		{"scopes {env.SCOPE}", 1, "scope '{env.SCOPE}': placeholders are not expanded in scopes; write {$NAME} for an environment variable"},
		{"default_scopes", 1, wrongCount("default_scopes")},
		{`default_scopes "a\"b"`, 1, "use printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)"},
		{"scopes a\ndefault_scopes a a", 2, "duplicate default_scopes 'a'"},
		{"scopes a\ndefault_scopes b\ndisabled", 4, "client 'a': default scope 'b' is not one of its scopes; add it to them"},
		{"resources", 1, wrongCount("resources")},
		{`resources "{$MTLS_TEST_UNSET}"`, 1, "resources is empty; give it a value or remove it"},
		{"resources a b a", 1, "duplicate resources 'a'"},
		{"introspect", 1, wrongCount("introspect")},
		{`introspect a "{$MTLS_TEST_UNSET}"`, 1, "introspect is empty; give it a value or remove it"},
		{"introspect a\nintrospect a", 2, "duplicate introspect 'a'"},
		{"claim tenant", 1, wrongCount("tenant")},
		{"claim tenant acme corp", 1, wrongCount("acme")},
		{`claim "ten ant" acme`, 1, "claim 'ten ant': use only A-Z a-z 0-9 _ . - in its name"},
		{"claim CNF acme", 1, "claim 'CNF' is reserved for the token itself; choose another name"},
		{"claim sub somebody", 1, "claim 'sub' is reserved for the token itself; choose another name"},
		{`claim tenant "{$MTLS_TEST_UNSET}"`, 1, "claim tenant is empty; give it a value or remove the line"},
		{"claim tenant acme\nclaim tenant other", 2, "duplicate claim 'tenant'"},
		{"token_lifetime", 1, wrongCount("token_lifetime")},
		{"token_lifetime fortnight", 1, `parsing token_lifetime 'fortnight': time: invalid duration "fortnight"`},
		{"token_lifetime 0", 1, "token_lifetime 0s is too short; use at least 1s"},
		{"token_lifetime 500ms", 1, "token_lifetime 500ms is too short; use at least 1s"},
		{"token_lifetime {env.LIFETIME}", 1, `parsing token_lifetime '{env.LIFETIME}': time: invalid duration "{env.LIFETIME}"`},
		{"token_lifetime 1m\ntoken_lifetime 1m", 2, "duplicate option 'token_lifetime'"},
		{"disabled\ndisabled", 2, "duplicate option 'disabled'"},
		{"disabled false", 1, wrongCount("false")},
	})
}

func TestBadIssuer(t *testing.T) {
	checkBadBlocks(t, aroundIssuer, []badBlock{
		{"token_lifetime", 1, wrongCount("token_lifetime")},
		{"token_lifetime -1s", 1, "token_lifetime -1s is too short; use at least 1s"},
		{"token_lifetime 1x", 1, `parsing token_lifetime '1x': time: unknown unit "x" in duration "1x"`},
		{"token_lifetime 1h\ntoken_lifetime 1h", 2, "duplicate option 'token_lifetime'"},
		{"signing_algorithm", 1, wrongCount("signing_algorithm")},
		{"signing_algorithm none", 1, "signing algorithm 'none' is not supported; use one of ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA"},
		{"signing_algorithm HS256", 1, "signing algorithm 'HS256' is not supported; use one of ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA"},
		{"signing_algorithm ES256\nsigning_algorithm ES256", 2, "duplicate option 'signing_algorithm'"},
		{"signing_key", 1, wrongCount("signing_key")},
		{`signing_key "{$MTLS_TEST_UNSET}"`, 1, "signing_key is empty; give it a value or remove the line"},
		{"signing_key a.pem\nsigning_key b.pem", 2, "duplicate option 'signing_key'"},
		{"verify_key", 1, wrongCount("verify_key")},
		{`verify_key old.pem "{$MTLS_TEST_UNSET}"`, 1, "verify_key is empty; give it a value or remove it"},
		{"verify_key a.pem\nverify_key b.pem a.pem", 2, "duplicate verify_key 'a.pem'"},
		{"rotate_every", 1, wrongCount("rotate_every")},
		{"rotate_every often", 1, `parsing rotate_every 'often': time: invalid duration "often"`},
		{"rotate_every 30m", 1, "rotate_every '30m': rotate_every 30m0s is too short; use at least 1h0m0s"},
		{"rotate_every 24h", 2, "issuer: announce_for 24h0m0s is not shorter than rotate_every 24h0m0s: a key would be replaced before it signs; make announce_for shorter or rotate_every longer"},
		{"signing_key key.pem\nrotate_every 90d", 3, "issuer: rotate_every and announce_for apply to managed keys only; remove them, or remove signing_key"},
		{"rotate_every 90d\nrotate_every 90d", 2, "duplicate option 'rotate_every'"},
		{"announce_for", 1, wrongCount("announce_for")},
		{"announce_for -1h", 1, "announce_for '-1h': announce_for -1h0m0s is too short; use at least 5s"},
		{"announce_for 1s", 1, "announce_for '1s': announce_for 1s is too short; use at least 5s"},
		{"announce_for 1h\nannounce_for 1h", 2, "duplicate option 'announce_for'"},
		{"mtls_alias https://a.example https://b.example", 1, wrongCount("https://a.example")},
		{"mtls_alias mtls.example.com", 1, "mtls_alias 'mtls.example.com': not an https URL; use one like https://auth.example.com"},
		{"mtls_alias https://a.example\nmtls_alias https://b.example", 2, "duplicate option 'mtls_alias'"},
		{"mtls_alias https://a.example?x", 1, "the URL has a query or fragment; remove it (RFC 8414 §2)"},
		{"audience", 1, wrongCount("audience")},
		{"audience a a", 1, "duplicate audience 'a'"},
		{`audience "{$MTLS_TEST_UNSET}"`, 1, "audience is empty; give it a value or remove it"},
		{"scope_claim", 1, wrongCount("scope_claim")},
		{"scope_claim string array", 1, wrongCount("string")},
		{"scope_claim Array", 1, "scope_claim 'Array': not a form of the claim; use string or array"},
		{`scope_claim "{$MTLS_TEST_UNSET}"`, 1, "scope_claim is empty; give it a value or remove the line"},
		{"scope_claim string\nscope_claim array", 2, "duplicate option 'scope_claim'"},
		{"resource {\nscopes a\n}", 1, wrongCount("resource")},
		{"resource \"{$MTLS_TEST_UNSET}\" {\nscopes a\n}", 1, "resource is empty; give it a value or remove the line"},
		{"resource a {\nscope a\n}", 2, "unrecognized resource option 'scope'"},
		{"resource a {\nscopes\n}", 2, wrongCount("scopes")},
		{"resource a {\nscopes \"a b\"\n}", 2, "use printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)"},
		{"resource a {\nscopes a a\n}", 2, "duplicate scopes 'a'"},
		{"resource a {\nscopes {env.SCOPE}\n}", 2, "scope '{env.SCOPE}': placeholders are not expanded in scopes; write {$NAME} for an environment variable"},
		{"resource a {\nscopes x\n}\nresource a {\nscopes y\n}", 6, "resource 'a' is declared twice; merge the two"},
		{"profile", 1, wrongCount("profile")},
		{"profile fapi1", 1, "profile 'fapi1': unknown profile; the only one is fapi2"},
		{"profile fapi2\nprofile fapi2", 2, "duplicate option 'profile'"},
		{"profile \"{$MTLS_TEST_UNSET}\"", 1, "profile is empty; give it a value or remove the line"},
		{"signing_algorithm RS256\nprofile fapi2", 3, "signing_algorithm 'RS256': profile fapi2: signing algorithm 'RS256' is not allowed; use signing_algorithm ES256, PS256 or EdDSA, with a matching key"},
		{"resource a {\nscopes x\n}\nresource b {\nscopes y x\n}", 6, "scope 'x' belongs to the resources 'a' and 'b'; remove it from one"},
	})
}

// TestUnknownWords checks that unknown options are errors in every block, because
// a setting that an operator relies on must not be ignored.
func TestUnknownWords(t *testing.T) {
	unknown := func(words, format string) []badBlock {
		var tests []badBlock
		for word := range strings.SplitSeq(words, ",") {
			name, _, _ := strings.Cut(word, " ")
			tests = append(tests, badBlock{word, 1, fmt.Sprintf(format, name)})
		}
		return tests
	}
	checkBadBlocks(t, aroundRealm, unknown("realm a,clients a,clientz a",
		"unrecognized mtls option '%s'"))
	checkBadBlocks(t, aroundClient, unknown("subjekt CN=a,jwks_uri https://a.example/jwks,until 2030-01-01T00:00:00Z,scope a,secret x",
		"unrecognized client option '%s'"))
	checkBadBlocks(t, aroundIssuer, unknown("scopes a,lifetime 1h",
		"unrecognized issuer option '%s'"))
	checkBadBlocks(t, aroundHandler, unknown("alow a,deny a,scopes a,audience a", "unrecognized subdirective '%s'"))
	checkBadBlocks(t, aroundBearer, unknown("optional,report_only,allow a,issuer https://a.example,trust_pool file a.pem,forward_token", "unrecognized subdirective '%s'"))
	for _, directive := range []string{"mtls_status"} {
		_, _, err := adaptText("Caddyfile", strings.Replace(aroundSite, "BLOCK", directive, 1))
		testtool.WantError(t, err, "Caddyfile:8: unrecognized directive: "+directive)
	}
}
