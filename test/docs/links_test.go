package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	headingLine = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	// notInAnchor is what GitHub leaves out of the anchor of a heading.
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	link        = regexp.MustCompile(`\]\(([^()\s]+)\)`)
)

// anchorsOf returns the anchors of the headings of a Markdown text.
func anchorsOf(text string) map[string]bool {
	anchors := make(map[string]bool)
	for _, match := range headingLine.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		anchor := strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-")
		unique := anchor
		for i := 1; anchors[unique]; i++ {
			unique = fmt.Sprintf("%s-%d", anchor, i)
		}
		anchors[unique] = true
	}
	return anchors
}

// TestLinks checks that every relative link of every document leads to a file,
// and to a heading in it where it names one.
func TestLinks(t *testing.T) {
	for _, file := range filesOf(t, ".md") {
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(read(t, file), ""), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(match[1], "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", file, match[1])
				continue
			}
			if anchor != "" && !anchorsOf(read(t, target))[anchor] {
				t.Errorf("%s: %s has no heading #%s", file, target, anchor)
			}
		}
	}
}

// TestReferenceIsComplete checks that the index of the reference links every
// page of it.
func TestReferenceIsComplete(t *testing.T) {
	pages, err := filepath.Glob(reference + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	index := page(t, "README.md")
	for _, file := range pages {
		if name := filepath.Base(file); name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("the index of the reference does not link %s", name)
		}
	}
}

func TestAnchors(t *testing.T) {
	anchors := anchorsOf("# `mtls_auth`\n## What it leaves to you\n### `audience`\n#### `audience`\n```sh\n# no heading\n```\n## `handle` and `route`\n")
	for _, want := range []string{"mtls_auth", "what-it-leaves-to-you", "audience", "audience-1", "handle-and-route"} {
		if !anchors[want] {
			t.Errorf("no anchor %s in %v", want, anchors)
		}
	}
	if len(anchors) != 5 {
		t.Errorf("anchors %v", anchors)
	}
}

// TestWalksNameWhatExists checks that the names which CONTRIBUTING.md gives after
// a link to a Go file are in that file.
func TestWalksNameWhatExists(t *testing.T) {
	name := regexp.MustCompile("`([A-Za-z]+\\.)?([A-Za-z]+)`")
	endOfItem := regexp.MustCompile(`\n\n|\n[0-9]+\.|\n- | \|`)
	found := 0
	for _, segment := range strings.Split(read(t, "CONTRIBUTING.md"), "](")[1:] {
		file, text, _ := strings.Cut(segment, ")")
		if !strings.HasSuffix(file, ".go") {
			continue
		}
		text = endOfItem.Split(text, 2)[0]
		source := read(t, file)
		for _, match := range name.FindAllStringSubmatch(text, -1) {
			found++
			if !regexp.MustCompile(`\b` + match[2] + `\b`).MatchString(source) {
				t.Errorf("CONTRIBUTING.md: %s has no %s", file, match[2])
			}
		}
	}
	if found < 20 {
		t.Errorf("found %d names; does the pattern still fit?", found)
	}
}
