package command_test

import (
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/storagesource"
	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const explainedConfig = `{
	admin off
	storage file_system "DIR/storage"
	log {
		output file "DIR/caddy.log"
	}
	pki {
		ca local {
			root {
				cert "DIR/ca.pem"
				key "DIR/ca.key"
			}
		}
	}
	mtls {
		trust_pool file "DIR/ca.pem"
		client billing.partner {
			subject "CN=billing, O=Partner"
			scopes invoices.read invoices.write
			default_scopes invoices.read
			resources https://api.example.com
			introspect https://api.example.com
		}
		client sensor {
			certificate "DIR/sensor.pem"
		}
		client workload {
			san_uri spiffe://prod.example/ns/*/job
		}
		client off {
			subject CN=off
			disabled
		}
		client until {
			thumbprint "UNTIL until 2101-01-01T00:00:00Z"
		}
		issuer https://auth.example.com {
			signing_key "DIR/nobody-may-read-this.pem"
			resource https://api.example.com
		}
	}
	mtls other {
		client b {
			thumbprint SOME
		}
	}
}

https://auth.example.com {
	tls "DIR/no-such.pem" "DIR/no-such.key"
	mtls_issuer
}
`

// explaining is a folder with a configuration and certificates to ask about.
type explaining struct {
	t      *testing.T
	dir    string
	ca     *testpki.CA
	sensor *testpki.Leaf
	until  *testpki.Leaf
	config string
}

func newExplaining(t *testing.T) *explaining {
	x := &explaining{t: t, dir: filepath.ToSlash(t.TempDir()), ca: testpki.MustCA(t)}
	writeFile(t, x.dir, "ca.pem", x.ca.PEM())
	writeFile(t, x.dir, "ca.key", x.ca.KeyPEM())
	x.sensor = testpki.MustSelfSigned(t, testpki.CommonName("sensor"))
	x.write("sensor", x.sensor)
	x.until = testpki.MustSelfSigned(t, testpki.CommonName("until"), testpki.Validity(time.Now().Add(-time.Hour), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)))
	x.write("until", x.until)
	text := strings.NewReplacer("DIR", x.dir, "UNTIL", hashOf(x.until.Cert.Raw), "SOME", hashOf([]byte("some certificate"))).Replace(explainedConfig)
	x.config = writeFile(t, x.dir, "Caddyfile", []byte(text))
	return x
}

func (x *explaining) write(name string, leaf *testpki.Leaf) {
	writeFile(x.t, x.dir, name+".pem", leaf.ChainPEM())
}

func (x *explaining) ask(certificate string, args ...string) (string, error) {
	x.t.Helper()
	return run(x.t, strings.NewReader(""), append([]string{"explain", "--config", x.config, filepath.Join(x.dir, certificate+".pem")}, args...)...)
}

func partner(name string) testpki.Option {
	return testpki.Subject(pkix.Name{CommonName: name, Organization: []string{"Partner"}})
}

func TestExplainAccepted(t *testing.T) {
	x := newExplaining(t)
	leaf := testpki.MustIssue(t, testpki.MustIntermediate(t, x.ca), partner("billing"))
	x.write("billing", leaf)
	x.write("job", testpki.MustIssue(t, x.ca, testpki.URIs("spiffe://prod.example/ns/a/job")))

	got, err := x.ask("billing")
	if err != nil {
		t.Fatal(err)
	}
	want := `realm             default
subject           CN=billing,O=Partner
issuer            CN=Test Intermediate CA
valid until       ` + leaf.Cert.NotAfter.UTC().Format(time.RFC3339) + ` (in 23 hours)
thumbprint        ` + hashOf(leaf.Cert.Raw) + `
client            billing.partner
credential        subject
matched           CN=billing,O=Partner
scopes            invoices.read invoices.write
default scopes    invoices.read
`
	if got != want {
		t.Errorf("explain prints\n%s\nwant\n%s", got, want)
	}
	for name, want := range map[string]string{
		"sensor": "\nclient            sensor\ncredential        certificate\n",
		"job":    "\nmatched           spiffe://prod.example/ns/a/job\ndeclared          spiffe://prod.example/ns/*/job\nscopes            (empty)\n",
		"until":  "\nuntil             2101-01-01T00:00:00Z\n",
	} {
		if got, err := x.ask(name); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	if got, err := x.ask("billing", "--client-id", "billing.partner", "--realm", "default", "--adapter", "caddyfile"); err != nil || got != want {
		t.Errorf("with every flag: %v\n%s", err, got)
	}
	for _, made := range []string{"storage", "caddy.log"} {
		if _, err := os.Stat(filepath.Join(x.dir, made)); !os.IsNotExist(err) {
			t.Errorf("explain made %s: %v", made, err)
		}
	}
}

func TestExplainRefused(t *testing.T) {
	x := newExplaining(t)
	leaf := testpki.MustIssue(t, testpki.MustCA(t), partner("billing"))
	x.write("impostor", leaf)
	got, err := x.ask("impostor", "--client-id", "sensor")
	if err == nil {
		t.Fatal("no error")
	}
	_, rest, _ := strings.Cut(got, "\nrefused  ")
	rest, advice, _ := strings.Cut(rest, "\n\n")
	text, _ := reasons.Of("certificate_untrusted")
	text = text.Plain()
	if strings.Join(strings.Fields(advice), " ") != text.Sentence+" "+text.Remedy {
		t.Errorf("explain advises\n%s", advice)
	}
	lines := strings.Split(rest+"\n", "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[1], "detail            certificate signed by unknown authority") {
		t.Fatalf("explain prints\n%s", got)
	}
	lines[1] = ""
	sensor := hashOf(x.sensor.Cert.Raw)
	if want := `         certificate_untrusted

hint              the subject is declared by client 'billing.partner', but it counts only with a verified chain
hint              client 'sensor' declares the certificate '` + sensor + `'
`; strings.Join(lines, "\n") != want {
		t.Errorf("explain prints\n%s\nwant\n%s", strings.Join(lines, "\n"), want)
	}

	stranger := testpki.MustIssue(t, x.ca, partner("stranger"))
	register := "\n\nTo register it, paste this into the global option 'mtls', with the client's ID\nin place of CHANGE-ME:\n\nclient \"CHANGE-ME\" {\n\tthumbprint \"" + hashOf(stranger.Cert.Raw) + "\"\n" +
		"\t# or, to accept renewed certificates with the same key too:\n\t# public_key \"" + hashOf(stranger.Cert.RawSubjectPublicKeyInfo) + "\"\n}\n"
	x.write("stranger", stranger)
	x.write("named", testpki.MustIssue(t, x.ca, testpki.CommonName("named"), testpki.DNSNames("a.example.com")))
	x.write("off", testpki.MustIssue(t, x.ca, testpki.CommonName("off")))
	x.write("billing", testpki.MustIssue(t, x.ca, partner("billing")))
	x.write("hostile", testpki.MustIssue(t, x.ca, partner("a\x00\r\n\x1b[2J\u202e")))
	for _, tc := range []struct{ certificate, args, reason, text string }{
		{"stranger", "", "certificate_unknown", register},
		{"named", "", "certificate_unknown", "names             san_dns a.example.com\n"},
		{"off", "", "client_disabled", "client 'off' is disabled"},
		{"billing", "--client-id sensor", "client_mismatch", "hint              client 'sensor' declares the certificate"},
		{"billing", "--at 2100-01-31T12:00:00Z", "certificate_expired", "hint              within its validity period it would be client 'billing.partner'"},
		{"billing", "--at 2001-01-31T12:00:00Z", "certificate_expired", "not yet valid"},
		{"until", "--at 2150-01-31T12:00:00Z", "certificate_untrusted", "hint              the thumbprint of client 'until' ended at 2101-01-01T00:00:00Z\n"},
		{"billing", "--realm other", "certificate_unknown", ""},
		{"hostile", "", "certificate_unknown", `the subject cannot match any client`},
	} {
		got, err := x.ask(tc.certificate, strings.Fields(tc.args)...)
		if err == nil || !strings.Contains(got, "\nrefused           "+tc.reason+"\n") || !strings.Contains(got, tc.text) {
			t.Errorf("%s %s: %v\n%s", tc.certificate, tc.args, err, got)
		}
		if strings.ContainsAny(got, "\x00\r\x1b\u202e") {
			t.Errorf("%s: explain prints %q", tc.certificate, got)
		}
	}
}

func TestExplainConfigurationErrors(t *testing.T) {
	x := newExplaining(t)
	config := func(name, text string) string { return writeFile(t, x.dir, name, []byte(text)) }
	sensor := filepath.Join(x.dir, "sensor.pem")
	t.Chdir(t.TempDir())
	for name, tc := range map[string]struct{ config, realm, want string }{
		"no configuration": {"", "default", "no Caddyfile in the current directory; name a configuration with --config"},
		"no file":          {x.dir + "/none", "default", "none"},
		"unknown realm":    {x.config, "x\x1b", `unknown realm "x\x1b"; declared are: default, other`},
		"no realm":         {config("a.caddyfile", "{\n\tadmin off\n}\n"), "default", "the configuration has no realm"},
		"not a Caddyfile":  {config("b.caddyfile", "{\n\tmtls {\n\t\tnonsense\n\t}\n}\n"), "default", "unrecognized mtls option 'nonsense'"},
		"bad realm":        {config("c.caddyfile", "{\n\tmtls {\n\t\tclient a {\n\t\t\tsubject CN=a\n\t\t}\n\t}\n}\n"), "default", "the realm has no trust_pool"},
		"not JSON":         {config("d.json", "{"), "default", "config is not valid JSON"},
		"wrong JSON":       {config("e.json", `{"apps": {"mtls": {"realms": {"default": []}}}}`), "default", "app mtls: json: cannot unmarshal array into Go struct field App.realms"},
		"null realm":       {config("f.json", `{"apps": {"mtls": {"realms": {"default": null}}}}`), "default", "realm 'default' is null"},
		"unknown member":   {config("g.json", `{"apps": {"mtls": {"realms": {"default": {"nonsense": 1}}}}}`), "default", "nonsense"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"explain", "--realm", tc.realm, sensor}
			if tc.config != "" {
				args = append(args, "--config", tc.config)
			}
			out, err := run(t, strings.NewReader(""), args...)
			wantError(t, err, tc.want)
			if out != "" {
				t.Errorf("explain prints %q", out)
			}
		})
	}
	// JSON, the Caddyfile of the current directory, and a certificate on standard input
	file := config("h.json", `{"apps": {"mtls": {"realms": {"default": {"clients": [{"client_id": "a", "x509_certificate_files": "`+x.dir+`/sensor.pem"}]}}}}}`)
	if out, err := run(t, strings.NewReader(readFile(t, sensor)), "explain", "--config", file, "-"); err != nil || !strings.Contains(out, "\nclient            a\n") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Chdir(x.dir)
	if out, err := run(t, strings.NewReader(""), "explain", "sensor.pem"); err != nil || !strings.Contains(out, "\nclient            sensor\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestExplainShadow checks that the decision under a shadow trust pool is shown.
func TestExplainShadow(t *testing.T) {
	x := newExplaining(t)
	next := testpki.MustCA(t, testpki.CommonName("Next CA"))
	writeFile(t, x.dir, "next.pem", next.PEM())
	text, err := os.ReadFile(x.config)
	if err != nil {
		t.Fatal(err)
	}
	pool := `trust_pool file "` + x.dir + `/ca.pem"`
	x.config = writeFile(t, x.dir, "Caddyfile", []byte(strings.Replace(string(text), pool, pool+"\n\t\tshadow_trust_pool file \""+x.dir+"/next.pem\"", 1)))
	x.write("today", testpki.MustIssue(t, x.ca, partner("billing")))
	x.write("tomorrow", testpki.MustIssue(t, next, partner("billing")))
	for name, test := range map[string]struct {
		admitted bool
		want     string
	}{
		"today":    {true, "\nshadow_trust_pool refused: certificate_untrusted: certificate signed by unknown authority"},
		"tomorrow": {false, "\nshadow_trust_pool client billing.partner\n"},
		"sensor":   {true, "\nshadow_trust_pool client sensor\n"},
	} {
		got, err := x.ask(name)
		if (err == nil) != test.admitted || !strings.Contains(got, test.want) {
			t.Errorf("%s: %v\n%s\nwant %q", name, err, got, test.want)
		}
	}
}

// TestExplainMentionsUnfetchedJWKS checks that a refusal mentions the JWKS that the server
// would have fetched.
func TestExplainMentionsUnfetchedJWKS(t *testing.T) {
	x := newExplaining(t)
	x.config = writeFile(t, x.dir, "jwks.json", []byte(`{"apps": {"mtls": {"realms": {"default": {"clients": [{"client_id": "a", "jwks_uri": "https://a.example/jwks.json"}]}}}}}`))
	got, err := x.ask("sensor")
	if err == nil || !strings.Contains(got, "\nnot known         the JWKS behind URLs (1), which are not fetched here\n") {
		t.Errorf("%v\n%s", err, got)
	}
}

// TestExplainKnowsClientsInStorage checks that clients are read from the storage of
// their realm, and that nothing is written there.
func TestExplainKnowsClientsInStorage(t *testing.T) {
	x := newExplaining(t)
	x.config = writeFile(t, x.dir, "storage.caddyfile", []byte(strings.ReplaceAll(`{
		mtls {
			storage file_system "DIR/realm"
			clients_from storage
			issuer https://auth.example.com
		}
	}`, "DIR", x.dir)))
	record := clients.Entry{Record: []byte(`{"client_id":"stored","x509_thumbprints":"` + hashOf(x.sensor.Cert.Raw) + `"}`)}
	all := func(yield func(clients.Entry, error) bool) { yield(record, nil) }
	if err := storagesource.Fill(t.Context(), &certmagic.FileStorage{Path: x.dir + "/realm"}, "default", all); err != nil {
		t.Fatal(err)
	}
	if got, err := x.ask("sensor"); err != nil || !strings.Contains(got, "\nclient            stored\n") {
		t.Errorf("%v\n%s", err, got)
	}
	if _, err := os.Stat(x.dir + "/realm/mtls/default/keys"); !os.IsNotExist(err) {
		t.Errorf("explain made keys: %v", err)
	}
}

// TestExplainLoadsThePKIAppOnDemand checks that Caddy's pki app is loaded for a trust pool of one of
// its CAs.
func TestExplainLoadsThePKIAppOnDemand(t *testing.T) {
	x := newExplaining(t)
	text := strings.Replace(readFile(t, x.config), `trust_pool file "`+x.dir+`/ca.pem"`, "trust_pool pki_root local", 1)
	x.config = writeFile(t, x.dir, "Caddyfile", []byte(text))
	x.write("billing", testpki.MustIssue(t, x.ca, partner("billing")))
	if got, err := x.ask("billing"); err != nil || !strings.Contains(got, "\nclient            billing.partner\n") {
		t.Errorf("%v\n%s", err, got)
	}
}
