package demo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/command/clientcert"
)

const (
	// days is how many days the certificates of the demo are good for.
	days = 30
	// password is that of the PKCS #12 file.
	password = "changeit"
)

// example is a folder of examples: how all its programs and how its APIs alone are
// prepared, and how the client and the APIs are run. curl has no APIs.
type example struct {
	title, folder                 string
	prepare, prepareAPIs          string
	client, headersAPI, tokensAPI string
}

var examples = []example{
	{"curl", "curl", "", "", "./client", "", ""},
	{
		"Go", "go", "go mod download", "",
		"go run ./client", "go run ./api-headers", "go run ./api-token",
	},
	{
		"Node.js", "node", "npm ci", "",
		"node client.mjs", "node api-headers.mjs", "node api-token.mjs",
	},
	{
		"Python", "python", "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt", "",
		".venv/bin/python client.py", ".venv/bin/gunicorn --bind $LISTEN api_headers:app", ".venv/bin/gunicorn --bind $LISTEN api_token:app",
	},
	{
		"Java", "java", "", "mvn -q -B package -Dmaven.test.skip=true",
		"java Smallest.java", "java -jar api-headers/target/api-headers.jar", "java -jar api-token/target/api-token.jar",
	},
	{
		".NET", "dotnet", "", "dotnet build api-headers && dotnet build api-token",
		`P12_PASSWORD=$PASSWORD dotnet run client.cs -- "$ISSUER" "$CLIENT_ID" "$PKCS12" "$API"`,
		"Urls=http://$LISTEN dotnet run --no-build --project api-headers", "Urls=http://$LISTEN dotnet run --no-build --project api-token",
	},
	{
		"Rust", "rust", "cargo build --locked", "",
		"target/debug/client", "target/debug/api-headers", "target/debug/api-token",
	},
	{
		"PHP", "php", "", "",
		"php client.php", "php -S $LISTEN api-headers.php", "php -S $LISTEN api-token.php",
	},
}

// makeFolder makes the folder of the demo: keep, or a temporary one if that is empty.
func makeFolder(keep string) (string, error) {
	if keep == "" {
		return os.MkdirTemp("", "caddy-mtls-demo-")
	}
	dir, err := filepath.Abs(keep)
	if err != nil {
		return "", err
	}
	// the Caddyfile would take these for something else
	if strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' || strings.ContainsRune("\"{}`", r) }) {
		return "", fmt.Errorf("the folder %q has a character that a Caddyfile cannot have there; name a folder without quotes and braces", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("%w; name a folder that is new or empty", err)
	}
	if err := checkEmpty(dir); err != nil {
		return "", err
	}
	// a shell executes what is in the folder, so nobody else may put files there
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // it is a folder
		return "", fmt.Errorf("%w; name a folder that is new, or empty and your own", err)
	}
	return dir, checkEmpty(dir)
}

func checkEmpty(dir string) error {
	switch entries, err := os.ReadDir(dir); {
	case err != nil:
		return fmt.Errorf("%w; name a folder that is new or empty", err)
	case len(entries) > 0:
		return fmt.Errorf("the folder '%s' is not empty; name a folder that is new or empty", dir)
	}
	return nil
}

// writeEnvironment writes what the examples need and the demo does not: their settings,
// and the certificate of the client as PKCS #12.
func (d *demo) writeEnvironment() error {
	billing := d.leaves["billing"]
	container, err := (&clientcert.Issued{Leaf: billing.Cert, Chain: billing.Chain, Key: billing.Key}).PKCS12(password, false)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, setting := range [][2]string{
		{"ISSUER", "https://" + d.Auth},
		{"CLIENT_ID", "billing.partner"},
		{"SCOPE", "invoices.read"},
		{"CERTIFICATE", d.Dir + "/billing.pem"},
		{"KEY", d.Dir + "/billing.key"},
		{"PKCS12", d.Dir + "/billing.p12"},
		{"PASSWORD", password},
		{"API", "https://" + d.BearerAPI},
		{"HEADERS_API", "https://" + d.HeadersAPI},
		{"HEADERS_UPSTREAM", d.HeadersUpstream},
		{"TOKEN_API", "https://" + d.TokenAPI},
		{"TOKEN_UPSTREAM", d.TokenUpstream},
		{"AUDIENCE", "https://api.example.com"},
		{"TOKEN_TYPE", "at+jwt"},
		{"TLS_CERTIFICATE", d.Dir + "/server.pem"},
		{"TLS_KEY", d.Dir + "/server.key"},
		{"SSL_CERT_FILE", d.Dir + "/server-ca.pem"},
		{"NODE_EXTRA_CA_CERTS", d.Dir + "/server-ca.pem"},
		{"CURL_CA_BUNDLE", d.Dir + "/server-ca.pem"}, // which counts more for curl, where it is set
	} {
		fmt.Fprintf(&text, "%s=%s\n", setting[0], shellQuote(setting[1]))
	}
	return errors.Join(
		os.WriteFile(filepath.Join(d.Dir, "billing.p12"), container, 0o600),
		os.WriteFile(filepath.Join(d.Dir, "environment"), []byte(text.String()), 0o600),
	)
}

// showExamples prints the lines that run the examples. Each prepares first, because a
// program that fetches libraries must not have the CA of the demo in its environment.
func (d *demo) showExamples() {
	lines := func(run func(example) (steps []string)) {
		for _, e := range examples {
			steps := append([]string{"cd examples/" + e.folder, e.prepare}, run(e)...)
			if steps[len(steps)-1] == "" {
				continue
			}
			steps = slices.DeleteFunc(steps, func(step string) bool { return step == "" })
			d.say("   %-7s  (%s)\n", e.title, strings.Join(steps, " && "))
		}
	}
	environment := "set -a && . " + shellQuote(d.Dir+"/environment")
	d.say(`
── The examples, run against this Caddy
   Run these lines in a clone of https://github.com/caddymtls/caddy-mtls-auth.
   Each client gets a token and calls the API of this demo with it:

`)
	lines(func(e example) []string { return []string{environment, e.client} })
	d.say(`
   Each API reads the name of the client from headers:

`)
	lines(func(e example) []string {
		return []string{e.prepareAPIs, environment, "LISTEN=$HEADERS_UPSTREAM", e.headersAPI}
	})
	d.say(`
   Call it through Caddy, with a certificate:

   $ curl --cacert %s --cert %s --key %s https://%s

   Each API verifies the token:

`, shellQuote(d.Dir+"/server-ca.pem"), shellQuote(d.Dir+"/billing.pem"), shellQuote(d.Dir+"/billing.key"), d.HeadersAPI)
	lines(func(e example) []string {
		return []string{e.prepareAPIs, environment, "LISTEN=$TOKEN_UPSTREAM", e.tokensAPI}
	})
	d.say(`
   Call it through Caddy, with any of the clients above and API=%s,
   such as:

   $ (cd examples/curl && %s && API=$TOKEN_API/invoices && ./client)

   The certificates are good for %d days. To start this Caddy again later:

   $ caddy run --config %s
`,
		shellQuote("https://"+d.TokenAPI+"/invoices"), environment, days, shellQuote(d.Dir+"/Caddyfile"))
}
