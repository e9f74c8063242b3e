package docs_test

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestMigrationCommands runs the commands that turn a map into clients, and their
// SHA-1 thumbprints into SHA-256.
func TestMigrationCommands(t *testing.T) {
	var commands []string
	for line := range strings.Lines(read(t, "docs/from-nginx-or-haproxy.md")) {
		if strings.HasPrefix(line, "awk ") || strings.HasPrefix(line, "for f in ") {
			commands = append(commands, line)
		}
	}
	if len(commands) != 2 {
		t.Fatalf("found %d commands: %q", len(commands), commands)
	}
	bash, openssl := testtool.Path(t, "bash"), testtool.Path(t, "openssl")
	for kind, line := range map[string]string{"nginx": `%x   "%s";`, "HAProxy": `%X %s`} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "partners"), 0o700); err != nil {
				t.Fatal(err)
			}
			clientMap, want := "# partners\nmap $ssl_client_fingerprint $client {\n\tdefault \"\";\n", ""
			// Of a client that renews its certificate, the map has two lines.
			pins := make(map[string]string)
			for i, name := range []string{"sensor-7", "billing.partner", "sensor-7"} {
				leaf := testpki.MustSelfSigned(t, testpki.CommonName(name))
				if _, _, err := leaf.WriteFiles(filepath.Join(dir, "partners"), fmt.Sprint(name, i)); err != nil {
					t.Fatal(err)
				}
				clientMap += fmt.Sprintf("\t"+line+"  # line %d\n", sha1.Sum(leaf.Cert.Raw), name, i)
				sum := sha256.Sum256(leaf.Cert.Raw)
				pins[name] += "\tthumbprint " + strings.ToUpper(hex.EncodeToString(sum[:])) + "\n"
			}
			for _, name := range []string{"sensor-7", "billing.partner"} {
				want += "client " + name + " {\n" + pins[name] + "}\n"
			}
			if err := os.WriteFile(filepath.Join(dir, "clients.map"), []byte(clientMap+"}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, command := range commands {
				run := exec.CommandContext(t.Context(), bash, "-euo", "pipefail", "-c", command)
				run.Dir, run.Env = dir, append(os.Environ(), "PATH="+filepath.Dir(openssl)+":"+os.Getenv("PATH"))
				if out, err := run.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s\n%s", err, out, command)
				}
			}
			got, err := os.ReadFile(filepath.Join(dir, "clients.caddy"))
			if err != nil || string(got) != want {
				t.Errorf("%v\n%s\nwant\n%s", err, got, want)
			}
			adapt(t, "{\n\tmtls {\n"+string(got)+"\n}\n}\n", false)
		})
	}
}
