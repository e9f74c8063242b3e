package mtlsauth

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

// runCommand runs `caddy mtls <args>` in this process.
func runCommand(t *testing.T, in io.Reader, args ...string) (out string, err error) {
	t.Helper()
	root := &cobra.Command{Use: "mtls", SilenceUsage: true, SilenceErrors: true}
	addCommands(root)
	var text bytes.Buffer
	root.SetOut(&text)
	root.SetErr(io.Discard)
	root.SetIn(in)
	root.SetArgs(args)
	// explain sets Caddy's logging
	defer func() {
		if err := caddy.Validate(new(caddy.Config)); err != nil {
			t.Error(err)
		}
	}()
	err = root.Execute()
	return text.String(), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := runCommand(t, strings.NewReader(""), args...)
	if err != nil {
		t.Fatalf("mtls %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestCommandArguments(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"", "name a command; see 'mtls --help'"},
		{"insepct", "unknown command"},
		{"inspect", "accepts 1 arg(s), received 0"},
		{"inspect a b", "accepts 1 arg(s), received 2"},
		{"inspect --password a --password-file b c", "none of the others can be"},
		{"inspect --nonsense c", "unknown flag"},
		{"explain", "accepts 1 arg(s), received 0"},
		{"explain --at tomorrow a.pem", "--at \"tomorrow\" is no time; write it as 2027-01-31T12:00:00Z"},
		{"explain --config - -", "only one of configuration and certificate can be the standard input"},
		{"explain --config Caddyfile no-such-file.pem", "no-such-file.pem"},
	} {
		out, err := runCommand(t, strings.NewReader(""), strings.Fields(tc.args)...)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("mtls %s: %v, want %q\n%s", tc.args, err, tc.want, out)
		}
	}
}

// TestCommandHelp: every command has worked examples, which are commands.
func TestCommandHelp(t *testing.T) {
	for _, name := range []string{"inspect", "explain"} {
		out := mustRun(t, name, "--help")
		if !strings.Contains(out, "$ caddy mtls "+name) || !strings.Contains(out, "--password-file") {
			t.Errorf("the help of %s:\n%s", name, out)
		}
	}
}
