// Package docs_test holds the documentation against the code: every snippet
// adapts, every word of the configuration has its heading, every metric and
// reason its row, and every link a target.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddymtls/caddy-mtls-auth"
)

// reference is the folder of the reference.
const reference = "docs/reference"

// TestMain runs the tests in the root of the repository, so that files have
// the names that readers know.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// notOurs are folders of libraries and of what is built, and those with test data.
var notOurs = []string{"node_modules", "vendor", "target", "dist", "testdata"}

// filesOf returns the files of the repository whose name ends in suffix, those
// of hidden folders, libraries and test data left out.
func filesOf(t *testing.T, suffix string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && (strings.HasPrefix(entry.Name(), ".") || slices.Contains(notOurs, entry.Name())):
			return fs.SkipDir
		case !entry.IsDir() && strings.HasSuffix(path, suffix):
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no file ends in %s", suffix)
	}
	return files
}

// sourcesOf returns the text of every Go file that is not a test.
func sourcesOf(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, file := range filesOf(t, ".go") {
		if !strings.HasSuffix(file, "_test.go") {
			texts[file] = read(t, file)
		}
	}
	return texts
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// page returns the text of a page of the reference.
func page(t *testing.T, name string) string {
	t.Helper()
	return read(t, filepath.Join(reference, name))
}

var fence = regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$")

// snippet is a fenced block of a document.
type snippet struct {
	where, kind, text string
	// before is the Caddyfile that came before it in the document, "" if none.
	before string
}
