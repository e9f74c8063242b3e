package config_test

import (
	"bytes"
	"crypto/x509/pkix"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// loadTest is a configuration that must not load. DIR stands for the folder of
// [loadFiles], SHA256 and SHA1 for a hash.
type loadTest struct {
	name string
	text string
	want []string
}

// fillLoadTest inserts the folder and the hashes into a text. AFTERCA is the number of
// the line after the last one of ca.pem.
func fillLoadTest(dir, text string) string {
	ca, _ := os.ReadFile(filepath.Join(dir, "ca.pem"))
	return strings.NewReplacer(
		"DIR", dir, "OTHER256", otherSHA256, "SHA256", someSHA256, "SHA1", someSHA1,
		"AFTERCA", strconv.Itoa(1+bytes.Count(ca, []byte("\n"))),
	).Replace(text)
}

// loadFiles returns a new folder with valid and invalid files.
func loadFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca, other := testpki.MustCA(t), testpki.MustCA(t, testpki.CommonName("Other Root CA"))
	leaf := testpki.MustIssue(t, ca, testpki.DNSNames("auth.example.com"))
	brokenDER := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for name, parts := range map[string][][]byte{
		"ca.pem":       {ca.PEM()},
		"other.pem":    {other.PEM()},
		"two.pem":      {ca.PEM(), other.PEM()},
		"client.pem":   {leaf.PEM()},
		"client.key":   {leaf.KeyPEM()},
		"caleaf.pem":   {ca.PEM(), leaf.PEM()},
		"empty.pem":    nil,
		"garbage.pem":  {[]byte("this is no certificate\n")},
		"leafonly.pem": {leaf.PEM()},
		"caonly.key":   {ca.KeyPEM()},
		"broken.pem":   {[]byte("# our CA\n"), brokenDER},
		"cut.pem":      {ca.PEM(), other.PEM()[:200]},
		"middle.pem":   {ca.PEM(), other.PEM()[:200], []byte("\n"), other.PEM()},
		"bom.pem":      {[]byte("\xef\xbb\xbf"), ca.PEM(), other.PEM()},
		"comment.pem":  {[]byte("# -----BEGIN CERTIFICATE-----\n# of old\n"), ca.PEM()},
		"empty.txt":    {[]byte("\n")},
		"ca.der":       {ca.Cert.Raw},
		"utf16.pem":    {[]byte("\xff\xfe-\x00-\x00")},

		"unreadable.pem":    {testpki.UnreadablePEM(t, testpki.NegativeSerial, "Old CA")},
		"oneunreadable.pem": {testpki.UnreadablePEM(t, testpki.NegativeSerial, "Old CA"), ca.PEM()},

		"http.txt":     {[]byte("http://a.example/")},
		"clients.json": {[]byte("[]")},
		"subject.txt":  {[]byte("CN=from file,O=company\n")},
		"nul.txt":      {[]byte("CN=a\x00b")},
	} {
		testtool.WriteTemp(t, dir, name, parts...)
	}
	return dir
}

// checkLoadErrors checks that each text is refused in the configuration that wrap
// makes of it.
func checkLoadErrors(t *testing.T, load func(*testing.T, string) loaded, wrap func(string) string, tests []loadTest) {
	t.Helper()
	dir := loadFiles(t)
	t.Setenv("MTLS_TEST_EMPTY", "")
	t.Setenv("MTLS_TEST_BLANK", "  ")
	if err := os.Unsetenv("MTLS_TEST_UNSET"); err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			result := load(t, fillLoadTest(dir, wrap(test.text)))
			want := make([]string, len(test.want))
			for i, text := range test.want {
				want[i] = fillLoadTest(dir, text)
			}
			testtool.WantError(t, result.err, want...)
			if _, err := os.Stat(result.storage); !os.IsNotExist(err) {
				t.Errorf("storage was written to (%v)", err)
			}
		})
	}
}

// inPartners returns a Caddyfile with these lines in a realm.
func inPartners(block string) string { return "{\n\tmtls partners {\n" + block + "\n\t}\n}\n" }

// TestLoadPlaceholders checks that {env.*} and {file.*} are expanded at provisioning,
// and that a missing value is an error instead of an empty value.
func TestLoadPlaceholders(t *testing.T) {
	checkLoadErrors(t, loadCaddyfile, inPartners, []loadTest{
		{
			"unset variable in a subject", "trust_pool file DIR/ca.pem\nclient a {\nsubject \"CN={env.MTLS_TEST_UNSET},O=company\"\n}",
			[]string{"realm 'partners': client 'a': subject 'CN={env.MTLS_TEST_UNSET},O=company': evaluated placeholder {env.MTLS_TEST_UNSET} is empty; set it, or write the value itself"},
		},
		{
			"variable of spaces in a subject", "trust_pool file DIR/ca.pem\nclient a {\nsubject \"CN={env.MTLS_TEST_BLANK},O=company\"\n}",
			[]string{"realm 'partners': client 'a': subject 'CN=  ,O=company': ", "the value of CN is empty; write one, leave the attribute out, or set the variable it comes from"},
		},
		{
			"empty variable in a thumbprint", "client a {\nthumbprint {env.MTLS_TEST_EMPTY}\n}",
			[]string{"realm 'partners': client 'a': thumbprint '{env.MTLS_TEST_EMPTY}': evaluated placeholder {env.MTLS_TEST_EMPTY} is empty; set it"},
		},
		{
			"empty file in a thumbprint", "client a {\nthumbprint {file.DIR/empty.txt}\n}",
			[]string{"realm 'partners': client 'a': thumbprint '{file.DIR/empty.txt}': evaluated placeholder {file.DIR/empty.txt} is empty; set it"},
		},
		{
			"file with NUL in a subject", "trust_pool file DIR/ca.pem\nclient a {\nsubject {file.DIR/nul.txt}\n}",
			[]string{"realm 'partners': client 'a': client record: tls_client_auth_subject_dn: invalid character in a string: it contains NUL (\\u0000); remove it"},
		},
		{
			"missing file in a certificate", "client a {\ncertificate {file.DIR/nowhere}\n}",
			[]string{"realm 'partners': client 'a': certificate '{file.DIR/nowhere}': evaluated placeholder {file.DIR/nowhere} is empty; set it"},
		},
		{
			"unset variable in jwks", "client a {\njwks {env.MTLS_TEST_UNSET}\n}",
			[]string{"realm 'partners': client 'a': jwks '{env.MTLS_TEST_UNSET}': ", "is empty; set it"},
		},
		{
			"unset variable in the URL of a jwks", "client a {\njwks https://{env.MTLS_TEST_UNSET}/jwks.json\n}",
			[]string{"realm 'partners': client 'a': jwks 'https://{env.MTLS_TEST_UNSET}/jwks.json': ", "is empty; set it"},
		},
		{
			"jwks that turns out not to be secure", "client a {\njwks {file.DIR/http.txt}\n}",
			[]string{"realm 'partners': client 'a': jwks_uri: 'http://a.example/' is not an https URL"},
		},
		{
			"unset variable in clients_from", "clients_from file {env.MTLS_TEST_UNSET}",
			[]string{"realm 'partners': clients_from: ", "file '{env.MTLS_TEST_UNSET}': ", "is empty; set it"},
		},
		{
			"missing file in clients_from", "clients_from file DIR/nowhere.json",
			[]string{"realm 'partners': clients from file:DIR/nowhere.json: stat DIR/nowhere.json: no such file"},
		},
		{
			"file in clients_from of another kind", "clients_from file DIR/client.pem",
			[]string{"realm 'partners': clients from file:DIR/client.pem: line 1: it is not a JSON array; write the records as ["},
		},
		{
			"empty file in clients_from", "clients_from file DIR/empty.pem",
			[]string{"realm 'partners': clients from file:DIR/empty.pem: line 1: it is not a JSON array"},
		},
		{
			"one file in two clients_from", "clients_from file DIR/clients.json\nclients_from file DIR/clients.json",
			[]string{"realm 'partners': clients are read from file:DIR/clients.json twice; keep one"},
		},
		{
			"unset variable in issued_by", "trust_pool file DIR/ca.pem\nclient a {\nthumbprint SHA256\nissued_by {env.MTLS_TEST_UNSET}\n}",
			[]string{"realm 'partners': client 'a': issued_by '{env.MTLS_TEST_UNSET}': ", "is empty; set it"},
		},
		{
			"unset variable in a claim", "client a {\nthumbprint SHA256\nclaim tenant {env.MTLS_TEST_UNSET}\n}",
			[]string{"realm 'partners': client 'a': claim tenant '{env.MTLS_TEST_UNSET}': ", "is empty; set it"},
		},
		{
			"placeholder of a request", "client a {\nthumbprint {http.request.host}\n}",
			[]string{"realm 'partners': client 'a': thumbprint '{http.request.host}': unrecognized placeholder {http.request.host}; set it"},
		},
		{
			"unset variable in the issuer", "issuer {env.MTLS_TEST_UNSET}",
			[]string{"realm 'partners': issuer: url '{env.MTLS_TEST_UNSET}': ", "is empty; set it"},
		},
		{
			"unset variable in signing_key", "issuer https://a.example {\nsigning_key {env.MTLS_TEST_UNSET}\n}",
			[]string{"realm 'partners': issuer: signing_key '{env.MTLS_TEST_UNSET}': ", "is empty; set it"},
		},
		{
			"unset variable in mtls_alias", "issuer https://a.example {\nmtls_alias {env.MTLS_TEST_UNSET}\n}",
			[]string{"realm 'partners': issuer: mtls_alias '{env.MTLS_TEST_UNSET}': ", "is empty; set it"},
		},
		{
			"unset variable in an audience", "issuer https://a.example {\naudience api {env.MTLS_TEST_UNSET}\n}",
			[]string{"realm 'partners': issuer: audience '{env.MTLS_TEST_UNSET}': ", "is empty; set it"},
		},
		{
			"unset variable in a resource", "issuer https://a.example {\nresource {env.MTLS_TEST_UNSET} {\nscopes a\n}\n}",
			[]string{"realm 'partners': issuer: resource '{env.MTLS_TEST_UNSET}': ", "is empty; set it"},
		},
		{
			"value that does not fit", "client a {\nthumbprint {file.DIR/subject.txt}\n}",
			[]string{"realm 'partners': client 'a': thumbprint 'CN=from file,O=company': ", "write only the part after '='"},
		},
	})
}

// TestLoadResolvesPlaceholders checks that the values of placeholders are used.
func TestLoadResolvesPlaceholders(t *testing.T) {
	r := rig.New(t)
	job := r.Issue("job", testpki.Subject(pkix.Name{CommonName: "from file", Organization: []string{"company"}}))
	pinned, filed := r.SelfSigned("pinned"), r.SelfSigned("filed")
	r.Write("subject.txt", []byte("CN=from file,O=company\n"))
	t.Setenv("MTLS_TEST_THUMBPRINT", testpki.HashOf(pinned.Cert.Raw))
	t.Setenv("MTLS_TEST_FOLDER", r.Dir)
	t.Setenv("MTLS_TEST_TENANT", "acme {not a placeholder}")
	r.Change = func(config map[string]any) {
		for _, client := range rig.Member(t, config, "apps", "mtls", "realms", "default")["clients"].([]any) {
			if claims, ok := client.(map[string]any)["claims"].(map[string]any); ok {
				claims["n"], claims["list"] = 7, []string{"{env.MTLS_TEST_TENANT}"}
			}
		}
	}
	r.Start(`mtls {
		trust_pool file @DIR@/clients-ca.pem
		client a {
			subject {file.@DIR@/subject.txt}
			claim tenant {env.MTLS_TEST_TENANT}
		}
		client b {
			thumbprint {env.MTLS_TEST_THUMBPRINT}
			certificate {env.MTLS_TEST_FOLDER}/filed.pem
		}
	}
	`, `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		header_up X-Client-ID {http.mtls.client_id}
		header_up X-Tenant    {http.mtls.claim.tenant}
		header_up X-N         {http.mtls.claim.n}
		header_up X-List      {http.mtls.claim.list}
	}
	reverse_proxy @UP@
}
`)
	got := r.Caller(t, "h2", job).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "a")
	for name, want := range map[string]string{"X-Tenant": "acme {not a placeholder}", "X-N": "7", "X-List": `["{env.MTLS_TEST_TENANT}"]`} {
		if value := got.Seen.Header.Get(name); value != want {
			t.Errorf("%s: %q, want %q", name, value, want)
		}
	}
	for _, leaf := range []*testpki.Leaf{pinned, filed} {
		r.Caller(t, "h2", leaf).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "b")
	}
}

// TestValidateChangesNothing checks that provisioning creates no signing keys and no
// files, because `caddy validate` provisions too.
func TestValidateChangesNothing(t *testing.T) {
	dir := loadFiles(t)
	folder := t.TempDir()
	t.Chdir(folder)
	result := loadCaddyfile(t, fillLoadTest(dir, `{
	auto_https off
	mtls {
		trust_pool file DIR/ca.pem
		client a {
			subject CN=a
		}
		issuer https://auth.example.com
	}
}

https://auth.example.com {
	tls DIR/client.pem DIR/client.key {
		client_auth {
			mode request
		}
	}
	mtls_issuer
	mtls_auth
}
`))
	if result.err != nil {
		t.Fatal(result.err)
	}
	if warnings := result.warnings(); len(warnings) > 0 {
		t.Errorf("warnings: %q", warnings)
	}
	if _, err := os.Stat(result.storage); !os.IsNotExist(err) {
		t.Errorf("storage was written to (%v)", err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) > 0 {
		t.Errorf("the working directory has %v (%v)", entries, err)
	}
}
