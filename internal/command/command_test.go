package command_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/spf13/cobra"

	_ "github.com/caddymtls/caddy-mtls-auth"
)

// newCommand returns the command `caddy mtls <args>`.
func newCommand(in io.Reader, out io.Writer, args ...string) *cobra.Command {
	root := &cobra.Command{Use: "mtls", SilenceUsage: true, SilenceErrors: true}
	caddycmd.Commands()["mtls"].CobraFunc(root)
	root.SetOut(out)
	root.SetErr(io.Discard)
	root.SetIn(in)
	root.SetArgs(args)
	return root
}

// run runs `caddy mtls <args>` in this process.
func run(t *testing.T, in io.Reader, args ...string) (out string, err error) {
	t.Helper()
	// explain sets Caddy's logging
	defer func() {
		if err := caddy.Validate(new(caddy.Config)); err != nil {
			t.Error(err)
		}
	}()
	var text bytes.Buffer
	err = newCommand(in, &text, args...).Execute()
	return text.String(), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, strings.NewReader(""), args...)
	if err != nil {
		t.Fatalf("mtls %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// writeFile writes a file into a folder and returns its path.
func writeFile(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantError fails the test unless the error has the text.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, want %q", err, text)
	}
}

func hashOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func TestInvalidArgumentsAreErrors(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"", "missing command; see 'mtls --help'"},
		{"insepct", "unknown command"}, //nolint:misspell // a misspelt command
		{"inspect", "accepts 1 arg(s), received 0"},
		{"inspect a b", "accepts 1 arg(s), received 2"},
		{"inspect --password a --password-file b c", "none of the others can be"},
		{"inspect --nonsense c", "unknown flag"},
		{"demo --once --keep=", "--keep names no folder; name one that is new or empty"},
		{"explain", "accepts 1 arg(s), received 0"},
		{"explain --at tomorrow a.pem", "invalid time \"tomorrow\" in --at; write it as 2027-01-31T12:00:00Z"},
		{"explain --config - -", "the configuration and the certificate cannot both be read from standard input"},
		{"explain --config Caddyfile no-such-file.pem", "no-such-file.pem"},
	} {
		out, err := run(t, strings.NewReader(""), strings.Fields(tc.args)...)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("mtls %s: %v, want %q\n%s", tc.args, err, tc.want, out)
		}
	}
}

// TestHelpShowsExamples checks that the help has examples and the shared flags.
func TestHelpShowsExamples(t *testing.T) {
	for _, name := range []string{"inspect", "explain"} {
		out := mustRun(t, name, "--help")
		if !strings.Contains(out, "$ caddy mtls "+name) || !strings.Contains(out, "--password-file") {
			t.Errorf("the help of %s:\n%s", name, out)
		}
	}
}

func TestDemoCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	if out := mustRun(t, "demo", "--once", "--keep", dir); !strings.Contains(out, "200  hello billing.partner") {
		t.Errorf("the demo prints\n%s", out)
	}
	readFile(t, filepath.Join(dir, "environment"))
}
