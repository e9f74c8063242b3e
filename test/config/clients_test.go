package config_test

import (
	"strings"
	"testing"
)

// inRecord returns a configuration with the members of one client's record.
func inRecord(members string) string {
	return `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a",` + members + `}]}}}}}`
}

// TestLoadRecord checks that a client in JSON is parsed strictly, because an unknown
// member might have been meant to restrict the client.
func TestLoadRecord(t *testing.T) {
	const pin = `"x509_thumbprints":"SHA256"`
	checkLoadErrors(t, loadJSON, inRecord, []loadTest{
		{"unknown member", pin + `,"thumbprint":"SHA256"`, []string{`client 'a': client record: unknown member "thumbprint"; known are `, "x509_thumbprints"}},
		{"member in another case", pin + `,"Disabled":true`, []string{`client record: unknown member "Disabled"; known are `, "disabled"}},
		{"member in two cases", pin + `,"disabled":true,"Disabled":false`, []string{`client record: unknown member "Disabled"; known are `}},
		{"member twice", pin + `,"disabled":true,"disabled":false`, []string{`client record: duplicate member "disabled"; keep one of the two`}},
		{"credential twice", pin + `,` + pin, []string{`client record: duplicate member "x509_thumbprints"; keep one of the two`}},
		{"claim twice", pin + `,"claims":{"t":"a","t":"b"}`, []string{`client 'a': client record: claims: duplicate member "t"; keep one of the two`}},
		{"JWKS that is not secure", `"jwks_uri":"http://a.example/jwks"`, []string{"realm 'partners': client 'a': jwks_uri: 'http://a.example/jwks' is not an https URL; use one, or a file"}},
		{"JWKS in two ways", `"jwks_uri":"https://a.example/jwks","jwks":{"keys":[]}`, []string{"realm 'partners': client 'a': several of jwks, jwks_uri and jwks_file are set; keep one (RFC 7591 §2)"}},
		{"JWKS without keys", `"jwks":{"keys":[]}`, []string{"realm 'partners': client 'a': jwks 'written out': it has no keys"}},
		{"JWKS that is null", `"jwks":null`, []string{"realm 'partners': client 'a': jwks 'written out': not a JWK Set"}},
		{"JWKS without a certificate", `"jwks":{"keys":[{"kty":"EC"}]}`, []string{"none of its keys can be used: key 1 is ignored: has no x5c"}},
		{"missing JWKS file", `"jwks_file":"DIR/nowhere.json"`, []string{"realm 'partners': client 'a': jwks 'DIR/nowhere.json': stat DIR/nowhere.json: no such file"}},
		{"empty JWKS file", `"jwks_file":"DIR/empty.pem"`, []string{"realm 'partners': client 'a': jwks 'DIR/empty.pem': not a JWK Set"}},
		{"JWKS file that is another", `"jwks_file":"DIR/client.pem"`, []string{"realm 'partners': client 'a': jwks 'DIR/client.pem': not a JWK Set"}},
		{"credential that is null", `"x509_thumbprints":null`, []string{"client record: ", "null is neither a string nor an array of strings"}},
		{"credential list with null", `"x509_thumbprints":[null]`, []string{"client record: ", "null in an array of strings; remove it"}},
		{"credential that is a number", `"x509_thumbprints":7`, []string{"client record: ", "7 is neither a string nor an array of strings"}},
		{"flag that is a string", pin + `,"disabled":"true"`, []string{"client record: ", "disabled"}},
		{"no credential", `"scope":"api1"`, []string{"realm 'partners': client 'a': no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks"}},
		{"empty list of credentials", `"x509_thumbprints":[]`, []string{"client record: ", "an empty array; name a value or leave the member out"}},
		{"empty list that narrows", pin + `,"issued_by":[]`, []string{"client record: ", "an empty array; name a value or leave the member out"}},
		{"empty subject", `"tls_client_auth_subject_dn":""`, []string{"realm 'partners': client 'a': subject '': ", "it is empty; write a name such as CN=client,O=company, or set the variable it comes from"}},
		{"subject of spaces", `"tls_client_auth_subject_dn":"  "`, []string{"realm 'partners': client 'a': subject '  ': ", "it is empty; write a name"}},
		{"empty attribute", `"tls_client_auth_subject_dn":"CN=,O=company"`, []string{"realm 'partners': client 'a': subject 'CN=,O=company': ", "the value of CN is empty; write one, leave the attribute out"}},
		{"NUL in a subject", `"tls_client_auth_subject_dn":"CN=a\u0000b"`, []string{`client 'a': client record: tls_client_auth_subject_dn: invalid character in a string: it contains NUL (\u0000); remove it`}},
		{"half of a surrogate pair in a subject", `"tls_client_auth_subject_dn":"CN=a\ud800b"`, []string{`client 'a': client record: tls_client_auth_subject_dn: invalid character in a string: it contains \ud800, which is half of a surrogate pair; write the character itself`}},
		{"zero width space in a subject", `"tls_client_auth_subject_dn":"CN=a\u200bb"`, []string{"realm 'partners': client 'a': subject 'CN=a\u200bb': ", "U+200B; remove it"}},
		{"short thumbprint", `"x509_thumbprints":"abcd"`, []string{"realm 'partners': client 'a': thumbprint 'abcd': ", "expected SHA-256"}},
		{"hash of nothing", `"x509_thumbprints":"da39a3ee5e6b4b0d3255bfef95601890afd80709"`, []string{"realm 'partners': client 'a': thumbprint 'da39a3ee5e6b4b0d3255bfef95601890afd80709': ", "is the hash of empty input", "hash the certificate's DER encoding"}},
		{"issued_by of SHA-1", pin + `,"issued_by":"SHA1"`, []string{"realm 'partners': client 'a': issued_by 'SHA1': ", "expected SHA-256"}},
		{"scope with a quote", pin + `,"scope":"a\"b"`, []string{"realm 'partners': client 'a': scope \"a\\\"b\" holds", "use printable ASCII"}},
		{"default scope that is none", pin + `,"scope":"a","default_scope":"b"`, []string{"realm 'partners': client 'a': default scope 'b' is not one of the client's scopes; add it to them"}},
		{"reserved claim", pin + `,"claims":{"sub":"b"}`, []string{"realm 'partners': client 'a': claim 'sub' is reserved for the token itself; choose another name"}},
		{"reserved claim in capitals", pin + `,"claims":{"CNF":{"x5t#S256":"x"}}`, []string{"realm 'partners': client 'a': claim 'CNF' is reserved for the token itself; choose another name"}},
		{"bad claim name", pin + `,"claims":{"a b":"c"}`, []string{"realm 'partners': client 'a': claim 'a b': use only A-Z a-z 0-9 _ . - in its name"}},
		{"empty claim", pin + `,"claims":{"t":""}`, []string{"realm 'partners': client 'a': claim t is empty; remove it or give it a value"}},
		{"comma in the scopes", pin + `,"scope":"api1, api2"`, []string{"realm 'partners': client 'a': scope 'api1,' ends with a comma; separate scopes by spaces alone"}},
		{"short lifetime", pin + `,"token_lifetime":"10ms"`, []string{"realm 'partners': client 'a': token_lifetime 10ms is too short; use at least 1s"}},
		{"negative lifetime", pin + `,"token_lifetime":-1`, []string{"realm 'partners': client 'a': token_lifetime -1ns is too short; use at least 1s"}},
		{"another grant", pin + `,"grant_types":["authorization_code"]`, []string{"realm 'partners': client 'a': grant_types", "lack client_credentials"}},
		{"another method", pin + `,"token_endpoint_auth_method":"client_secret_basic"`, []string{"realm 'partners': client 'a': token_endpoint_auth_method 'client_secret_basic' is not supported; use tls_client_auth or self_signed_tls_client_auth"}},
		{"missing certificate file", `"x509_certificate_files":"DIR/nowhere.pem"`, []string{"realm 'partners': client 'a': certificate 'DIR/nowhere.pem': stat DIR/nowhere.pem: no such file"}},
		{"certificate file in DER", `"x509_certificate_files":"DIR/ca.der"`, []string{"realm 'partners': client 'a': certificate 'DIR/ca.der': contains no PEM certificate; it is DER, so convert it with 'openssl x509 -inform der"}},
		{"certificate file in UTF-16", `"x509_certificate_files":"DIR/utf16.pem"`, []string{"certificate 'DIR/utf16.pem': contains no PEM certificate; it is UTF-16 text"}},
		{"empty certificate file", `"x509_certificate_files":"DIR/empty.pem"`, []string{"realm 'partners': client 'a': certificate 'DIR/empty.pem': contains no PEM certificate; put the client's certificate there, in PEM"}},
		{"certificate file with a key", `"x509_certificate_files":"DIR/client.key"`, []string{"realm 'partners': client 'a': certificate 'DIR/client.key': ", "keep only the certificate"}},
		{"certificate file with a chain in reverse", `"x509_certificate_files":"DIR/caleaf.pem"`, []string{"realm 'partners': client 'a': certificate 'DIR/caleaf.pem': line ", "contains several certificates that are not of CAs; keep the client's own, with or without its chain"}},
		{"certificate that does not parse", `"x509_certificate_files":"DIR/broken.pem"`, []string{"realm 'partners': client 'a': certificate 'DIR/broken.pem': line 2: invalid certificate: its octets are not a certificate in DER, or not all of one; copy it again"}},
	})
}

// TestLoadRegistry checks which settings two clients must not share.
func TestLoadRegistry(t *testing.T) {
	wrap := func(list string) string {
		return `{"apps":{"mtls":{"realms":{"partners":{"trust_pool":{"provider":"file","pem_files":["DIR/ca.pem"]},"clients":[` + list + `]}}}}}`
	}
	checkLoadErrors(t, loadJSON, wrap, []loadTest{
		{"client_id twice", `{"client_id":"a","x509_thumbprints":"SHA256"},{"client_id":"a","x509_thumbprints":"OTHER256"}`, []string{"realm 'partners': client 'a' is twice in config; keep one"}},
		{"no client_id", `{"x509_thumbprints":"SHA256"}`, []string{"realm 'partners': client_id is empty; name the client"}},
		{"null for a client", `null`, []string{"client record: not a JSON object"}},
		{
			"one thumbprint in two spellings", `{"client_id":"a","x509_thumbprints":"SHA256"},{"client_id":"b","x509_thumbprints":"vKDQQIR_hDxe4PputJSDdHAVWGi8oNBAhH-EPF7g-m4"}`,
			[]string{"realm 'partners': client 'b': thumbprint 'SHA256' is also a credential of client 'a'; remove it from one of them, or set shared_credential in both"},
		},
		{
			"one subject in two spellings", `{"client_id":"a","tls_client_auth_subject_dn":"CN=X,O=Company"},{"client_id":"b","tls_client_auth_subject_dn":"cn=x , o=company"}`,
			[]string{"realm 'partners': client 'b': subject 'CN=x,O=company' is also a credential of client 'a'; remove it from one of them"},
		},
		{
			"one certificate as a file and a file", `{"client_id":"a","x509_certificate_files":"DIR/client.pem"},{"client_id":"b","x509_certificate_files":"DIR/client.pem"}`,
			[]string{"realm 'partners': client 'b': certificate '", "' is also a credential of client 'a'; remove it from one of them"},
		},
		{
			"shared by one of them only", `{"client_id":"a","shared_credential":true,"x509_thumbprints":"SHA256"},{"client_id":"b","x509_thumbprints":"SHA256"}`,
			[]string{"realm 'partners': client 'b': thumbprint 'SHA256' is also a credential of client 'a'", "or set shared_credential in both"},
		},
		{
			"shared by two of three", `{"client_id":"a","shared_credential":true,"x509_thumbprints":"SHA256"},{"client_id":"b","shared_credential":true,"x509_thumbprints":"SHA256"},{"client_id":"c","x509_thumbprints":"SHA256"}`,
			[]string{"realm 'partners': client 'c': thumbprint 'SHA256' is also a credential of client 'a'"},
		},
	})
	for name, list := range map[string]string{
		"shared by both":       `{"client_id":"a","shared_credential":true,"x509_thumbprints":"SHA256"},{"client_id":"b","shared_credential":true,"x509_thumbprints":"SHA256"}`,
		"twice in one client":  `{"client_id":"a","x509_thumbprints":["SHA256","vKDQQIR_hDxe4PputJSDdHAVWGi8oNBAhH-EPF7g-m4"]}`,
		"a subject in reverse": `{"client_id":"a","tls_client_auth_subject_dn":"CN=x,O=y"},{"client_id":"b","tls_client_auth_subject_dn":"O=y,CN=x"}`,
		"informational members": `{"client_id":"a","client_name":"A","client_uri":"https://a.example","logo_uri":"https://a.example/logo","contacts":["a@example.com"],` +
			`"tos_uri":"https://a.example/tos","policy_uri":"https://a.example/policy","software_id":"x","software_version":"1","x509_thumbprints":"SHA256"}`,
	} {
		if result := loadJSON(t, fillLoadTest(strings.ReplaceAll(loadFiles(t), `\`, `/`), wrap(list))); result.err != nil {
			t.Errorf("%s: %v", name, result.err)
		}
	}
}

// TestLoadRealm checks mistakes in realms in JSON, which no adapter has checked.
func TestLoadRealm(t *testing.T) {
	wrap := func(realms string) string { return `{"apps":{"mtls":{"realms":{` + realms + `}}}}` }
	checkLoadErrors(t, loadJSON, wrap, []loadTest{
		{"null", `"partners":null`, []string{"realm 'partners' is null; give it clients or remove it"}},
		{"bad name", `"Partners":{}`, []string{`realm 'Partners': realm name "Partners" contains 'P'; use a-z, 0-9 and hyphens`}},
		{"empty name", `"":{}`, []string{"realm '': realm name '' has 0 characters; use 1 to 63"}},
		{"long name", `"` + strings.Repeat("a", 64) + `":{}`, []string{"has 64 characters; use 1 to 63"}},
		{"unknown member", `"partners":{"client":[]}`, []string{`unknown field "client"`}},
		{"revocation without a source", `"partners":{"revocation":{}}`, []string{"realm 'partners': revocation: it names no source; add crl, ocsp or deny"}},
		{"CRL without a trust pool", `"partners":{"revocation":{"crl":["a.crl"]}}`, []string{"realm 'partners': revocation: crl and ocsp check chains, but the realm has no trust_pool; add one, or use deny alone"}},
		{"missing deny file", `"partners":{"revocation":{"deny":"/nonexistent/deny"}}`, []string{"realm 'partners': revocation: deny file: ", "no such file"}},
		{"unset deny file", `"partners":{"revocation":{"deny":"{env.MTLS_TEST_UNSET}"}}`, []string{"realm 'partners': revocation: deny '{env.MTLS_TEST_UNSET}': "}},
		{"source of clients that does not exist", `"partners":{"clients_from":[{"source":"nowhere"}]}`, []string{"realm 'partners': clients_from: ", "mtls.clients.nowhere"}},
		{"on_bad_record that does not exist", `"partners":{"clients_from":[{"source":"storage","on_bad_record":"ignore"}]}`, []string{"realm 'partners': clients_from: ", "on_bad_record 'ignore': unknown word; use refuse or skip"}},
		{"clients in storage twice", `"partners":{"clients_from":[{"source":"storage"},{"source":"storage"}]}`, []string{"clients are read from storage twice; keep one"}},
		{"source of clients without a module", `"partners":{"clients_from":[{}]}`, []string{"realm 'partners': clients_from: ", "source"}},
		{"source of clients without a file", `"partners":{"clients_from":[{"source":"file"}]}`, []string{"realm 'partners': clients_from: ", "no file is named; add one"}},
		{"source of clients that names a file twice", `"partners":{"clients_from":[{"source":"file","files":["DIR/clients.json","DIR/clients.json"]}]}`, []string{"clients are read from file:DIR/clients.json twice; keep one"}},
		{"unknown on_bad_record of a source of clients", `"partners":{"clients_from":[{"source":"file","files":["a"],"on_bad_record":"ignore"}]}`, []string{"realm 'partners': clients_from: ", "on_bad_record 'ignore': unknown word; use refuse or skip"}},
		{"clients behind a URL without one", `"partners":{"clients_from":[{"source":"http"}]}`, []string{"realm 'partners': clients_from: ", "no URL; add one"}},
		{"clients behind an insecure URL", `"partners":{"clients_from":[{"source":"http","url":"http://a.example/"}]}`, []string{"realm 'partners': clients_from: ", "'http://a.example/' is not an https URL"}},
		{"clients behind a URL with a short refresh", `"partners":{"clients_from":[{"source":"http","url":"https://a.example/","refresh":-1}]}`, []string{"refresh -1ns is too short; use at least 1s"}},
		{"clients behind a URL with a short timeout", `"partners":{"clients_from":[{"source":"http","url":"https://a.example/","timeout":-1}]}`, []string{"timeout -1ns is too short; use at least 1s"}},
		{"clients behind a URL with a negative size", `"partners":{"clients_from":[{"source":"http","url":"https://a.example/","max_size":-1}]}`, []string{"max_size -1 is negative; use a number of bytes"}},
		{"clients behind a URL with an unset variable", `"partners":{"clients_from":[{"source":"http","url":"https://{env.MTLS_TEST_UNSET}/"}]}`, []string{"url 'an invalid URL': ", "is empty; set it"}},
		{"clients behind a URL with an unset header", `"partners":{"clients_from":[{"source":"http","url":"https://a.example/","headers":{"X-Key":"{env.MTLS_TEST_UNSET}"}}]}`, []string{"header X-Key: ", "is empty; set it"}},
		{"clients behind a URL with a bad header", `"partners":{"clients_from":[{"source":"http","url":"https://a.example/","headers":{"X-Key":"a\nb"}}]}`, []string{"header X-Key: its value is empty or has characters that a header cannot have"}},
		{"clients behind a URL with a header of another kind", `"partners":{"clients_from":[{"source":"http","url":"https://a.example/","headers":{"X Key":"a"}}]}`, []string{`header "X Key": it is not the name of a header`}},
		{"clients behind a URL with an unset copy", `"partners":{"clients_from":[{"source":"http","url":"https://a.example/","keep_copy":"{env.MTLS_TEST_UNSET}"}]}`, []string{"keep_copy '{env.MTLS_TEST_UNSET}': ", "is empty; set it"}},
		{"unknown member of a source of clients", `"partners":{"clients_from":[{"source":"file","file":"a"}]}`, []string{`unknown field "file"`}},
		{"storage without a module", `"partners":{"storage":{}}`, []string{"realm 'partners': storage: module name not specified"}},
		{"trust pool that is null", `"partners":{"trust_pool":null}`, []string{"realm 'partners': trust_pool: ", "provider"}},
		{"trust pool without a module", `"partners":{"trust_pool":{}}`, []string{"realm 'partners': trust_pool: ", "provider"}},
		{"trust pool of another kind", `"partners":{"trust_pool":{"provider":"nobody"}}`, []string{"realm 'partners': trust_pool: ", "nobody"}},
		{"issuer without a URL", `"partners":{"issuer":{}}`, []string{"realm 'partners': issuer: issuer '': not an https URL; use one like https://auth.example.com"}},
		{"unknown member of the issuer", `"partners":{"issuer":{"url":"https://a.example","lifetime":1}}`, []string{`unknown field "lifetime"`}},
	})
}
