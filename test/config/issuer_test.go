package config_test

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// keyFiles returns a new folder with valid and invalid signing keys.
func keyFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384 := testpki.MustKey(t, testpki.P384)
	public, err := x509.MarshalPKIXPublicKey(p384.Public())
	if err != nil {
		t.Fatal(err)
	}
	key, err := keyring.NewKey(p384, "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	p256, rsa2048 := testpki.KeyPEM(t, testpki.MustKey(t, testpki.P256)), testpki.KeyPEM(t, testpki.MustKey(t, testpki.RSA2048))
	for name, parts := range map[string][][]byte{
		"p256.pem":      {p256},
		"again.pem":     {[]byte("the same key, in another file\n"), p256},
		"p384.pem":      {testpki.KeyPEM(t, p384)},
		"p384.pub":      {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})},
		"p384.json":     {keyring.New(key).JWKS().Body},
		"ed25519.pem":   {testpki.KeyPEM(t, testpki.MustKey(t, testpki.Ed25519))},
		"rsa2048.pem":   {rsa2048},
		"rsa1024.pem":   {testpki.KeyPEM(t, weak)},
		"two.pem":       {p256, rsa2048},
		"empty.pem":     nil,
		"cut.pem":       {p256[:100]},
		"cert.pem":      {testpki.MustCA(t).PEM()},
		"encrypted.pem": {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})},
	} {
		testtool.WriteTemp(t, dir, name, parts...)
	}
	return dir
}

// inIssuer returns a Caddyfile with these lines in an issuer.
func inIssuer(block string) string {
	return inPartners("client a {\nthumbprint " + someSHA256 + "\nscopes api1 api2\n}\nissuer https://auth.example.com {\n" + block + "\n}")
}

func TestLoadSigningKey(t *testing.T) {
	keys := keyFiles(t)
	wrap := func(block string) string { return fillLoadTest("", inIssuer(fillKeys(keys, block))) }
	var tests []loadTest
	for _, test := range []loadTest{
		{"missing", "signing_key KEYS/nowhere.pem", []string{"realm 'partners': issuer: signing_key 'KEYS/nowhere.pem': open KEYS/nowhere.pem: no such file"}},
		{"empty", "signing_key KEYS/empty.pem", []string{"realm 'partners': issuer: signing_key 'KEYS/empty.pem': there is no private key in PEM form; expected -----BEGIN PRIVATE KEY-----"}},
		{"cut off", "signing_key KEYS/cut.pem", []string{"realm 'partners': issuer: signing_key 'KEYS/cut.pem': a PEM block is damaged or cut off"}},
		{"certificate", "signing_key KEYS/cert.pem", []string{"realm 'partners': issuer: signing_key 'KEYS/cert.pem': this is a certificate, not a private key"}},
		{"encrypted", "signing_key KEYS/encrypted.pem", []string{"realm 'partners': issuer: signing_key 'KEYS/encrypted.pem': the private key is encrypted; decrypt it with openssl pkey"}},
		{"two keys", "signing_key KEYS/two.pem", []string{"realm 'partners': issuer: signing_key 'KEYS/two.pem': there are several private keys; keep only the one that signs"}},
		{"RSA of 1024 bits", "signing_key KEYS/rsa1024.pem", []string{"realm 'partners': issuer: signing_key 'KEYS/rsa1024.pem': the RSA key has 1024 bits; use one of at least 2048"}},
		{"another curve", "signing_key KEYS/p384.pem\nsigning_algorithm ES256", []string{"realm 'partners': issuer: signing_key 'KEYS/p384.pem': signing algorithm ES256 is for P-256 keys, this key is P-384; change one of them"}},
		{"another kind", "signing_algorithm PS256\nsigning_key KEYS/p256.pem", []string{"realm 'partners': issuer: signing_key 'KEYS/p256.pem': signing algorithm PS256 is for RSA keys, this key is P-256; change one of them"}},
		{"key to verify is missing", "verify_key KEYS/nowhere.pem", []string{"realm 'partners': issuer: verify_key 'KEYS/nowhere.pem': open KEYS/nowhere.pem: no such file"}},
		{"key to verify is unset", "verify_key {env.MTLS_TEST_EMPTY}", []string{"realm 'partners': issuer: verify_key '{env.MTLS_TEST_EMPTY}': "}},
		{"key to verify is private", "verify_key KEYS/p256.pem", []string{"realm 'partners': issuer: verify_key 'KEYS/p256.pem': this is a private key, which must not be here; write its public half with openssl pkey"}},
		{"key to verify is empty", "verify_key KEYS/empty.pem", []string{"realm 'partners': issuer: verify_key 'KEYS/empty.pem': there is no public key in it; expected"}},
		{"key to verify twice", "verify_key KEYS/p384.pub KEYS/p384.json", []string{"realm 'partners': issuer: verify_key 'KEYS/p384.json': two keys have the kid '", "'; remove one"}},
		{"algorithm in a placeholder", "signing_algorithm {env.ALGORITHM}", []string{"realm 'partners': issuer: signing algorithm '{env.ALGORITHM}' is not supported; use one of ES256"}},
	} {
		for i, text := range test.want {
			test.want[i] = fillKeys(keys, text)
		}
		tests = append(tests, test)
	}
	checkLoadErrors(t, loadCaddyfile, wrap, tests)

	for _, block := range []string{
		"signing_key KEYS/p256.pem", "signing_key KEYS/p384.pem", "signing_key KEYS/rsa2048.pem", "signing_key KEYS/ed25519.pem\nsigning_algorithm EdDSA",
		"signing_key KEYS/rsa2048.pem\nsigning_algorithm PS512", "signing_algorithm RS256", "verify_key KEYS/p384.pub KEYS/cert.pem", "signing_key KEYS/p256.pem\nverify_key KEYS/p384.json",
	} {
		if result := loadCaddyfile(t, wrap(block)); result.err != nil {
			t.Errorf("%s: %v", block, result.err)
		}
	}
	own := loadCaddyfile(t, wrap("signing_key KEYS/p384.pem\nverify_key KEYS/p384.pub"))
	if own.err != nil || !slices.Contains(own.warnings(), "verification key left out") {
		t.Errorf("own key to verify: %v, warnings %q", own.err, own.warnings())
	}
}

// TestLoadAnnounceForWarning checks that the load warns if a key is announced for less
// time than APIs may go on with the keys that they have.
func TestLoadAnnounceForWarning(t *testing.T) {
	const warning = "key is announced for less time than some libraries keep keys"
	keys := keyFiles(t)
	for block, want := range map[string]bool{
		"announce_for 5s":                  true,
		"announce_for 11h59m59s":           true,
		"announce_for 12h":                 false,
		"":                                 false, // 24h
		"rotate_every 30d":                 false,
		"signing_key KEYS/p256.pem":        false,
		"rotate_every 5h\nannounce_for 4h": true,
	} {
		result := loadCaddyfile(t, fillLoadTest("", inIssuer(fillKeys(keys, block))))
		if got := slices.Contains(result.warnings(), warning); result.err != nil || got != want {
			t.Errorf("%q: got %v %q, want the warning: %v", block, result.err, result.warnings(), want)
		}
	}
}

// TestProfile_R45_R47 checks that settings which FAPI 2.0 does not allow stop the
// load, with an error that names the value and the remedy.
func TestProfile_R45_R47(t *testing.T) {
	keys := keyFiles(t)
	t.Setenv("MTLS_TEST_WEAK", someSHA1)
	realm := func(issuer, pin string) string {
		return fillLoadTest("", fillKeys(keys, inPartners("client a {\nthumbprint "+pin+"\n}\nissuer https://auth.example.com {\nprofile fapi2\n"+issuer+"\n}")))
	}
	const remedy = "is not allowed; use signing_algorithm ES256, PS256 or EdDSA, with a matching key"
	for _, test := range []struct{ name, issuer, pin, want string }{
		{"default", "", "SHA256", ""},
		{"ES256", "signing_algorithm ES256", "SHA256", ""},
		{"PS256", "signing_algorithm PS256\nsigning_key KEYS/rsa2048.pem", "SHA256", ""},
		{"EdDSA by its key", "signing_key KEYS/ed25519.pem", "SHA256", ""},
		{"RS256 by its key", "signing_key KEYS/rsa2048.pem", "SHA256", "realm 'partners': issuer: profile fapi2: signing algorithm 'RS256' " + remedy},
		{"ES384 to verify", "verify_key KEYS/p384.pub", "SHA256", "is for ES384, which is not allowed; remove it from verify_key"},
		{"ES384 by its key", "signing_key KEYS/p384.pem", "SHA256", "realm 'partners': issuer: profile fapi2: signing algorithm 'ES384' " + remedy},
		{"RSA of 1024 bits", "signing_algorithm PS256\nsigning_key KEYS/rsa1024.pem", "SHA256", "the RSA key has 1024 bits; use one of at least 2048"},
		{"SHA-1", "", someSHA1, "realm 'partners': client 'a': thumbprint '" + someSHA1 + "' is SHA-1, which profile fapi2 does not allow; replace it with the SHA-256 thumbprint"},
		{"SHA-1 by a placeholder", "", "{env.MTLS_TEST_WEAK}", "client 'a': thumbprint '" + someSHA1 + "' is SHA-1, which profile fapi2 does not allow"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result := loadCaddyfile(t, realm(test.issuer, test.pin))
			if test.want == "" {
				if result.err != nil {
					t.Fatal(result.err)
				}
				return
			}
			testtool.WantError(t, result.err, test.want)
		})
	}
	for algorithm := range strings.SplitSeq("RS256 RS384 RS512 PS384 PS512 ES384 ES512", " ") {
		result := loadJSON(t, fillLoadTest("", `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a","x509_thumbprints":"SHA256"}],"issuer":{"url":"https://auth.example.com","profile":"fapi2","signing_algorithm":"`+algorithm+`"}}}}}}`))
		testtool.WantError(t, result.err, "realm 'partners': issuer: profile fapi2: signing algorithm '"+algorithm+"' "+remedy)
	}
}

// TestProfileCipherSuites_R44 checks that cipher suites of TLS 1.2 which BCP 195
// does not recommend are refused on the issuer's sites only.
func TestProfileCipherSuites_R44(t *testing.T) {
	const cbc = "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"
	for _, test := range []struct{ name, profile, host, suites, want string }{
		{"CBC under an issuer with a dot at its end", "fapi2", "auth.example.com|auth.example.com.", `"` + cbc + `"`, "of the site of 'https://auth.example.com.'"},
		{"CBC at a port", "fapi2", "auth.example.com|auth.example.com:8443", `"` + cbc + `"`, "of the site of 'https://auth.example.com:8443'"},
		{"CBC under an issuer in capitals", "fapi2", "auth.example.com|AUTH.Example.com", `"` + cbc + `"`, "cipher suite '" + cbc + "' of the site of"},
		{"defaults", "fapi2", "auth.example.com", "", ""},
		{"recommended", "fapi2", "auth.example.com", `"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"`, ""},
		{"CBC", "fapi2", "auth.example.com", `"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256","` + cbc + `"`, "mtls_issuer: profile fapi2: cipher suite '" + cbc + "' of the site of 'https://auth.example.com' is not allowed; remove it from 'ciphers' in the site's tls"},
		{"CBC on the alias", "fapi2", "mtls.example.com", `"` + cbc + `"`, "of the site of 'https://mtls.example.com'"},
		{"CBC under a wildcard", "fapi2", "*.example.com", `"` + cbc + `"`, "of the site of 'https://auth.example.com'"},
		{"CBC under a host in capitals", "fapi2", "AUTH.example.com", `"` + cbc + `"`, "of the site of 'https://auth.example.com'"},
		{"CBC elsewhere", "fapi2", "www.example.com", `"` + cbc + `"`, ""},
		{"CBC without the profile", "", "auth.example.com", `"` + cbc + `"`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			site, issuer, _ := strings.Cut(test.host, "|")
			policy := `{"match":{"sni":["` + site + `"]},"cipher_suites":[` + test.suites + `],"client_authentication":{"mode":"request"}}`
			server := strings.Replace(oneServer(`{"handler":"mtls_issuer","realm":"partners"}`), `"routes"`, `"tls_connection_policies":[`+policy+`],"routes"`, 1)
			result := loadJSON(t, `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a","x509_thumbprints":"`+someSHA256+`"}],"issuer":{"url":"https://`+cmp.Or(issuer, "auth.example.com")+`","mtls_alias":"https://mtls.example.com","profile":"`+test.profile+`"}}}},`+server+`}}`)
			if test.want == "" {
				if result.err != nil {
					t.Fatal(result.err)
				}
				return
			}
			testtool.WantError(t, result.err, test.want)
		})
	}
}

// TestLoadTwoIssuers checks that two realms cannot share an issuer URL or a key.
func TestLoadTwoIssuers(t *testing.T) {
	keys := keyFiles(t)
	t.Setenv("MTLS_TEST_ISSUER", "https://a.example")
	for _, test := range []struct {
		name, a, b, want string
	}{
		{"one URL", "https://a.example", "https://a.example", "realm 'b': issuer 'https://a.example' is also that of realm 'a'; give each realm its own URL"},
		{"one URL but for a slash", "https://a.example", "https://A.example/", "realm 'b': issuer 'https://A.example/' is also that of realm 'a'; give each realm its own URL"},
		{"one URL, one by placeholder", "https://a.example", "{env.MTLS_TEST_ISSUER}", "realm 'b': issuer 'https://a.example' is also that of realm 'a'; give each realm its own URL"},
		{"one key", "https://a.example {\nsigning_key KEYS/p256.pem\n}", "https://b.example {\nsigning_key KEYS/p256.pem\n}", "realm 'b': issuer: the key in signing_key is also that of realm 'a'; give each realm its own key"},
		{"one key in two files", "https://a.example {\nsigning_key KEYS/p256.pem\n}", "https://b.example {\nsigning_key KEYS/again.pem\n}", "realm 'b': issuer: the key in signing_key is also that of realm 'a'; give each realm its own key"},
		{
			"one key with two algorithms", "https://a.example {\nsigning_key KEYS/rsa2048.pem\nsigning_algorithm RS256\n}", "https://b.example {\nsigning_key KEYS/rsa2048.pem\nsigning_algorithm PS256\n}",
			"realm 'b': issuer: the key in signing_key is also that of realm 'a'; give each realm its own key",
		},
		{"two URLs and two keys", "https://a.example {\nsigning_key KEYS/p256.pem\n}", "https://a.example/b {\nsigning_key KEYS/p384.pem\n}", ""},
		{"managed keys", "https://a.example", "https://b.example", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			result := loadCaddyfile(t, fillKeys(keys, "{\n\tmtls b {\n\t\tissuer "+test.b+"\n\t}\n\tmtls a {\n\t\tissuer "+test.a+"\n\t}\n}\n"))
			if test.want == "" {
				if result.err != nil {
					t.Fatal(result.err)
				}
				return
			}
			testtool.WantError(t, result.err, test.want)
		})
	}
}

func TestLoadIssuer(t *testing.T) {
	wrap := func(members string) string {
		return `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a","x509_thumbprints":"SHA256"}],"issuer":{` + members + `}}}}}}`
	}
	const url = `"url":"https://auth.example.com",`
	checkLoadErrors(t, loadJSON, wrap, []loadTest{
		{"http", `"url":"http://auth.example.com"`, []string{"realm 'partners': issuer: issuer 'http://auth.example.com': not an https URL; use one like https://auth.example.com"}},
		{"query", `"url":"https://auth.example.com/?tenant=a"`, []string{"realm 'partners': issuer: issuer 'https://auth.example.com/?tenant=a': the URL has a query or fragment; remove it"}},
		{"empty query", `"url":"https://auth.example.com?"`, []string{"realm 'partners': issuer: ", "the URL has a query or fragment; remove it"}},
		{"fragment", `"url":"https://auth.example.com#a"`, []string{"realm 'partners': issuer: ", "the URL has a query or fragment; remove it"}},
		{"user name", `"url":"https://a@auth.example.com"`, []string{"realm 'partners': issuer: ", "the URL has a user name; remove it"}},
		{"no host", `"url":"https://"`, []string{"realm 'partners': issuer: issuer 'https://': the URL has no valid host; use one like https://auth.example.com"}},
		{"alias that is no URL", url + `"mtls_alias":"mtls.example.com"`, []string{"realm 'partners': issuer: mtls_alias 'mtls.example.com': not an https URL; use one like https://auth.example.com"}},
		{"scope in two resources", url + `"resources":[{"name":"https://a.example","scopes":["x","api1"]},{"name":"https://b.example","scopes":["api1"]}]`, []string{"realm 'partners': issuer: scope 'api1' belongs to the resources 'https://a.example' and 'https://b.example'; remove it from one"}},
		{"resource twice", url + `"resources":[{"name":"a","scopes":["x"]},{"name":"a","scopes":["y"]}]`, []string{"realm 'partners': issuer: resource 'a' is declared twice; merge the two"}},
		{"resource without a name", url + `"resources":[{"scopes":["x"]}]`, []string{"realm 'partners': issuer: a resource has an empty name; use the API's identifier"}},
		{"bad scope of a resource", url + `"resources":[{"name":"a","scopes":["x y"]}]`, []string{"realm 'partners': issuer: resource 'a': scope \"x y\" holds ' '; use printable ASCII without spaces"}},
		{"empty audience", url + `"audience":[""]`, []string{"realm 'partners': issuer: an audience of issuer 'https://auth.example.com' is empty; remove it or give it a value"}},
		{"audience twice", url + `"audience":["a","a"]`, []string{"realm 'partners': issuer: audience 'a' is listed twice; remove one"}},
		{"short lifetime", url + `"token_lifetime":"10ms"`, []string{"realm 'partners': issuer: token lifetime '10ms' is too short; use at least 1s"}},
		{"negative lifetime", url + `"token_lifetime":-3600000000000`, []string{"realm 'partners': issuer: token lifetime '-1h0m0s' is too short; use at least 1s"}},
		{"unknown profile", url + `"profile":"FAPI2"`, []string{"realm 'partners': issuer: profile 'FAPI2': unknown profile; the only one is fapi2"}},
		{"rotation of a file", url + `"signing_key":"key.pem","announce_for":"1h"`, []string{"realm 'partners': issuer: rotate_every and announce_for apply to managed keys only; remove them, or remove signing_key"}},
		{"announced too long", url + `"rotate_every":"1h","announce_for":"1h"`, []string{"realm 'partners': issuer: announce_for 1h0m0s is not shorter than rotate_every 1h0m0s: a key would be replaced before it signs"}},
		{"negative rotation", url + `"rotate_every":-1`, []string{"realm 'partners': issuer: rotate_every -1ns is too short; use at least 1h0m0s"}},
		{"unknown form of scope", url + `"scope_claim":"list"`, []string{"realm 'partners': issuer: scope_claim 'list': not a form of the claim; use string or array"}},
		{"form of scope in a placeholder", url + `"scope_claim":"{env.MTLS_TEST_FORM}"`, []string{"realm 'partners': issuer: scope_claim '{env.MTLS_TEST_FORM}': not a form of the claim"}},
		{"unknown algorithm", url + `"signing_algorithm":"HS256"`, []string{"realm 'partners': issuer: signing algorithm 'HS256' is not supported; use one of ES256"}},
	})
}

// TestLoadResourcesOfClients checks that a client can have only resources of the
// issuer.
func TestLoadResourcesOfClients(t *testing.T) {
	t.Setenv("MTLS_TEST_RESOURCE", "https://a.example")
	wrap := func(members string) string {
		client, issuer, _ := strings.Cut(members, " | ")
		if issuer != "" {
			issuer = `,"issuer":{"url":"https://auth.example.com",` + issuer + `}`
		}
		return `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a","x509_thumbprints":"SHA256",` + client + `}]` + issuer + `}}}}}`
	}
	const resource, audience, neither = ` | "resources":[{"name":"https://a.example"}]`, ` | "audience":["api"]`, ` | "token_lifetime":"1h"`
	checkLoadErrors(t, loadJSON, wrap, []loadTest{
		{"introspect without issuer", `"introspect":"https://a.example"`, []string{"realm 'partners': client 'a': introspect 'https://a.example': the realm has no issuer, so it issues no tokens; add an issuer, or remove the word"}},
		{"resources without issuer", `"resources":"https://a.example"`, []string{"realm 'partners': client 'a': resources 'https://a.example': the realm has no issuer, so it issues no tokens; add an issuer, or remove the word"}},
		{"introspect of another resource", `"introspect":["https://a.example","https://b.example"]` + resource, []string{"realm 'partners': client 'a': introspect 'https://b.example': no token of the issuer has this audience; declare it as a resource or audience, or correct the name"}},
		{"introspect almost", `"introspect":"https://a.example/"` + resource, []string{"realm 'partners': client 'a': introspect 'https://a.example/': no token of the issuer has this audience"}},
		{"introspect of the issuer", `"introspect":"https://auth.example.com"` + resource, []string{"introspect 'https://auth.example.com': no token of the issuer has this audience"}},
		{"another resource", `"resources":["https://a.example","https://b.example"]` + resource, []string{"realm 'partners': client 'a': resources 'https://b.example': the issuer has no such resource; declare it with 'resource https://b.example { … }', or correct the name"}},
		{"an audience is no resource", `"resources":"api"` + audience, []string{"realm 'partners': client 'a': resources 'api': the issuer has no such resource"}},
		{"empty resource", `"resources":""` + resource, []string{"realm 'partners': client 'a': resources: a resource is empty; remove it or set the variable it comes from"}},
		{"unset introspect", `"introspect":"{env.MTLS_TEST_UNSET}"` + resource, []string{"realm 'partners': client 'a': introspect '{env.MTLS_TEST_UNSET}': "}},
		{"unset resource", `"resources":"{env.MTLS_TEST_UNSET}"` + resource, []string{"realm 'partners': client 'a': resources '{env.MTLS_TEST_UNSET}': "}},
		{"null", `"introspect":null` + resource, []string{"client record: ", "null is neither a string nor an array of strings"}},
		{"no resource", `"resources":[]` + resource, []string{"client record: ", "an empty array; name a value or leave the member out"}},
	})
	for name, members := range map[string]string{
		"both, by placeholder": `"introspect":"{env.MTLS_TEST_RESOURCE}","resources":["https://a.example"]` + resource,
		"an audience":          `"introspect":"api"` + audience,
		"the issuer's own URL": `"introspect":"https://auth.example.com"` + neither,
	} {
		if result := loadJSON(t, fillLoadTest("", wrap(members))); result.err != nil {
			t.Errorf("%s: %v", name, result.err)
		}
	}
}
