package commands_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const issueRealm = `mtls {
	trust_pool pki_root local
	client nobody {
		thumbprint 0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c
	}
	@CLIENTS@
}`

// issueRig is a Caddy with a CA, whose configuration is in a file.
type issueRig struct {
	*rig.Rig
	config string // the flags that name it
}

func newIssueRig(t *testing.T) *issueRig {
	r := rig.New(t)
	r.AdminOn = true
	r.Start(strings.Replace(issueRealm, "@CLIENTS@", "", 1), rig.OneSite)
	r.Write("Caddyfile", []byte(r.Caddyfile))
	r.Write("password.txt", []byte("correct horse\n"))
	return &issueRig{r, "--config Caddyfile "}
}

// register reloads Caddy with the blocks that commands have printed.
func (r *issueRig) register(outputs ...string) {
	var blocks strings.Builder
	for _, out := range outputs {
		_, block, found := strings.Cut(out, "paste this into the mtls global option:\n\n")
		if !found {
			r.T.Fatalf("there is no block in\n%s", out)
		}
		blocks.WriteString(block)
	}
	r.Reload(strings.Replace(issueRealm, "@CLIENTS@", blocks.String(), 1), rig.OneSite)
}

// curl sends a request with a certificate, and returns the body.
func (r *issueRig) curl(t *testing.T, flags string) string {
	t.Helper()
	out, installed := tool(r.Rig, t, "curl -sS --cacert server-ca.pem --resolve api.test:"+r.HTTPS+":127.0.0.1 "+flags+" https://api.test:"+r.HTTPS+"/")
	if !installed {
		t.Skip("SKIPPED: curl is not installed")
	}
	return out
}

// TestIssuedCertificatesAreAdmitted checks that Caddy admits what the command issued, in
// each form and from each kind of CA, with the block that it printed.
func TestIssuedCertificatesAreAdmitted(t *testing.T) {
	r := newIssueRig(t)
	r.Write("own-ca.pem", testpki.MustCA(t).PEM()) // another one, which the realm does not trust
	root, err := os.ReadFile(filepath.Join(r.Dir, "storage/pki/authorities/local/root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	r.Write("root.pem", root)
	issue := func(line string) string {
		return rig.MustShell(r.Rig, t, "caddy mtls issue "+line+" --password-file password.txt --out certs")
	}
	outputs := []string{
		issue("from-root " + r.config),
		issue("from-running --address 127.0.0.1:" + r.Admin),
		issue("from-intermediate " + r.config + "--intermediate --days 3 --key-type p384"),
		issue("from-files --ca-cert storage/pki/authorities/local/root.crt --ca-key storage/pki/authorities/local/root.key --subject 'CN=files, OU=production' --key-type rsa2048"),
		issue("spiffe:workload " + r.config + "--san-uri spiffe://example.org/workload --key-type ed25519"),
		issue("self-signed --self-signed --legacy"),
	}
	for _, name := range []string{"from-root", "from-running", "from-intermediate", "from-files", "spiffe_workload", "self-signed"} {
		file := "certs/" + name
		if got := r.curl(t, "--cert "+file+".pem --key "+file+".key"); strings.Contains(got, "X-Client-Id") {
			t.Errorf("%s is admitted before it is registered: %s", name, got)
		}
	}
	r.register(outputs...)
	for _, name := range []string{"from-root", "from-running", "from-intermediate", "from-files", "spiffe:workload", "self-signed"} {
		file := "certs/" + strings.ReplaceAll(name, ":", "_")
		want := `"X-Client-Id":["` + name + `"]`
		if got := r.curl(t, "--cert "+file+".pem --key "+file+".key"); !strings.Contains(got, want) {
			t.Errorf("%s, PEM: %s", name, got)
		}
		if name == "self-signed" { // in the legacy form, which curl's OpenSSL does not read
			out, installed := tool(r.Rig, t, "openssl verify -x509_strict -partial_chain -purpose sslclient -CAfile "+file+".pem "+file+".pem")
			if installed && !strings.Contains(out, ": OK") {
				t.Errorf("%s: %s", name, out)
			}
			continue
		}
		if got := r.curl(t, "--cert '"+file+".p12:correct horse' --cert-type P12"); !strings.Contains(got, want) {
			t.Errorf("%s, PKCS #12: %s", name, got)
		}
		out, installed := tool(r.Rig, t, "openssl verify -x509_strict -purpose sslclient -CAfile root.pem -untrusted "+file+".pem "+file+".pem")
		if installed && !strings.Contains(out, ": OK") {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// TestIssuedFilesAreReadElsewhere checks the PKCS #12 files with other programs.
func TestIssuedFilesAreReadElsewhere(t *testing.T) {
	r := newIssueRig(t)
	out := rig.MustShell(r.Rig, t, "caddy mtls issue sensor-7 --password-file password.txt") // of the Caddyfile in the folder
	rig.MustShell(r.Rig, t, "caddy mtls issue old "+r.config+"--legacy --password-file password.txt")
	r.register(out)
	if out, installed := tool(r.Rig, t, "openssl pkcs12 -in sensor-7.p12 -info -noout -passin 'pass:correct horse' 2>&1"); installed && !strings.Contains(out, "AES-256-CBC") {
		t.Error(out)
	}
	if out, installed := tool(r.Rig, t, "openssl pkcs12 -in old.p12 -legacy -info -noout -passin 'pass:correct horse' 2>&1"); installed && !strings.Contains(out, "3-KeyTripleDES") {
		t.Error(out)
	}
	for _, file := range []string{"sensor-7.p12", "old.p12"} {
		if out, installed := tool(r.Rig, t, "keytool -list -storetype PKCS12 -keystore "+file+" -storepass 'correct horse'"); installed && !strings.Contains(out, "PrivateKeyEntry") {
			t.Errorf("%s: %s", file, out)
		}
	}
	const script = `require("https").get({host:"127.0.0.1",port:%PORT%,path:"/",servername:"api.test",headers:{host:"api.test"},
pfx:require("fs").readFileSync("sensor-7.p12"),passphrase:"correct horse",ca:require("fs").readFileSync("server-ca.pem")},
a=>a.on("data",d=>process.stdout.write(d)).on("end",()=>process.exit(0)))`
	r.Write("get.js", []byte(strings.Replace(script, "%PORT%", r.HTTPS, 1)))
	if out, installed := tool(r.Rig, t, "node get.js"); installed && !strings.Contains(out, `"X-Client-Id":["sensor-7"]`) {
		t.Errorf("node: %s", out)
	}
}

// TestIssueKeepsTheKeySecret checks where the key and the password are, and are not.
func TestIssueKeepsTheKeySecret(t *testing.T) {
	r := newIssueRig(t)
	out, problems, status := rig.Shell(r.Rig, t, "caddy mtls issue a --self-signed --json")
	answer := rig.JSON(t, out)
	if status != 0 || strings.Contains(out+problems, "PRIVATE KEY") || answer["key_file"] != "a.key" || strings.Count(problems, "not shown again: ") != 1 {
		t.Errorf("%d %s\n%s", status, out, problems)
	}
	_, password, _ := strings.Cut(strings.TrimSpace(problems), "not shown again: ")
	if got, installed := tool(r.Rig, t, "openssl pkcs12 -in a.p12 -noout -passin pass:"+password); installed && got != "" {
		t.Error(got)
	}
	for _, line := range []string{"c --self-signed", "d", "spiffe:e --san-uri spiffe://example.org/e"} {
		var answer struct{ Record clients.Record }
		if err := json.Unmarshal([]byte(rig.MustShell(r.Rig, t, "caddy mtls issue --json "+line)), &answer); err != nil {
			t.Fatal(err)
		}
		if _, err := directory.New(t.Context(), directory.Config{Records: []clients.Record{answer.Record}}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	record, _ := answer["record"].(map[string]any)
	if record["client_id"] != "a" || record["x509_thumbprints"] != answer["thumbprint"] {
		t.Errorf("the record is %v", record)
	}

	out, problems, status = rig.Shell(r.Rig, t, "caddy mtls issue b --self-signed --out -")
	if status != 0 || !strings.HasPrefix(out, "-----BEGIN PRIVATE KEY") || !strings.HasSuffix(out, "-----END CERTIFICATE-----\n") || !strings.Contains(problems, "thumbprint") {
		t.Errorf("%d %s\n%s", status, out, problems)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "b.key")); err == nil {
		t.Error("there is a file, too")
	}
}

// TestIssueFails checks what the command says when nothing can be issued, and that it
// creates no CA.
func TestIssueFails(t *testing.T) {
	r := newIssueRig(t)
	r.Write("none.json", []byte(`{"storage":{"module":"file_system","root":"`+r.Dir+`/empty"},"apps":{"pki":{"certificate_authorities":{"partners":{},"nothing":null}}}}`))
	r.Write("encrypted.key", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	r.Issue("leaf")
	r.Write("taken.pem", nil)
	for line, want := range map[string]string{
		"x --config none.json":                               "has no CA 'local'",
		"x --config none.json --ca partners":                 "has no CA 'partners'",
		"x --config none.json --ca nothing":                  "is null",
		"x --config none.json --ca other":                    "the configuration has no CA 'other'; use --ca nothing or partners or local",
		"x --intermediate":                                   "use '--days 6' or less",
		"x --ca-cert clients-ca.pem --ca-key encrypted.key":  "openssl pkey",
		"x --ca-cert clients-ca.pem --ca-key clients-ca.pem": "no private key",
		"x --ca-cert clients-ca.pem --ca-key leaf.key":       "the private key is not that of CA",
		"x --ca-cert leaf.pem --ca-key leaf.key":             "it is not a CA",
		"x --ca-cert gone.pem --ca-key leaf.key":             "gone.pem",
		"taken --self-signed":                                "taken.pem exists; use --force",
		"x --self-signed --password-file taken.pem":          "the password is empty",
		"x --self-signed --ca local":                         "none of the others can be",
		"x --address 127.0.0.1:1":                            "no admin API at 127.0.0.1:1",
		"x --address 127.0.0.1:1 --config Caddyfile":         "none of the others can be",
		"x --ca-cert clients-ca.pem":                         "ca-key",
		"x --self-signed --days 0":                           "use 1 to 36500",
		"x --self-signed --key-type dsa":                     "use p256, p384",
		"x --self-signed --san-dns https://a.example.com":    "san_dns",
		"'a b' --self-signed":                                "client_id",
		"x --self-signed --out - --json":                     "both print on standard output",
		"x --self-signed --subject 'CN=a,CN='":               "is empty",
	} {
		out, problems, status := rig.Shell(r.Rig, t, "caddy mtls issue "+line)
		if status == 0 || !strings.Contains(problems, want) || out != "" {
			t.Errorf("%s: exit status %d, %s%s, want %q", line, status, out, problems, want)
		}
	}
	for _, name := range []string{"empty", "x.key", "x.pem", "taken.key"} {
		if _, err := os.Stat(filepath.Join(r.Dir, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
}
