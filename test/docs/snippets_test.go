package docs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/clients/filesource"
)

func readSnippets(t *testing.T) []snippet {
	t.Helper()
	var snippets []snippet
	for _, file := range filesOf(t, ".md") {
		before := ""
		for i, match := range fence.FindAllStringSubmatch(read(t, file), -1) {
			snippets = append(snippets, snippet{where: fmt.Sprintf("%s#%d", file, i+1), kind: match[1], text: match[2], before: before})
			if match[1] == "caddyfile" {
				before = match[2]
			}
		}
	}
	return snippets
}

// examplesOf fills the placeholders of the syntax blocks with values.
var examplesOf = strings.NewReplacer(
	"header <name> <value>", "header X-Api-Key {env.KEY}",
	"client <client_id> {\n\t\t...", "client a {\n\t\tthumbprint "+strings.Repeat("0b", 32), "fetch {\n\t\t...", "fetch {\n\t\ttrust_pool file ca.pem", "refusals {\n\t\t...", "refusals {\n\t\tkeep 5", "<count>", "500", "<max_clients>", "50", "revocation {\n\t\t...", "revocation {\n\t\tdeny deny.txt",
	"forward_certificate [<format>...]", "forward_certificate envoy", "forwarded_certificate <format> {\n\t\t...", "forwarded_certificate nginx {\n\t\tfrom 10.0.0.7", "issuer <https-url> {\n\t\t...", "issuer https://auth.example.com {\n", "certificate_expiring {\n\t\t...", "certificate_expiring {\n\t\twithin 14d", "within <duration>", "within 14d", "response_header [<name>]", "response_header X-Days-Left",
	"[<realm>]", "", "[<matcher>]", "", "trust_issuer <https-url>", "trust_issuer https://login.example.net", "<text>", "login/",
	"<alg>...", "ES256 RS256", "at+jwt|JWT", "JWT", "id_claim <name>", "id_claim appid", "trust_pool <module> ...", "trust_pool file ca.pem",
	"<client_id>...", "a partner-*", "<client_id>", "a", "<dn>", `"CN=a,O=b"`, "<pem-file>", "a.pem",
	"<hex-or-base64url>...", strings.Repeat("0a", 32), "<hex-or-base64url>", strings.Repeat("0b", 32),
	"default_scopes <scope>...", "default_scopes read", "<scope>...", "read write",
	"san_dns <name>", "san_dns *.example.com", "<uri>", "spiffe://prod.example/ns/billing/*",
	"san_ip <address>", "san_ip 192.0.2.1", "san_email <address>", "san_email a@example.com", "[until <time>]", "until 2030-01-31T12:00:00Z",
	"<format>", "rfc9440", "<cidr>...", "10.0.0.0/8 2001:db8::7", "<hash>...", strings.Repeat("0d", 32),
	"claim <name> <value>", "claim tenant acme", "header_up <name> <value>", "header_up X-Tenant {http.mtls.claim.tenant}",
	"keep_header <name>...", "keep_header X-SSL-Cipher", "header <name>", "header X-Edge-Certificate", "resource <name>", "resource https://api.example.com",
	"crl <file-or-url>...", "crl clients.crl https://ca.example.com/clients.crl", "refresh <duration>", "refresh 30m",
	"jwks <file-or-https-url>", "jwks https://a.example.com/jwks.json", "clients_from <source> ... {\n\t\t...", "clients_from file partners.json {\n\t\ton_bad_record skip", "clients_from file <path>...", "clients_from file partners.json", "clients_from postgres <dsn>", "clients_from postgres postgres://caddy@db.example.com/app?sslmode=verify-full", "refuse|skip", "skip",
	"keep_copy <file>", "keep_copy clients.copy", "max_size <size>", "max_size 64MiB",
	"table         <name>", "table partners.clients", "keep_copy     <file>", "keep_copy clients.jsonl",
	"ocsp <url>...", "ocsp http://ocsp.example.com", "refuse|allow", "refuse", "deny <file>", "deny deny.txt",
	"storage <module> ...", "storage file_system /var/lib/keys", "signing_key <pem-file>", "", "<pem-or-jwk-file>...", "old.pem older.json",
	"rotate_every <duration>", "rotate_every 30d", "announce_for <duration>", "announce_for 12h",
	"realm <name>", "realm default", "<duration>", "5m", "<alg>", "ES256", "<https-url>", "https://auth.example.com",
	"<aud>...", "https://api.example.com", "[<header>]", "X-Gateway-Token", "<aud>", "urn:example:orders",
	"<resource>...", "https://api.example.com", "string|array", "array",
)

const snippetRealm = "{\n\tmtls {\n\t\tclient x {\n\t\t\tthumbprint 0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c\n\t\t}\n\t\tissuer https://i.example.com\n\t}\n}\n"

// shellSnippets are the commands the documents tell people to run, each with
// what checks it.
var shellSnippets = map[string]string{
	`awk '{ gsub(/[";]|#.*/, "") } length($1) == 40 { f = $1; $1 = ""; if (!($0 in p)) n[++k] = $0; p[$0] = p[$0] "\tthumbprint " f "\n" } END { for (i = 1; i <= k; i++) print "client" n[i] " {\n" p[n[i]] "}" }' clients.map > clients.caddy`: "TestMigrationCommands",
	`for f in partners/*.pem; do sed -i "s/$(openssl x509 -in "$f" -noout -fingerprint -sha1 | tr -d : | cut -d= -f2)/$(openssl x509 -in "$f" -noout -fingerprint -sha256 | tr -d : | cut -d= -f2)/I" clients.caddy; done`:                       "TestMigrationCommands",
	"caddy mtls check --config Caddyfile": "TestCheckFindings",
	"(cd examples/go && go mod download && set -a && . /tmp/demo/environment && go run ./client)": "TestDemoRunsExamples",

	// probe
	"caddy mtls probe --echo --listen 127.0.0.1:9000":                                    "TestEchoCommand",
	"caddy mtls probe https://api.example.com/orders --cert client.pem --key client.key": "TestProbeCommand",

	// systemd, Kubernetes
	"sudo dpkg-divert --divert /usr/bin/caddy.packaged --rename /usr/bin/caddy":                                    "Caddy's own documentation says so",
	"sudo install -m 755 caddy /usr/bin/caddy":                                                                     "a copy",
	"sudo install -D -m 644 contrib/systemd/mtls.conf /etc/systemd/system/caddy.service.d/mtls.conf":               "TestSystemdUnit",
	"sudo install -D -m 644 contrib/systemd/credentials.conf /etc/systemd/system/caddy.service.d/credentials.conf": "TestSystemdUnit",
	"sudo install -D -m 600 dsn.txt /etc/caddy/credentials/postgres":                                               "TestSystemdCredentials",
	"sudo systemctl daemon-reload":                                                                                 "TestSystemdUnit",
	"sudo systemctl restart caddy":                                                                                 "TestSystemdUnit",
	"echo 'net.core.rmem_max=7500000' | sudo tee /etc/sysctl.d/quic.conf":                                          "names of the kernel",
	"echo 'net.core.wmem_max=7500000' | sudo tee -a /etc/sysctl.d/quic.conf":                                       "names of the kernel",
	"sudo sysctl --system": "see above",
	"kubectl apply -f contrib/kubernetes/base/namespace.yaml":                   "TestManifestsFitTogether",
	"kubectl apply -k contrib/kubernetes/base":                                  "TestManifestsFitTogether",
	"kubectl apply -k contrib/kubernetes/postgresql":                            "TestManifestsFitTogether",
	"kubectl -n gateway rollout restart deployment/caddy":                       "TestManifestsFitTogether",
	"kubectl -n gateway create secret generic postgres --from-file=dsn=dsn.txt": "TestMountsAreWhatCaddyReads",
	"kubectl -n gateway exec deploy/caddy -- caddy mtls status":                 "TestStatusCommand",
	"kubectl -n gateway exec deploy/caddy -- caddy mtls why 7gsx4nkp2":          "TestWhyFromTheCallToTheRepair",

	"go run ./cmd/caddy mtls demo":  "the demo is run by its own test and in CI",
	"go test ./...":                 "this is it",
	"caddy mtls status":             "TestStatusCommand",
	"caddy mtls why 7gsx4nkp2":      "TestWhyFromTheCallToTheRepair",
	"caddy mtls demo":               "see above",
	"caddy mtls version":            "test/release/run, in CI",
	"scripts/release v1.2.3":        "test/release/run, in CI",
	"caddy mtls inspect client.pem": "TestInspect",
	"caddy mtls clients list":       "TestClientsCommands",
	"caddy mtls issue sensor-7 --config /etc/caddy/Caddyfile":                                   "TestIssuedCertificatesAreAdmitted",
	"caddy mtls issue sensor-7 --self-signed":                                                   "TestIssuedCertificatesAreAdmitted",
	"caddy mtls token --issuer https://auth.example.com --cert sensor-7.pem --key sensor-7.key": "TestTokenCommand",
	`curl --cert sensor-7.p12:<password> --cert-type P12 -H "Authorization: Bearer $(caddy mtls token --bare --issuer https://auth.example.com --cert sensor-7.p12 --password-file password.txt)" https://api.example.com/`: "TestTokenCommand and TestTokenReadsIdentities",
	"source <(caddy completion bash)":                                          "TestShellCompletion",
	"caddy mtls clients init-db --dsn '{env.DATABASE_URL}'":                    "TestInitDBCommand",
	"caddy mtls explain --config Caddyfile --client-id mtls.client client.pem": "TestExplainAccepted",
	"caddy mtls explain --config Caddyfile client.pem":                         "TestExplainShadow",
	"xcaddy build v2.11.9 --with github.com/caddymtls/caddy-mtls-auth":         "TestModulePath",
	"go build -o caddy ./cmd/caddy":                                            "built in CI",
	"examples/run":                                                             "run in CI",
	"test/interop/run":                                                         "run in CI",
	"scripts/bench":                                                            "run by hand, for benchmarks are no tests",
	"scripts/bench clients":                                                    "run by hand, as scripts/bench is",
	".ci/fuzz 60s":                                                             "run in CI with fewer inputs",
	"go run ./cmd/caddy run --config Caddyfile.example":                        "TestExampleConfig",
	"caddy mtls keys list":                                                     "TestKeysCommandsOfARunningCaddy",
	"caddy mtls keys rotate":                                                   "TestKeysCommandsOfARunningCaddy",
	"caddy mtls keys rotate --retire now":                                      "TestKeysCommandsOfARunningCaddy",
	"curl --data-binary @client.pem 'http://localhost:2019/mtls/realms/default/explain?client_id=mtls.client'": "TestExplainOnTheAdminEndpoint",
	"curl http://localhost:2019/mtls/realms/default/keys":                                                      "TestKeysOnTheAdminEndpoint",
	"curl -X POST http://localhost:2019/mtls/realms/default/keys/rotate":                                       "TestKeysOnTheAdminEndpoint",
	`curl -X POST -d '{"retire":"now"}' http://localhost:2019/mtls/realms/default/keys/rotate`:                 "TestKeysOnTheAdminEndpoint",
}

// TestDocumentSnippets adapts every Caddyfile of the documents, reads every
// client record, and knows a check of every command.
func TestDocumentSnippets(t *testing.T) {
	for _, snippet := range readSnippets(t) {
		t.Run(snippet.where, func(t *testing.T) {
			switch snippet.kind {
			case "caddyfile":
				adapt(t, snippet.text, true)
			case "caddyfile global":
				adapt(t, "{\n"+examplesOf.Replace(snippet.text)+"}\n", false)
			case "caddyfile realm":
				adapt(t, "{\n\tmtls {\n"+examplesOf.Replace(snippet.text)+"}\n}\n", false)
			case "caddyfile site":
				adapt(t, snippetRealm+"api.example.com {\n"+examplesOf.Replace(snippet.text)+"}\n", false)
			case "caddyfile client_auth":
				adapt(t, snippetRealm+"api.example.com {\ntls {\nclient_auth {\n"+examplesOf.Replace(snippet.text)+"}\n}\n}\n", false)
			case "json":
				checkRecords(t, snippet.text)
			case "jsonl", "yaml":
				checkClientsFile(t, "clients."+snippet.kind, snippet.text)
			case "json adapted":
				checkAdapted(t, snippet)
			case "sh":
				if strings.HasPrefix(snippet.where, "docs/managing-clients.md#") || strings.HasPrefix(snippet.where, "docs/compose.md#") {
					return // TestManagingClients and TestComposeCommands run them
				}
				for line := range strings.Lines(snippet.text) {
					if _, known := shellSnippets[strings.TrimSpace(line)]; !known {
						t.Errorf("nothing checks the command %q", line)
					}
				}
			case "go": // which the tests of its package run
				_, example, _ := strings.Cut(read(t, "storagetest/example_test.go"), "\n")
				if _, text, _ := strings.Cut(snippet.text, "\n"); text != example {
					t.Errorf("it is not storagetest/example_test.go:\n%s", text)
				}
			case "sql":
				if snippet.where[:strings.IndexByte(snippet.where+"#", '#')] != "docs/clients-in-postgresql.md" { // TestDocumentedSQL runs it
					t.Error("nothing runs this SQL")
				}
			case "text":
			case "nginx", "haproxy", "apache": // TestRealProxies, TestProbeOfRealGateways and TestWhatTheAPIReadBefore run them
				page, _, _ := strings.Cut(snippet.where, "#")
				if !slices.Contains([]string{"docs/behind-a-proxy.md", "docs/from-nginx-or-haproxy.md", "docs/what-your-api-read-before.md"}, page) {
					t.Errorf("nothing runs this configuration of %s", snippet.kind)
				}
			default:
				t.Fatalf("a block of kind %q; nothing checks it", snippet.kind)
			}
		})
	}
}

// adapt returns the JSON of a Caddyfile, which may import clients.caddy. strict is
// whether it must be formatted.
func adapt(t *testing.T, config string, strict bool) []byte {
	t.Helper()
	if strings.Contains(config, "<") {
		t.Fatalf("a placeholder has no example:\n%s", config)
	}
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "testdata/Caddyfile"})
	if err != nil {
		t.Fatalf("%v\n%s", err, config)
	}
	if strict && len(warnings) > 0 {
		t.Fatalf("%v\n%s", warnings, config)
	}
	return adapted
}

// checkClientsFile reads a file of clients, each of which must be one.
func checkClientsFile(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := directory.New(t.Context(), directory.Config{
		Sources: []clients.Source{filesource.New(filesource.Config{Path: path})},
	}); err != nil {
		t.Error(err)
	}
}

// checkRecords reads one client record, or an array of them.
func checkRecords(t *testing.T, text string) {
	t.Helper()
	if text = strings.TrimSpace(text); !strings.HasPrefix(text, "[") {
		text = "[" + text + "]"
	}
	var records []clients.Record
	if err := json.Unmarshal([]byte(text), &records); err != nil {
		t.Fatal(err)
	}
	if _, err := directory.New(t.Context(), directory.Config{Records: records}); err != nil {
		t.Fatal(err)
	}
}

// checkAdapted compares a configuration in JSON with the Caddyfile before it.
func checkAdapted(t *testing.T, snippet snippet) {
	t.Helper()
	adapted := adapt(t, snippet.before, true)
	var got, want any
	if err := json.Unmarshal([]byte(snippet.text), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(adapted, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the Caddyfile before it adapts to something else:\n%s", adapted)
	}
}

// TestPresenceMatcher checks that the documents give one matcher for "has an
// identity": the one that is false where no mtls_auth has run.
func TestPresenceMatcher(t *testing.T) {
	const recipe = "vars_regexp {http.mtls.client_id} ."
	for _, snippet := range readSnippets(t) {
		if strings.Contains(snippet.text, "{http.mtls.client_id}") && strings.Contains(snippet.text, "@client") && !strings.Contains(snippet.text, recipe) {
			t.Errorf("%s uses another matcher than %q", snippet.where, recipe)
		}
	}
}
