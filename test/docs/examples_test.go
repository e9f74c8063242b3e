package docs_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const examplesPage = "examples/README.md"

var (
	exampleSetting = regexp.MustCompile(`(?m)^([a-z_]+)='?([^'\n]*)'?$`)
	examplesTable  = regexp.MustCompile(`(?m)^(\| language \| library .*\n\|[-|]+\|\n)((?:\|.*\n)*)`)
)

// TestExamplesAreListed checks that examples/README.md has a row for each language, as its
// example.sh describes it.
func TestExamplesAreListed(t *testing.T) {
	files, err := filepath.Glob("examples/*/example.sh")
	if err != nil || len(files) == 0 {
		t.Fatalf("no example.sh: %v", err)
	}
	var rows strings.Builder
	for _, file := range files {
		settings := make(map[string]string)
		for _, match := range exampleSetting.FindAllStringSubmatch(read(t, file), -1) {
			settings[match[1]] = match[2]
		}
		folder := path.Base(filepath.ToSlash(filepath.Dir(file)))
		lines, links := 0, ""
		for name := range strings.FieldsSeq(settings["client_files"]) {
			text, err := os.ReadFile(path.Join("examples", folder, name))
			if err != nil {
				t.Fatalf("%s: client_files: %v", file, err)
			}
			lines += bytes.Count(text, []byte("\n"))
			links += fmt.Sprintf(", [%s](%s)", path.Base(name), path.Join(folder, name))
		}
		for _, name := range []string{"title", "library", "programs", "client_files"} {
			if settings[name] == "" {
				t.Errorf("%s has no %s", file, name)
			}
		}
		fmt.Fprintf(&rows, "| [%s](%s) | %s | %s | %d | `%s` |\n", settings["title"], folder, settings["library"],
			strings.TrimPrefix(links, ", "), lines, strings.ReplaceAll(settings["programs"], " ", "`, `"))
	}
	text := read(t, examplesPage)
	table := examplesTable.FindStringSubmatchIndex(text)
	if table == nil {
		t.Fatalf("%s has no table of languages", examplesPage)
	}
	if *update {
		text = text[:table[4]] + rows.String() + text[table[5]:]
		if err := os.WriteFile(examplesPage, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text[table[4]:table[5]] != rows.String() {
		t.Errorf("the table of %s differs from examples/*/example.sh; run 'go test ./test/docs -run TestExamplesAreListed -update'", examplesPage)
	}
}

// TestExamplesCanBeBroken checks that the faults of test/examples/mutants apply to the Go
// examples as they are. Only CI runs the mutants.
func TestExamplesCanBeBroken(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	if output, err := exec.CommandContext(t.Context(), bash, "test/examples/mutants", "apply").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}
