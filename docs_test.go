package mtlsauth

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// snippet is a fenced block of a document.
type snippet struct {
	where, kind, text string
}

func readSnippets(t *testing.T) []snippet {
	t.Helper()
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	fence := regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$")
	var snippets []snippet
	for _, file := range append(files, "README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, match := range fence.FindAllStringSubmatch(string(text), -1) {
			snippets = append(snippets, snippet{where: file + "#" + string(rune('1'+i)), kind: match[1], text: match[2]})
		}
	}
	return snippets
}

// examplesOf fills the placeholders of the syntax blocks with values.
var examplesOf = strings.NewReplacer(
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
	"jwks <file-or-https-url>", "jwks https://a.example.com/jwks.json", "clients_from <source> ...", "clients_from file partners.json",
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
	"go run ./cmd/caddy mtls demo":  "the demo is run by its own test and in CI",
	"go test ./...":                 "this is it",
	"caddy mtls demo":               "see above",
	"caddy mtls inspect client.pem": "TestInspect",
	"caddy mtls explain --config Caddyfile --client-id mtls.client client.pem": "TestExplainAccepted",
	"caddy mtls explain --config Caddyfile client.pem":                         "TestExplainShadow",
	"xcaddy build --with github.com/caddymtls/caddy-mtls-auth":                 "TestXcaddyPath",
	"go build -o caddy ./cmd/caddy":                                            "built in CI",
	"examples/run":                                                             "run in CI",
	"scripts/bench":                                                            "run by hand, for benchmarks are no tests",
	".ci/fuzz 60s":                                                             "run in CI with a shorter time",
	"go run ./cmd/caddy run --config Caddyfile.example":                        "TestExampleConfig",
	"curl http://localhost:2019/mtls/realms/default/keys":                      "TestKeysOnTheAdminEndpoint",
	"curl -X POST http://localhost:2019/mtls/realms/default/keys/rotate":       "TestKeysOnTheAdminEndpoint",
	`curl -X POST -d '{"retire":"now"}' http://localhost:2019/mtls/realms/default/keys/rotate`: "TestKeysOnTheAdminEndpoint",
}

func TestDocumentSnippets(t *testing.T) {
	adapter := caddyconfig.GetAdapter("caddyfile")
	for _, snippet := range readSnippets(t) {
		t.Run(snippet.where, func(t *testing.T) {
			config := ""
			switch snippet.kind {
			case "caddyfile":
				config = snippet.text
			case "caddyfile global":
				config = "{\n" + examplesOf.Replace(snippet.text) + "}\n"
			case "caddyfile site":
				config = snippetRealm + "api.example.com {\n" + examplesOf.Replace(snippet.text) + "}\n"
			case "json":
				text := strings.TrimSpace(snippet.text)
				if !strings.HasPrefix(text, "[") {
					text = "[" + text + "]"
				}
				records, err := clients.ParseRecords([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				for _, record := range records {
					if _, _, err := clients.New(record, time.Now()); err != nil {
						t.Fatal(err)
					}
				}
				return
			case "sh":
				for line := range strings.Lines(snippet.text) {
					if _, known := shellSnippets[strings.TrimSpace(line)]; !known {
						t.Errorf("nothing checks the command %q", line)
					}
				}
				return
			case "text":
				return
			default:
				t.Fatalf("a block of kind %q; nothing checks it", snippet.kind)
			}
			if strings.Contains(config, "<") {
				t.Fatalf("a placeholder has no example:\n%s", config)
			}
			if _, warnings, err := adapter.Adapt([]byte(config), nil); err != nil {
				t.Fatalf("%v\n%s", err, config)
			} else if len(warnings) > 0 && snippet.kind == "caddyfile" {
				t.Fatalf("%v\n%s", warnings, config)
			}
		})
	}
}

// TestReasonsAreDocumented: docs/reference.md says of each refusal reason what to do.
func TestReasonsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range validators.Reasons {
		if !strings.Contains(string(text), "\n| `"+string(reason)+"` | 40") {
			t.Errorf("docs/reference.md does not explain %s", reason)
		}
	}
}

// TestRecordMembersAreDocumented: the table of client records has every member
// and no other.
func TestRecordMembersAreDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| member | word in a Caddyfile | value |\n|---|---|---|\n")
	if !found {
		t.Fatal("there is no table")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	documented := make(map[string]bool)
	for row := range strings.Lines(table) {
		for _, name := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			documented[name[1]] = true
		}
	}
	record := reflect.TypeFor[clients.Record]()
	for i := range record.NumField() {
		name, _, _ := strings.Cut(record.Field(i).Tag.Get("json"), ",")
		if !documented[name] {
			t.Errorf("docs/reference.md does not tell of %s", name)
		}
		delete(documented, name)
	}
	if len(documented) > 0 {
		t.Errorf("docs/reference.md tells of %v, which is no member", documented)
	}
}

// TestXcaddyPath: what the README gives xcaddy is the path of this module.
func TestXcaddyPath(t *testing.T) {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "module github.com/caddymtls/caddy-mtls-auth\n") {
		t.Fatal("the module has another path than the README says")
	}
}
