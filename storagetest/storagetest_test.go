package storagetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// folderName is the environment variable with a folder that the processes of a test
// share.
const folderName = "MTLS_STORAGETEST_FOLDER"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(folderName) == "" {
		folder, err := os.MkdirTemp("", "storagetest")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer os.RemoveAll(folder)
		os.Setenv(folderName, folder)
		os.Setenv("STORAGE", fmt.Sprintf(`{"module": "file_system", "root": %q}`, filepath.Join(folder, "module")))
	}
	return m.Run()
}

// folder returns a folder of a test, which is the same in each process.
func folder(t *testing.T) string {
	return filepath.Join(os.Getenv(folderName), t.Name())
}

func TestFileStorage(t *testing.T) {
	t.Parallel()
	root := folder(t)
	Test(t, func(*testing.T) certmagic.Storage { return &certmagic.FileStorage{Path: root} })
	t.Cleanup(func() {
		if objects, err := filepath.Glob(filepath.Join(root, "mtls", "*")); err != nil || len(objects) > 0 {
			t.Errorf("left behind are %q, %v", objects, err)
		}
	})
}

// TestStorageOfTests checks the storage that the tests of this module use.
func TestStorageOfTests(t *testing.T) {
	t.Parallel()
	root := folder(t)
	Test(t, func(*testing.T) certmagic.Storage { return testenv.NewStorage(root) })
}
