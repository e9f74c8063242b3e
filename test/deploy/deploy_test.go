// Package deploy_test tests what the repository has for running Caddy with the plugin
// under systemd, in containers and in Kubernetes.
package deploy_test

import (
	"os"
	"path/filepath"
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
