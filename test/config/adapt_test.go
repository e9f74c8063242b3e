package config_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	mtlsauth "github.com/caddymtls/caddy-mtls-auth"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

var updateGolden = flag.Bool("update-golden", false, "write the JSON that the golden Caddyfiles adapt to")

const goldenSeparator = "\n----------\n"

// TestGolden adapts testdata/caddyfile/*.caddyfiletest. A file has a Caddyfile, a line
// of ten hyphens, and the JSON that it adapts to. The TestBad functions check
// Caddyfiles that do not adapt.
func TestGolden(t *testing.T) {
	t.Setenv("MTLS_TEST_REALM", "partners")
	t.Setenv("MTLS_TEST_SUBJECT", "CN=client,OU=production,O=company")
	if err := os.Unsetenv("MTLS_TEST_UNSET"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "caddyfile", "*.caddyfiletest"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, want, found := strings.Cut(strings.ReplaceAll(string(content), "\r\n", "\n"), goldenSeparator)
			if !found {
				t.Fatal("no line of ten hyphens")
			}
			checkGolden(t, file, strings.TrimSpace(text)+"\n", strings.TrimSpace(want))
		})
	}
}

func checkGolden(t *testing.T, file, text, want string) {
	config, warnings, err := adaptText("Caddyfile", text)
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range warnings {
		t.Errorf("line %d: %s", warning.Line, warning.Message)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, config, "", "\t"); err != nil {
		t.Fatal(err)
	}
	if *updateGolden {
		updated := strings.TrimSuffix(text, "\n") + goldenSeparator + got.String() + "\n"
		if err := os.WriteFile(file, []byte(updated), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.String() != want {
		t.Errorf("adapts to\n%s\nwant\n%s", got.String(), want)
	}
}

// TestImportFolder checks that a realm can import each client from a file of its own.
func TestImportFolder(t *testing.T) {
	const text = "{\n\tmtls {\n\t\ttrust_pool file ca.pem\n\t\timport clients/*.caddy\n\t}\n}\n"
	dir := t.TempDir()
	file := filepath.Join(dir, "Caddyfile")
	testtool.WriteTemp(t, dir, "clients/a.caddy", []byte("client a {\n\tsubject CN=a\n}\nclient a2 {\n\tsubject CN=a2\n}\n"))
	testtool.WriteTemp(t, dir, "clients/b.caddy", []byte("client b {\n\tsubject CN=b\n\tscopes api1\n}\n"))
	config, _, err := adaptText(file, text)
	if err != nil {
		t.Fatal(err)
	}
	var adapted struct {
		Apps struct {
			MTLS mtlsauth.App `json:"mtls"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &adapted); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, record := range adapted.Apps.MTLS.Realms["default"].Clients {
		ids = append(ids, record.ClientID)
	}
	if got := strings.Join(ids, " "); got != "a a2 b" {
		t.Errorf("clients %q, want those of both files", got)
	}

	bad := testtool.WriteTemp(t, dir, "clients/c.caddy", []byte("client c {\n\tsubject CN=c\n\tsubjekt CN=d\n}\n"))
	_, _, err = adaptText(file, text)
	testtool.WantError(t, err, "unrecognized client option 'subjekt'; did you mean 'subject'?, at "+bad+":3 import chain ['"+file+":4 (import)']")
	testtool.WriteTemp(t, dir, "clients/c.caddy", []byte("\nclient b {\n\tsubject CN=c\n}\n"))
	_, _, err = adaptText(file, text)
	testtool.WantError(t, err, "client 'b' is declared twice; give each client one block, at "+bad+":4")
}

// TestAdaptingReadsNoFile checks that adapting a Caddyfile does not read the files it
// names, because they may exist on the server only.
func TestAdaptingReadsNoFile(t *testing.T) {
	const text = "{\n\tmtls {\n\t\ttrust_pool file DIR/ca.pem\n\t\tclient a {\n\t\t\tcertificate DIR/client.pem\n\t\t\tclaim tenant {file.DIR/tenant}\n\t\t}\n" +
		"\t\tissuer https://auth.example.com {\n\t\t\tsigning_key DIR/key.pem\n\t\t}\n\t}\n}\n"
	missing, garbage := t.TempDir(), t.TempDir()
	for _, name := range []string{"ca.pem", "client.pem", "tenant", "key.pem"} {
		testtool.WriteTemp(t, garbage, name, []byte("garbage"))
	}
	var outcomes []string
	for _, dir := range []string{missing, garbage} {
		config, _, err := adaptText("Caddyfile", strings.ReplaceAll(text, "DIR", dir))
		if err != nil {
			t.Fatal(err)
		}
		outcomes = append(outcomes, strings.ReplaceAll(string(config), dir, "DIR"))
	}
	if outcomes[0] != outcomes[1] || !strings.Contains(outcomes[0], "{file.DIR/tenant}") {
		t.Errorf("the result depends on the files:\n%s\n%s", outcomes[0], outcomes[1])
	}
}
