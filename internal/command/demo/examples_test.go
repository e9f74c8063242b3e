//go:build unix

package demo_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestDemoRunsExamples starts the Caddyfile that the demo has left, and runs lines that
// the demo has printed.
func TestDemoRunsExamples(t *testing.T) {
	shell := testtool.Path(t, "sh")
	for _, program := range []string{"go", "curl"} {
		testtool.Path(t, program)
	}
	modules := exec.CommandContext(t.Context(), "go", "mod", "download")
	modules.Dir = filepath.Join(repository, "examples", "go")
	if out, err := modules.CombinedOutput(); err != nil {
		testtool.Missing(t, "the libraries of the Go example are not here: %v\n%s", err, out)
	}
	dir, text := keepDemo(t)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(readFile(t, filepath.Join(dir, "Caddyfile"))), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	command := func(line string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), shell, "-c", line)
		cmd.Dir, cmd.Env = repository, append(os.Environ(), "CURL_CA_BUNDLE=/not/the/demo", "no_proxy=localhost", "TMPDIR="+temp, "XDG_RUNTIME_DIR="+temp)
		return cmd
	}
	want := func(line, want string) {
		t.Helper()
		cmd, stderr := command(line), new(bytes.Buffer)
		cmd.Stderr = stderr
		if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s\nprinted %q, want %q; %v %s", line, out, want, err, stderr)
		}
	}
	want(lineOf(t, text, `curl +(\(.*\))`), "hello billing.partner")
	want(lineOf(t, text, `Go +(\(.*\))`), "hello billing.partner")

	settings := environment(t, dir)
	for _, api := range []struct{ listen, call, want string }{
		{"HEADERS_UPSTREAM", `\$ (curl .*` + settings["HEADERS_API"] + `)`, "hello billing.partner"},
		{"TOKEN_UPSTREAM", `\$ (.* API=\$TOKEN_API/invoices .*)`, "invoices of billing.partner"},
	} {
		server := command(lineOf(t, text, `Go +(.*LISTEN=\$`+api.listen+` .*)`))
		server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run would leave the API running
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		waitForListener(t, settings[api.listen])
		want(lineOf(t, text, api.call), api.want)
		_ = syscall.Kill(-server.Process.Pid, syscall.SIGKILL)
		_ = server.Wait()
	}
}

// waitForListener waits for a server that is built first.
func waitForListener(t *testing.T, address string) {
	t.Helper()
	for end := time.Now().Add(5 * patience); ; time.Sleep(20 * time.Millisecond) {
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err == nil {
			connection.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
