package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// countWarnings returns how many warnings begin with this text.
func (l loaded) countWarnings(beginning string) int {
	n := 0
	for _, message := range l.warnings() {
		if strings.HasPrefix(message, beginning) {
			n++
		}
	}
	return n
}

// wantWarnings checks that loading succeeded with exactly these warnings.
func wantWarnings(t *testing.T, result loaded, want ...string) {
	t.Helper()
	if result.err != nil {
		t.Fatal(result.err)
	}
	if got := result.warnings(); !slices.Equal(got, want) {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLoadClientWarnings(t *testing.T) {
	wantWarnings(t, loadCaddyfile(t, inPartners("client a {\nthumbprint "+someSHA256+"\nthumbprint "+someSHA1+"\n}")),
		"client 'a': thumbprint '"+someSHA1+"' is SHA-1, which can be forged; replace it with the SHA-256 thumbprint")
	wantWarnings(t, loadCaddyfile(t, inPartners("client a {\nthumbprint "+someSHA256+"\n}")))
	wantWarnings(t, loadCaddyfile(t, inPartners("client a {\nthumbprint "+someSHA256+" until 2020-01-31T12:00:00Z\n}")),
		"client 'a': thumbprint '"+someSHA256+"' ended at 2020-01-31T12:00:00Z; remove it")
	// many of a kind are one warning
	many, ended := "", ""
	for i := range 12 {
		many += fmt.Sprintf("client c%d {\nthumbprint %039d%x\nthumbprint %038da%x\n}\n", i, 1, i, 1, i)
		ended += fmt.Sprintf("client c%d {\nthumbprint %063d%x until 2020-01-31T12:00:00Z\n}\n", i, 1, i)
	}
	const names = ": client 'c0', client 'c1', client 'c2', client 'c3', client 'c4', client 'c5', client 'c6', client 'c7', client 'c8', client 'c9', 2 more"
	wantWarnings(t, loadCaddyfile(t, inPartners(many)), "24 thumbprints are SHA-1, which can be forged; replace them with SHA-256 thumbprints"+names)
	wantWarnings(t, loadCaddyfile(t, inPartners(ended)), "12 credentials have ended; remove them"+names)
	wantWarnings(t, loadCaddyfile(t, inPartners("")),
		"realm has no clients; everyone is refused")
}

func TestLoadAllowWarnings(t *testing.T) {
	const warning = "allow matches no client"
	for allow, want := range map[string]int{
		`"a"`: 0, `"*"`: 0, `"a*"`: 0, `"sensor-*"`: 0,
		`"b"`: 1, `"A"`: 1, `"b*"`: 1, `"*-sensor"`: 1,
		`"a","b","c*"`: 2, // one for each entry without effect
	} {
		handler := `{"handler":"mtls_auth","allow":[` + allow + `]}`
		result := loadJSON(t, fillLoadTest("", `{"apps":{"mtls":{"realms":{"default":{"clients":[`+
			`{"client_id":"a","x509_thumbprints":"SHA256"},{"client_id":"sensor-7","x509_thumbprints":"OTHER256"}]}}},`+
			strings.Replace(oneServer(handler), `"routes"`, `"tls_connection_policies":[{"client_authentication":{"mode":"request"}}],"routes"`, 1)+`}}`))
		if result.err != nil {
			t.Fatal(result.err)
		}
		if got := result.countWarnings(warning); got != want {
			t.Errorf("allow %s: %d warnings, want %d", allow, got, want)
		}
		for _, line := range result.lines {
			if line["msg"] == warning && (line["realm"] != "default" || !strings.Contains(allow, line["allow"].(string))) {
				t.Errorf("line %v", line)
			}
		}
	}
}

// TestLoadHeaderWarnings checks the warnings about headers that tell the upstream
// nothing.
func TestLoadHeaderWarnings(t *testing.T) {
	const noID, noClaim = "header_up does not send the client id", "header_up sends a claim that no client has"
	for members, want := range map[string][]string{
		``: nil,
		`,"header_up":{"X-A":"{http.mtls.client_id}"}`:                                    nil,
		`,"header_up":{"X-A":"id={http.auth.user.id}","X-B":"{http.mtls.claim.tenant}"}`:  nil,
		`,"header_up":{"X-B":"{http.mtls.scope}"},"forward_certificate":{}`:               nil,
		`,"header_up":{"X-A":"{http.mtls.subject_legacy}"}`:                               nil,
		`,"header_up":{"X-A":"sha1:{http.mtls.fingerprint_sha1}"}`:                        nil,
		`,"header_up":{"X-B":"{http.mtls.scope}"}`:                                        {noID},
		`,"header_up":{"X-B":"{http.mtls.issuer} {http.mtls.not_after}"}`:                 {noID},
		`,"header_up":{"X-A":"{http.mtls.client_id}","X-B":"{http.mtls.claim.tennant}"}`:  {noClaim},
		`,"header_up":{"X-A":"{http.mtls.claim.other}","X-B":"{http.mtls.claim.tenant}"}`: {noID, noClaim},
	} {
		handler := `{"handler":"mtls_auth"` + members + `}`
		wantWarnings(t, loadJSON(t, fillLoadTest("", `{"apps":{"mtls":{"realms":{"default":{"clients":[`+
			`{"client_id":"a","x509_thumbprints":"SHA256","claims":{"tenant":"acme"}}]}}},`+
			strings.Replace(oneServer(handler), `"routes"`, `"tls_connection_policies":[{"client_authentication":{"mode":"request"}}],"routes"`, 1)+`}}`)), want...)
	}
}

// TestLoadAudienceWarnings checks the warning about an audience that no token has.
func TestLoadAudienceWarnings(t *testing.T) {
	const warning = "no token of the realm can have the audience"
	for _, test := range []struct {
		issuer, audience string
		want             []string
	}{
		{``, `"https://auth.example.com"`, nil},
		{``, `"https://api.example.com"`, []string{warning}},
		{`,"audience":["a","b"]`, `"a","b"`, nil},
		{`,"audience":["a"]`, `"a","https://auth.example.com"`, []string{warning}},
		{`,"resources":[{"name":"urn:r","scopes":["s"]}]`, `"urn:r"`, nil},
		{`,"resources":[{"name":"urn:r","scopes":["s"]}]`, `"urn:R"`, []string{warning}},
	} {
		handler := `{"handler":"mtls_bearer","audience":[` + test.audience + `]},{"handler":"mtls_issuer"}`
		result := loadJSON(t, fillLoadTest("", `{"apps":{"mtls":{"realms":{"default":{"issuer":{"url":"https://auth.example.com"`+test.issuer+`},"clients":[`+
			`{"client_id":"a","x509_thumbprints":"SHA256"}]}}},`+
			strings.Replace(oneServer(handler), `"routes"`, `"tls_connection_policies":[{"client_authentication":{"mode":"request"}}],"routes"`, 1)+`}}`))
		if result.err != nil || result.countWarnings(warning) != len(test.want) {
			t.Errorf("%s, audience %s: %v, warnings %q", test.issuer, test.audience, result.err, result.warnings())
		}
	}
}

func TestLoadScopeWarnings(t *testing.T) {
	const warning = "require_scope matches no client"
	for scopes, want := range map[string]int{`"api1"`: 0, `"api1","api2"`: 0, `"API1"`: 1, `"api","api1","api3"`: 2} {
		handler := `{"handler":"mtls_auth","require_scope":[` + scopes + `]}`
		result := loadJSON(t, fillLoadTest("", `{"apps":{"mtls":{"realms":{"default":{"clients":[`+
			`{"client_id":"a","scope":"api1","x509_thumbprints":"SHA256"},{"client_id":"b","scope":"api2","x509_thumbprints":"OTHER256"}]}}},`+
			strings.Replace(oneServer(handler), `"routes"`, `"tls_connection_policies":[{"client_authentication":{"mode":"request"}}],"routes"`, 1)+`}}`))
		if result.err != nil {
			t.Fatal(result.err)
		}
		if got := result.countWarnings(warning); got != want {
			t.Errorf("require_scope %s: %d warnings, want %d", scopes, got, want)
		}
	}
}

// TestLoadClientAuthWarning checks the warning about a server that does not request
// client certificates.
func TestLoadClientAuthWarning(t *testing.T) {
	const silent = "site requests no client certificates; add 'tls { client_auth { mode request } }'"
	policy := func(text string) string { return `"tls_connection_policies":[` + text + `],"routes"` }
	for _, test := range []struct {
		name, server string
		want         string
	}{
		{"no TLS", `"routes"`, "plain HTTP has no client certificates; serve the site over HTTPS"},
		{"TLS without client certificates", policy(`{}`), silent},
		{"client_authentication that is empty", policy(`{"client_authentication":{}}`), silent},
		{"mode request", policy(`{"client_authentication":{"mode":"request"}}`), ""},
		{"another site", policy(`{"match":{"sni":["b.example"]},"client_authentication":{"mode":"require"}},{}`), silent},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := withHandler(`{"handler":"mtls_auth","realm":"partners"},{"handler":"mtls_auth","realm":"partners","optional":true}`)
			result := loadJSON(t, fillLoadTest("", strings.Replace(config, `"routes"`, test.server, 1)))
			if result.err != nil {
				t.Fatal(result.err)
			}
			var want []string
			if test.want != "" {
				want = []string{test.want} // once, for both directives
			}
			wantWarnings(t, result, want...)
		})
	}
}

// TestLoadAliasWarning checks that with mtls_alias only the alias's site must request
// certificates.
func TestLoadAliasWarning(t *testing.T) {
	const warning = "site requests no client certificates"
	const asks = "tls internal {\nclient_auth {\nmode request\n}\n}\n"
	for _, test := range []struct {
		name, alias, certificates string
		want                      int
	}{
		{"no alias", "", "", 2},
		{"alias at another port", "https://mtls.example.com:8443", asks, 0},
		{"alias that asks nobody", "https://mtls.example.com:8443", "", 1},
		{"alias at the same port", "https://mtls.example.com", asks, 0},
		{"alias at the same port that asks nobody", "https://mtls.example.com", "", 1},
		{"alias at a port that is mapped to another", "https://mtls.example.com:9443", "", 1},
		{"alias at another port of the issuer's host", "https://auth.example.com:8443", "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			options, site := "", "https://mtls.example.com:8443"
			if test.alias != "" {
				options = " {\nmtls_alias " + test.alias + "\n}"
			}
			if test.alias == "https://mtls.example.com" {
				site = test.alias
			}
			result := loadCaddyfile(t, fillLoadTest("", `{
	auto_https off
	mtls {
		client a {
			thumbprint bca0d040847f843c5ee0fa6eb494837470155868
		}
		issuer https://auth.example.com`+options+`
	}
}
https://auth.example.com {
	mtls_issuer
}
`+site+` {
	`+test.certificates+`mtls_issuer
}
`))
			if result.err != nil {
				t.Fatal(result.err)
			}
			if got := result.countWarnings(warning); got != test.want {
				t.Errorf("%d warnings, want %d", got, test.want)
			}
		})
	}
}

// TestLoadIssuerWarning checks the warning about an issuer's site that requires a
// certificate even to read metadata and keys.
func TestLoadIssuerWarning(t *testing.T) {
	const warning = "issuer's site requires a certificate for metadata and keys; use 'mode request' or mtls_alias"
	dir := loadFiles(t)
	for _, test := range []struct {
		name, auth string
		want       int
	}{
		{"mode request", "client_auth {\nmode request\n}", 0},
		{"mode verify_if_given", "client_auth {\nmode verify_if_given\ntrust_pool file DIR/ca.pem\n}", 0},
		{"mode require", "client_auth {\nmode require\n}", 1},
		{"mode require_and_verify", "client_auth {\nmode require_and_verify\ntrust_pool file DIR/ca.pem\n}", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			result := loadCaddyfile(t, fillLoadTest(dir, `{
	auto_https off
	mtls {
		client a {
			thumbprint SHA256
		}
		issuer https://auth.example.com
	}
}

https://auth.example.com {
	tls DIR/client.pem DIR/client.key {
		`+test.auth+`
	}
	mtls_issuer
}

https://api.example.com {
	tls DIR/client.pem DIR/client.key {
		client_auth {
			mode require
		}
	}
	mtls_auth
}
`))
			if result.err != nil {
				t.Fatal(result.err)
			}
			if got := result.countWarnings(warning); got != test.want {
				t.Errorf("%d warnings, want %d: %q", got, test.want, result.warnings())
			}
		})
	}
}
