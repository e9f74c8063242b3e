package page_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// screenshots is an environment variable with a folder in which the tests leave
// screenshots of what they look at.
const screenshots = "MTLS_TEST_SCREENSHOTS"

// view is a page to look at.
type view struct {
	name string

	URL    string `json:"url"`
	Width  int    `json:"width"`
	Scheme string `json:"scheme"`
	// Steps are what a person does on the page first.
	Steps [][]string `json:"steps,omitempty"`
	// Address is where the steps lead.
	Address string `json:"address,omitempty"`
	// Axe is whether the rules of axe-core are checked.
	Axe bool `json:"axe"`
	// WithoutPolicy turns off the page's Content-Security-Policy, so that what gets past
	// the escaping shows.
	WithoutPolicy bool   `json:"withoutPolicy"`
	Screenshot    string `json:"screenshot,omitempty"`
	// Cut limits the screenshot to what is seen without scrolling.
	Cut         bool         `json:"cut,omitempty"`
	Credentials *credentials `json:"credentials,omitempty"`
}

type credentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// found is what a browser has found on a page.
type found struct {
	Failed     string   `json:"failed"` // why it could not be looked at
	Text       string   `json:"text"`
	Tags       []string `json:"tags"`
	Attributes []string `json:"attributes"`
	Links      []string `json:"links"`
	Overflow   int      `json:"overflow"` // how many pixels the page is wider than the screen
	Hidden     bool     `json:"hidden"`
	Pwned      bool     `json:"pwned"`
	Headings   []int    `json:"headings"`
	Console    []string `json:"console"`
	Requests   []string `json:"requests"`
	Dialogs    int      `json:"dialogs"`
	Violations []string `json:"violations"`
}

// look opens the views in Debian's Chromium.
func look(t *testing.T, views []view) []found {
	t.Helper()
	node, chromium := testtool.Path(t, "node"), testtool.Path(t, "chromium")
	if _, err := os.Stat("node_modules"); err != nil {
		testtool.Missing(t, "run 'npm ci' in test/page, where playwright-core and axe-core are not installed")
	}
	if dir := os.Getenv(screenshots); dir != "" {
		for i := range views {
			views[i].Screenshot = filepath.Join(dir, views[i].name+".png")
		}
	}
	input, err := json.Marshal(map[string]any{"executable": chromium, "views": views})
	if err != nil {
		t.Fatal(err)
	}
	var output, problems bytes.Buffer
	command := exec.CommandContext(t.Context(), node, "look.mjs")
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(input), &output, &problems
	if err := command.Run(); err != nil {
		t.Fatalf("look.mjs: %v\n%s", err, problems.String())
	}
	var results []found
	if err := json.Unmarshal(output.Bytes(), &results); err != nil || len(results) != len(views) {
		t.Fatalf("look.mjs found %d of %d views: %v", len(results), len(views), err)
	}
	return results
}
