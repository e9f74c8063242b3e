// Package deploy_test tests what the repository has for running Caddy with the plugin
// under systemd, in containers and in Kubernetes.
package deploy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// read returns the content of a file of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// startCaddy starts the command caddy and kills it at the end of the test.
func startCaddy(t *testing.T, args ...string) *os.Process {
	t.Helper()
	command := rig.Command(t, args...)
	var log bytes.Buffer
	command.Stderr = &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		if _ = command.Wait(); t.Failed() {
			t.Logf("Caddy logged:\n%s", &log)
		}
	})
	return command.Process
}

// TestCommandsNameTheProgram checks that a command in a manifest begins with the program,
// because the image has no entry point.
func TestCommandsNameTheProgram(t *testing.T) {
	if strings.Contains(read(t, "Dockerfile"), "\nENTRYPOINT") {
		t.Error("the image has an entry point, so the commands must not name the program")
	}
	for name, service := range readComposition(t).Services {
		if service.Image == "caddy-mtls-auth" && service.Command[0] != "caddy" {
			t.Errorf("the command of %s is %q", name, service.Command)
		}
	}
	for _, name := range []string{"base/caddy.yaml", "postgresql/init-db.yaml"} {
		if !strings.Contains(read(t, "contrib/kubernetes/"+name), "args: [caddy, ") {
			t.Errorf("the command in %s does not begin with caddy", name)
		}
	}
}
