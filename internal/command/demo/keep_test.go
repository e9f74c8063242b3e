package demo_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// repository is the folder in which the lines that the demo prints run.
const repository = "../../.."

// keepDemo runs the demo and returns the folder that it leaves, and what it prints.
func keepDemo(t *testing.T) (dir, text string) {
	t.Helper()
	demoTemp(t)
	dir = filepath.Join(t.TempDir(), "a folder", "demo")
	text, err := keep(t, dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return dir, text
}

// environment returns the settings in the folder of a demo.
func environment(t *testing.T, dir string) map[string]string {
	t.Helper()
	settings := make(map[string]string)
	for line := range strings.Lines(readFile(t, filepath.Join(dir, "environment"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		settings[name] = strings.Trim(value, "'")
	}
	return settings
}

func TestDemoKeepsWhatExamplesNeed(t *testing.T) {
	dir, _ := keepDemo(t)
	for name, mode := range map[string]os.FileMode{"": 0o700, "environment": 0o600, "billing.p12": 0o600, "billing.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != mode && runtime.GOOS != "windows" {
			t.Errorf("%q has the mode %o, want %o", name, got, mode)
		}
	}
	settings := environment(t, dir)
	for _, pair := range [][2]string{{"CERTIFICATE", "KEY"}, {"TLS_CERTIFICATE", "TLS_KEY"}} {
		certificate, err := tls.LoadX509KeyPair(settings[pair[0]], settings[pair[1]])
		if err != nil {
			t.Fatalf("%v: %v", pair, err)
		}
		if left := time.Until(certificate.Leaf.NotAfter); left < 29*24*time.Hour {
			t.Errorf("%s is good for %s only", pair[0], left)
		}
	}
	key, certificate, _, err := pkcs12.DecodeChain([]byte(readFile(t, settings["PKCS12"])), settings["PASSWORD"])
	if err != nil || key == nil || certificate.Subject.CommonName != "billing" {
		t.Errorf("PKCS12 has %v, %v", certificate, err)
	}
	for _, name := range []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"} {
		if !strings.Contains(readFile(t, settings[name]), "BEGIN CERTIFICATE") {
			t.Errorf("%s has no certificate", name)
		}
	}
	for _, name := range []string{"ISSUER", "CLIENT_ID", "SCOPE", "API", "AUDIENCE", "TOKEN_TYPE"} {
		if settings[name] == "" {
			t.Errorf("%s is not set", name)
		}
	}
}

// lineOf returns what the group of the pattern matches in a line of the text.
func lineOf(t *testing.T, text, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(`(?m)^ *` + pattern + `$`).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("the demo prints no line %q:\n%s", pattern, text)
	}
	return match[1]
}

func TestDemoRefusesFolder(t *testing.T) {
	demoTemp(t)
	dir := t.TempDir()
	file := testtool.WriteTemp(t, dir, "file")
	for folder, want := range map[string]string{
		dir:                        "is not empty; name a folder that is new or empty",
		file:                       "; name a folder that is new or empty",
		filepath.Join(dir, `a"b`):  "; name a folder without quotes and braces",
		filepath.Join(dir, "{$A}"): "; name a folder without quotes and braces",
	} {
		if _, err := keep(t, folder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", folder, err, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the demo leaves %v %v", left, err)
	}
}

// TestDemoKeepsOthersOut checks that nobody else can replace the files in a folder that
// was there before.
func TestDemoKeepsOthersOut(t *testing.T) {
	demoTemp(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if text, err := keep(t, dir); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 && runtime.GOOS != "windows" {
		t.Errorf("the folder has the mode %v, %v", info.Mode(), err)
	}
}

// TestDemoKnowsExamples checks that the demo prints a line for each language that
// examples/run runs.
func TestDemoKnowsExamples(t *testing.T) {
	_, text := keepDemo(t)
	files, err := filepath.Glob(filepath.Join(repository, "examples", "*", "example.sh"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		folder := filepath.Base(filepath.Dir(file))
		line := lineOf(t, text, `(.*\(cd examples/`+folder+` && .*\))`)
		title := regexp.MustCompile(`(?m)^title=(.*)$`).FindStringSubmatch(readFile(t, file))
		if title == nil || !strings.HasPrefix(line, title[1]+" ") {
			t.Errorf("the line of %s does not begin with its title, %s", folder, title)
		}
	}
}
