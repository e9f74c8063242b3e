package command_test

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// asCaddy is the environment variable of a process that is the command caddy.
const asCaddy = "MTLS_TEST_CADDY"

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	os.Exit(m.Run())
}

// adminOfProcess is the environment variable with the admin endpoint of [process].
const adminOfProcess = "MTLS_TEST_ADMIN"

// process runs the command caddy in a process of its own.
func process(t *testing.T, args ...string) (out, problems string, status int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), asCaddy+"=1", "CADDY_ADMIN="+cmp.Or(os.Getenv(adminOfProcess), "127.0.0.1:1"), "HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir, "XDG_DATA_HOME="+cmd.Dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// TestExitStatus checks what the process exits with, and that the error is on standard
// error, once.
func TestExitStatus(t *testing.T) {
	for _, tc := range []struct {
		args   string
		status int
		want   string
	}{
		{"mtls --help", 0, ""},
		{"mtls clients list --help", 0, ""},
		{"mtls clients init-db --print", 0, ""},
		{"mtls", 2, "missing command"},
		{"mtls status --limit 0", 2, "use a number from 1 to 1000"},
		{"mtls why --limit 1001", 2, "use a number from 1 to 1000"},
		{"mtls insepct", 2, "unknown command"}, //nolint:misspell // a misspelt command
		{"mtls clients", 2, "missing command"},
		{"mtls clients ls", 2, "unknown command"},
		{"mtls --nonsense", 2, "unknown flag"},
		{"mtls inspect", 2, "accepts 1 arg(s)"},
		{"mtls inspect --nonsense x", 2, "unknown flag"},
		{"mtls inspect --password a --password-file b c", 2, "none of the others can be"},
		{"mtls clients list --limit many", 2, "invalid argument"},
		{"mtls clients list --limit -1", 2, "use 0 to list all"},
		{"mtls clients add x", 2, "no credential"},
		{"mtls explain --at tomorrow x", 2, "invalid time"},
		{"mtls why hello", 2, "cannot be an error id"},
		{"mtls why --reason nonsense", 2, "no refusal has the reason"},
		{"mtls why 7gsx4nkp2", 1, "no admin API at 127.0.0.1:1"},
		{"mtls inspect none.pem", 1, "none.pem"},
		{"mtls realms", 1, "no admin API at 127.0.0.1:1"},
	} {
		out, problems, status := process(t, strings.Fields(tc.args)...)
		if status != tc.status || strings.Count(problems, "Error: ") != min(tc.status, 1) || !strings.Contains(problems, tc.want) {
			t.Errorf("caddy %s: exit status %d, want %d\n%s\n%s", tc.args, status, tc.status, out, problems)
		}
	}
}

// TestErrorsArePrintable checks that an error does not control the terminal.
func TestErrorsArePrintable(t *testing.T) {
	_, problems, status := process(t, "mtls", "inspect", "a\x1b[2J\u202e.pem")
	if status != 1 || !strings.Contains(problems, `a\x1b[2J\u202e.pem`) {
		t.Errorf("%d %q", status, problems)
	}
	_, err := run(t, strings.NewReader(""), "clients", "list", "--limit", "\x1b]0;x\a", "--address", "x")
	if err == nil || strings.ContainsFunc(err.Error(), unicode.IsControl) {
		t.Errorf("%q", err)
	}
}

// commands returns all commands that do something.
func commands() (list []*cobra.Command) {
	var add func(*cobra.Command)
	add = func(cmd *cobra.Command) {
		if !cmd.HasSubCommands() {
			list = append(list, cmd)
		}
		for _, below := range cmd.Commands() {
			add(below)
		}
	}
	root := &cobra.Command{Use: "caddy"}
	mtls := &cobra.Command{Use: "mtls"}
	root.AddCommand(mtls)
	caddycmd.Commands()["mtls"].CobraFunc(mtls)
	add(mtls)
	return list
}

// TestEveryCommandHasAnExample checks the help of every command.
func TestEveryCommandHasAnExample(t *testing.T) {
	for _, cmd := range commands() {
		help := cmd.Long + cmd.Example
		if !strings.Contains(help, cmd.CommandPath()+" ") && !strings.Contains(help, cmd.CommandPath()+"\n") && !strings.HasSuffix(help, cmd.CommandPath()) {
			t.Errorf("the help of '%s' has no example", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 81 && !strings.HasPrefix(line, "\t$ ") {
				t.Errorf("a line in the help of '%s' does not fit into a terminal: %s", cmd.CommandPath(), line)
			}
		}
	}
}

// TestEveryCommandPrintsJSON checks that programs can read what a command says.
func TestEveryCommandPrintsJSON(t *testing.T) {
	for _, cmd := range commands() {
		if cmd.Flags().Lookup("json") == nil && cmd.Name() != "demo" { // a story for people
			t.Errorf("'%s' has no --json", cmd.CommandPath())
		}
	}
}

// TestShellCompletion checks that Caddy's completion knows the commands and their flags,
// and asks a running Caddy for realms and clients.
func TestShellCompletion(t *testing.T) {
	script, _, status := process(t, "completion", "bash")
	if status != 0 || !strings.Contains(script, "__start_caddy") {
		t.Errorf("caddy completion bash: %d\n%.300s", status, script)
	}
	if bash := testtool.Path(t, "bash"); bash != "" {
		cmd := exec.Command(bash, "-n")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("bash does not read the script: %v\n%s", err, out)
		}
	}
	const evil = `{"client_id":"sensor\u001b[31m"}`
	for _, tc := range []struct {
		args, answer string
		want         []string
	}{
		{"mtls cli", "", []string{"clients"}},
		{"mtls clients d", "", []string{"disable"}},
		{"mtls clients list --wai", "", []string{"--waiting"}},
		{"mtls clients show sen", `{"clients":[{"client_id":"sensor-1"},{"client_id":"sensor-2"},` + evil + `,{"client_id":"tax"}]}`, []string{"sensor-1", "sensor-2"}},
		{"mtls clients show a b", "", nil},
		{"mtls clients list --realm p", `{"realms":[{"realm":"partners"},{"realm":"default"}]}`, []string{"partners"}},
		{"mtls clients show x", `not json`, nil},
	} {
		args := append([]string{"__complete"}, strings.Fields(tc.args)...)
		if tc.answer != "" {
			t.Setenv(adminOfProcess, strings.TrimPrefix(newAdminAPI(t, tc.answer).URL, "http://"))
		}
		out, problems, status := process(t, args...)
		var got []string
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if word != "" && word[0] != ':' {
				got = append(got, word)
			}
		}
		if status != 0 || !slices.Equal(got, tc.want) {
			t.Errorf("caddy %s: %q, want %q (exit status %d)\n%s", strings.Join(args, " "), got, tc.want, status, problems)
		}
	}
}
