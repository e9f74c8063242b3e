package demo_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddymtls/caddy-mtls-auth"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/demo"
)

// patience bounds how long a test waits for what takes moments.
const patience = time.Minute

// demoTemp sets the folder of temporary folders and fails the test if the demo leaves
// anything in it.
func demoTemp(t *testing.T) {
	t.Helper()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp) // Windows
	t.Cleanup(func() {
		left, err := os.ReadDir(temp)
		if err != nil || len(left) > 0 {
			t.Errorf("the demo leaves %v %v", left, err)
		}
	})
	t.Cleanup(func() { _ = caddy.Stop() })
}

// keep runs the demo with a folder that it leaves, and returns what it prints.
func keep(t *testing.T, dir string) (text string, err error) {
	t.Helper()
	var told bytes.Buffer
	err = demo.Run(t.Context(), &told, true, dir)
	return told.String(), err
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDemoSucceedsAndLeavesNothing(t *testing.T) {
	demoTemp(t)
	var told bytes.Buffer
	if err := demo.Run(t.Context(), &told, true, ""); err != nil {
		t.Fatalf("%v\n%s", err, told.String())
	}
	text := told.String()
	for _, want := range []string{
		"200  hello billing.partner", "200  hello sensor-7", "certificate_missing", "certificate_refused", "certificate_untrusted",
		"error_id", `"typ": "at+jwt"`, `"x5t#S256"`, "curl --cacert server-ca.pem --cert billing.pem",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the demo does not show %q", want)
		}
	}
	for _, never := range []string{"FAILED", "BEGIN", "PRIVATE", "eyJ"} {
		if strings.Contains(text, never) {
			t.Errorf("the demo shows %q", never)
		}
	}
	// a second run must not be disturbed by what the first one leaves in the process
	if err := demo.Run(t.Context(), new(bytes.Buffer), true, ""); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

// watchedWriter closes found when a text has been written.
type watchedWriter struct {
	want  string
	found chan struct{}
	text  strings.Builder
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	before := strings.Contains(w.text.String(), w.want)
	w.text.Write(p)
	if !before && strings.Contains(w.text.String(), w.want) {
		close(w.found)
	}
	return len(p), nil
}

// TestDemoStaysUntilInterrupted checks that the demo runs until it is
// interrupted, and then cleans up.
func TestDemoStaysUntilInterrupted(t *testing.T) {
	demoTemp(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	told := &watchedWriter{want: "Caddy runs until Ctrl-C", found: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- demo.Run(ctx, told, false, "") }()
	select {
	case <-told.found:
	case err := <-done:
		t.Fatalf("the demo ended by itself: %v", err)
	case <-time.After(patience):
		t.Fatal("the demo does not get to its end")
	}
	interrupt()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the demo does not end")
	}
}
