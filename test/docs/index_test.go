package docs_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestIndexHasEveryPage checks that the index of the documentation leads to every page,
// and the index of the reference to every page of the reference.
func TestIndexHasEveryPage(t *testing.T) {
	for _, index := range []string{"docs/README.md", reference + "/README.md"} {
		var listed, pages []string
		for _, match := range link.FindAllStringSubmatch(read(t, index), -1) {
			target, _, _ := strings.Cut(match[1], "#")
			if filepath.Dir(target) == "." {
				listed = append(listed, target)
			}
		}
		for _, file := range filesOf(t, ".md") {
			if filepath.Dir(file) == filepath.Dir(index) && file != index {
				pages = append(pages, filepath.Base(file))
			}
		}
		if list := missing(pages, listed); len(list) > 0 {
			t.Errorf("%s does not lead to %q", index, list)
		}
	}
}

// TestPagesLeadOn checks that every page ends with where its reader goes next.
func TestPagesLeadOn(t *testing.T) {
	for _, file := range filesOf(t, ".md") {
		if !strings.HasPrefix(file, "docs/") || file == "docs/README.md" || file == checksPage {
			continue
		}
		text := strings.TrimSpace(read(t, file))
		last := text[strings.LastIndex(text, "\n\n")+2:]
		if !strings.HasPrefix(last, "Next: ") || !link.MatchString(last) {
			t.Errorf("%s does not say what to read next", file)
		}
	}
}
