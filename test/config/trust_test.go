package config_test

import (
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestLoadWithoutTrustPool checks that PKI credentials need a trust pool.
func TestLoadWithoutTrustPool(t *testing.T) {
	checkLoadErrors(t, loadCaddyfile, inPartners, []loadTest{
		{
			"subject", "client a {\nthumbprint SHA256\nsubject CN=a,O=company\n}",
			[]string{"realm 'partners': client 'a': subject 'CN=a,O=company': the realm has no trust_pool, so any CA could issue this name; add one"},
		},
		{
			"second of two clients", "client a {\nthumbprint SHA256\n}\nclient b {\nsubject CN=b\n}",
			[]string{"realm 'partners': client 'b': subject 'CN=b': the realm has no trust_pool"},
		},
		{
			"require_chain", "client a {\nthumbprint SHA256\nrequire_chain\n}",
			[]string{"realm 'partners': client 'a': require_chain and issued_by need a trust_pool in the realm; add one or remove them"},
		},
		{
			"issued_by", "client a {\nthumbprint SHA256\nissued_by SHA256\n}",
			[]string{"realm 'partners': client 'a': require_chain and issued_by need a trust_pool in the realm; add one or remove them"},
		},
	})
	// a site's trust pool does not replace the realm's
	result := loadCaddyfile(t, fillLoadTest(loadFiles(t), `{
	auto_https off
	mtls {
		client a {
			subject CN=a
		}
	}
}

https://localhost {
	tls DIR/client.pem DIR/client.key {
		client_auth {
			trust_pool file DIR/ca.pem
		}
	}
	mtls_auth
}
`))
	testtool.WantError(t, result.err, "realm 'default': client 'a': subject 'CN=a': the realm has no trust_pool")
}

// TestLoadSystemPool checks that PKI credentials under the system's CAs need
// issued_by.
func TestLoadSystemPool(t *testing.T) {
	checkLoadErrors(t, loadCaddyfile, inPartners, []loadTest{{
		"no issued_by", "trust_pool system\nclient a {\nsubject CN=a\nissued_by SHA256\n}\nclient b {\nsubject CN=b\n}",
		[]string{"realm 'partners': client 'b': under trust_pool system any public CA could issue its name; add issued_by with the SHA-256 hash of the right CA"},
	}, {
		"shadow", "trust_pool file DIR/ca.pem\nshadow_trust_pool system\nclient b {\nsubject CN=b\n}",
		[]string{"realm 'partners': client 'b': under shadow_trust_pool system any public CA could issue its name; add issued_by"},
	}})
	for name, client := range map[string]string{
		"issued_by": "subject CN=a\nissued_by " + someSHA256,
		"pins only": "thumbprint " + someSHA256,
	} {
		if result := loadCaddyfile(t, inPartners("trust_pool system\nclient a {\n"+client+"\n}")); result.err != nil {
			t.Errorf("%s: %v", name, result.err)
		}
	}
}

// TestTrustPoolFiles_B4 checks that files without a CA and truncated files stop the
// load.
func TestTrustPoolFiles_B4(t *testing.T) {
	client := "\nclient a {\nsubject CN=a\n}"
	checkLoadErrors(t, loadCaddyfile, inPartners, []loadTest{
		{"missing", "trust_pool file DIR/nowhere.pem" + client, []string{"realm 'partners': trust_pool: stat DIR/nowhere.pem: no such file"}},
		{"a folder", "trust_pool file DIR" + client, []string{"realm 'partners': trust_pool: DIR is not a regular file"}},
		{"empty", "trust_pool file DIR/empty.pem" + client, []string{"realm 'partners': trust_pool: file 'DIR/empty.pem' has no PEM certificate; put the CA certificate there, in PEM"}},
		{"DER", "trust_pool file DIR/ca.der" + client, []string{"realm 'partners': trust_pool: file 'DIR/ca.der' has no PEM certificate; it is DER, so convert it with 'openssl x509 -inform der -in <file> -out <new-file>'"}},
		{"UTF-16", "trust_pool file DIR/utf16.pem" + client, []string{"file 'DIR/utf16.pem' has no PEM certificate; it is UTF-16 text, which PowerShell writes by default, so save it as ASCII"}},
		{"garbage", "trust_pool file DIR/garbage.pem" + client, []string{"realm 'partners': trust_pool: file 'DIR/garbage.pem' has no PEM certificate; put the CA certificate there"}},
		{"no CA among the certificates", "trust_pool file DIR/leafonly.pem" + client, []string{"realm 'partners': trust_pool: file 'DIR/leafonly.pem' has only end-entity certificates, so no chain can verify; replace them with the CA that issued them, or pin them with 'certificate' in a client"}},
		{"key only", "trust_pool file DIR/caonly.key" + client, []string{`realm 'partners': trust_pool: file 'DIR/caonly.key' holds a PEM block "PRIVATE KEY" but no certificate; put the CA certificate there`}},
		{"certificate that does not parse", "trust_pool file DIR/broken.pem" + client, []string{"realm 'partners': trust_pool: file 'DIR/broken.pem', line 2: invalid certificate: its octets are not a certificate in DER, or not all of one; copy it again"}},
		{"cut off", "trust_pool file DIR/cut.pem" + client, []string{"realm 'partners': trust_pool: file 'DIR/cut.pem', line AFTERCA: a PEM block is damaged, cut off or indented; copy it again"}},
		{"damaged in the middle", "trust_pool file DIR/middle.pem" + client, []string{"realm 'partners': trust_pool: file 'DIR/middle.pem', line AFTERCA: a PEM block is damaged, cut off or indented; copy it again"}},
		{"empty among good ones", "trust_pool file DIR/ca.pem DIR/empty.pem" + client, []string{"realm 'partners': trust_pool: file 'DIR/empty.pem' has no PEM certificate"}},
		{"garbage in a realm of pins", "trust_pool file DIR/garbage.pem\nclient a {\nthumbprint SHA256\n}", []string{"realm 'partners': trust_pool: file 'DIR/garbage.pem' has no PEM certificate"}},
		{
			"combined with an empty one", "trust_pool combined {\nsource file DIR/ca.pem\nsource file DIR/empty.pem\n}" + client,
			[]string{"realm 'partners': trust_pool: file 'DIR/empty.pem' has no PEM certificate; put the CA certificate there"},
		},
		{
			"combined in combined", "trust_pool combined {\nsource combined {\nsource file DIR/garbage.pem\n}\n}" + client,
			[]string{"realm 'partners': trust_pool: file 'DIR/garbage.pem' has no PEM certificate"},
		},
		{
			"combined with nothing", "trust_pool combined {\nsource combined {\nsource storage {\nkeys ca.pem\n}\n}\n}" + client,
			[]string{"realm 'partners': trust_pool: ", "storage key 'ca.pem': "},
		},
		{"shadow without a trust pool", "shadow_trust_pool file DIR/ca.pem\nclient a {\nthumbprint SHA256\n}", []string{"realm 'partners': shadow_trust_pool: the realm has no trust_pool to compare it with; add one, or use it as the trust_pool"}},
		{"shadow missing", "trust_pool file DIR/ca.pem\nshadow_trust_pool file DIR/nowhere.pem" + client, []string{"realm 'partners': shadow_trust_pool: stat DIR/nowhere.pem: no such file"}},
		{"shadow garbage", "trust_pool file DIR/ca.pem\nshadow_trust_pool file DIR/garbage.pem" + client, []string{"realm 'partners': shadow_trust_pool: file 'DIR/garbage.pem' has no PEM certificate"}},
		{"shadow cut off", "trust_pool file DIR/ca.pem\nshadow_trust_pool file DIR/cut.pem" + client, []string{"realm 'partners': shadow_trust_pool: file 'DIR/cut.pem', line AFTERCA: a PEM block is damaged"}},
		{"inline that does not parse", "trust_pool inline {\ntrust_der AAAA\n}" + client, []string{"realm 'partners': trust_pool: "}},
		{"unreadable alone", "trust_pool file DIR/unreadable.pem" + client, []string{"realm 'partners': trust_pool: file 'DIR/unreadable.pem' has no CA certificate that can be read; line 1: invalid certificate 'CN=Old CA': its serial number is negative, which RFC 5280 §4.1.2.2 forbids; have its CA issue it again"}},
		{"fetch missing", "fetch {\ntrust_pool file DIR/nowhere.pem\n}" + client, []string{"realm 'partners': fetch trust_pool: stat DIR/nowhere.pem: no such file"}},
		{"fetch unreadable", "fetch {\ntrust_pool file DIR/unreadable.pem\n}" + client, []string{"realm 'partners': fetch trust_pool: file 'DIR/unreadable.pem' has no CA certificate that can be read"}},
		{"storage that is empty", "trust_pool storage {\nkeys ca.pem\n}" + client, []string{"realm 'partners': trust_pool: "}},
	})
	checkLoadErrors(t, loadJSON, func(pool string) string {
		return `{"apps":{"mtls":{"realms":{"partners":{"trust_pool":` + pool + `,"clients":[{"client_id":"a","tls_client_auth_subject_dn":"CN=a"}]}}}}}`
	}, []loadTest{
		{"placeholder", `{"provider":"file","pem_files":["{env.MTLS_TEST_UNSET}"]}`, []string{"realm 'partners': trust_pool: stat {env.MTLS_TEST_UNSET}: no such file", "; placeholders are not expanded here, so write {$NAME} for an environment variable"}},
		{"no file", `{"provider":"file","pem_files":[]}`, []string{"realm 'partners': trust_pool: it has no CA certificate, so no chain can verify; add one or remove trust_pool"}},
		{"nothing inline", `{"provider":"inline","trusted_ca_certs":[]}`, []string{"realm 'partners': trust_pool: it has no CA certificate"}},
		{"combined without sources", `{"provider":"combined"}`, []string{"realm 'partners': trust_pool: combined: it has no source; add one"}},
		{"combined with a word that is none", `{"provider":"combined","sources":[{"provider":"file","pem_files":["DIR/ca.pem"]}],"refresh":1}`, []string{"realm 'partners': trust_pool: combined: ", `unknown field "refresh"`}},
		{"combined with the system's", `{"provider":"combined","sources":[{"provider":"system"},{"provider":"file","pem_files":["DIR/ca.pem"]}]}`, []string{"realm 'partners': trust_pool: combined: module *caddytls.SystemCAPool does not disclose its certificates; it can only be used alone"}},
		{"null", `null`, []string{"realm 'partners': trust_pool: "}},
		{"a module that is no pool", `{"provider":"file","pem_files":["DIR/ca.pem"],"pem_file":"x"}`, []string{"realm 'partners': trust_pool: ", `unknown field "pem_file"`}},
	})

	dir := loadFiles(t)
	for name, pool := range map[string]string{
		"one CA":              "file DIR/ca.pem",
		"several files":       "file DIR/ca.pem DIR/other.pem",
		"commented-out CA":    "file DIR/comment.pem",
		"byte order mark":     "file DIR/bom.pem",
		"combined":            "combined {\nsource file DIR/ca.pem\nsource file DIR/other.pem\n}",
		"a CA of Caddy's":     "pki_root local",
		"two CAs in one file": "file DIR/two.pem",
		"refreshed":           "pki_root local\ntrust_pool_refresh 1m",
		"refreshed in part":   "combined {\nsource file DIR/ca.pem\nsource pki_intermediate local\n}\ntrust_pool_refresh 2h",
		"refreshed shadow":    "file DIR/ca.pem\nshadow_trust_pool pki_root local\ntrust_pool_refresh 5m",
		"unreadable in part":  "file DIR/oneunreadable.pem",
		"fetch":               "file DIR/ca.pem\nfetch {\ntrust_pool file DIR/leafonly.pem\n}",
		"shadow":              "file DIR/ca.pem\nshadow_trust_pool file DIR/two.pem",
	} {
		if result := loadCaddyfile(t, inPartners(fillLoadTest(dir, "trust_pool "+pool+client))); result.err != nil {
			t.Errorf("%s: %v", name, result.err)
		}
	}
}

// TestLoadTrustPoolRefresh checks that a refresh without effect is an error.
func TestLoadTrustPoolRefresh(t *testing.T) {
	const useless = "realm 'partners': trust_pool_refresh has no effect, because files are watched and inline certificates do not change; remove it"
	checkLoadErrors(t, loadCaddyfile, inPartners, []loadTest{
		{"files", "trust_pool file DIR/ca.pem\ntrust_pool_refresh 1h", []string{useless}},
		{"no trust pool", "trust_pool_refresh 1h\nclient a {\nthumbprint SHA256\n}", []string{useless}},
		{"files in combined", "trust_pool combined {\nsource file DIR/ca.pem\n}\nshadow_trust_pool file DIR/two.pem\ntrust_pool_refresh 1h", []string{useless}},
	})
	checkLoadErrors(t, loadJSON, func(members string) string {
		return `{"apps":{"mtls":{"realms":{"partners":{` + members + `}}}}}`
	}, []loadTest{
		{"too short", `"trust_pool":{"provider":"system"},"trust_pool_refresh":59000000000`, []string{"realm 'partners': trust_pool_refresh 59s is too short; use at least 1m"}},
		{"negative", `"trust_pool":{"provider":"system"},"trust_pool_refresh":-1`, []string{"realm 'partners': trust_pool_refresh -1ns is too short; use at least 1m"}},
		{"unknown module in the shadow", `"trust_pool":{"provider":"system"},"shadow_trust_pool":{"provider":"fil"}`, []string{"realm 'partners': shadow_trust_pool: loading module 'fil': unknown module: tls.ca_pool.source.fil"}},
	})
}

// TestLoadTrustWarnings checks warnings about trust that is broader than an operator
// may expect.
func TestLoadTrustWarnings(t *testing.T) {
	const warning = "trust pool has several CAs that can each issue the clients' names; add issued_by"
	dir := loadFiles(t)
	for _, test := range []struct {
		name, text string
		want       string // the clients in the warnings
	}{
		{"several CAs", "trust_pool file DIR/two.pem\nclient a {\nsubject CN=a\nissued_by SHA256\n}\nclient b {\nsubject CN=b\n}\nclient c {\nsubject CN=c\n}", "b c"},
		{"several files", "trust_pool file DIR/ca.pem DIR/other.pem\nclient a {\nsubject CN=a\n}", "a"},
		{"several sources", "trust_pool combined {\nsource file DIR/ca.pem\nsource file DIR/other.pem\n}\nclient a {\nsubject CN=a\n}", "a"},
		{"one CA", "trust_pool file DIR/ca.pem\nclient a {\nsubject CN=a\n}", ""},
		{"one CA twice", "trust_pool file DIR/ca.pem DIR/comment.pem\nclient a {\nsubject CN=a\n}", ""},
		{"all bound to an issuer", "trust_pool file DIR/two.pem\nclient a {\nsubject CN=a\nissued_by SHA256\n}", ""},
		{"pins only", "trust_pool file DIR/two.pem\nclient a {\nthumbprint SHA256\n}", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			result := loadCaddyfile(t, inPartners(fillLoadTest(dir, test.text)))
			if result.err != nil {
				t.Fatal(result.err)
			}
			var warned []string
			for _, line := range result.lines {
				if line["msg"] == warning {
					for _, id := range line["client_ids"].([]any) {
						warned = append(warned, id.(string))
					}
					if line["level"] != "warn" || line["realm"] != "partners" || line["cas"] != 2.0 || line["clients"] != float64(len(warned)) {
						t.Errorf("line %v", line)
					}
				}
			}
			if got := strings.Join(warned, " "); got != test.want {
				t.Errorf("warnings name %q, want %q", got, test.want)
			}
		})
	}
}
