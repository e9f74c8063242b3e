package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// asCaddy is the environment variable of a process that is the command caddy.
const asCaddy = "MTLS_TEST_CADDY"

// Shell runs a line in the folder of the rig, where caddy is this binary and its admin
// endpoint that of the rig.
func Shell(r *Rig, t *testing.T, line string) (out, problems string, status int) {
	t.Helper()
	needMain(t)
	bin := filepath.Join(r.Dir, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asCaddy, os.Args[0])
	if err := os.WriteFile(filepath.Join(bin, "caddy"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = r.Dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CADDY_ADMIN=127.0.0.1:"+r.Admin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return stdout.String(), stderr.String(), failed.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), 0
}

// MustShell is like [Shell], and ends the test unless the line succeeds.
func MustShell(r *Rig, t *testing.T, line string) string {
	t.Helper()
	out, problems, status := Shell(r, t, line)
	if status != 0 {
		t.Fatalf("%s\nexits with %d: %s", line, status, problems)
	}
	return out
}

// Command returns the command caddy with these arguments, which this binary is.
func Command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	needMain(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCaddy+"=1")
	return cmd
}
