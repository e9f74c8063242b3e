package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

const mit = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`

// TestLicensesOfAModule checks which files of a module go into an archive, and which
// modules must not be distributed.
func TestLicensesOfAModule(t *testing.T) {
	apache := readFile(t, "../../LICENSE")
	for name, c := range map[string]struct {
		texts           map[string]string
		files, licenses []string
		problem         string
	}{
		"a license":        {map[string]string{"LICENSE": mit, "README.md": "text"}, []string{"LICENSE"}, []string{"MIT"}, ""},
		"other names":      {map[string]string{"COPYING": mit, "LICENSE-APACHE-2.0.txt": apache}, []string{"COPYING", "LICENSE-APACHE-2.0.txt"}, []string{"Apache-2.0", "MIT"}, ""},
		"notices":          {map[string]string{"license.md": mit, "NOTICE.txt": "by us", "PATENTS": "none"}, []string{"NOTICE.txt", "PATENTS", "license.md"}, []string{"MIT"}, ""},
		"code of others":   {map[string]string{"LICENSE": mit, "json/LICENSE": apache}, []string{"LICENSE", "json/LICENSE"}, []string{"Apache-2.0", "MIT"}, ""},
		"unused folders":   {map[string]string{"LICENSE": mit, "cmd/LICENSE": "unknown"}, []string{"LICENSE"}, []string{"MIT"}, ""},
		"code of licenses": {map[string]string{"LICENSE": mit, "license.go": "package", "licenses.txt": "text"}, []string{"LICENSE"}, []string{"MIT"}, ""},
		"none":             {map[string]string{"README.md": mit}, nil, nil, "no license found"},
		"a notice alone":   {map[string]string{"NOTICE": mit}, nil, nil, "no license found"},
		"unknown":          {map[string]string{"LICENSE": "Ask us."}, nil, nil, "LICENSE is no known license"},
		"not accepted": {map[string]string{"LICENSE": mit, "json/LICENSE": "This program is free software: you can redistribute it and/or modify it under the terms of the GNU Affero General Public License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version."},
			nil, nil, "json/LICENSE has the license AGPL-3.0-or-later"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &module{path: "a", dir: t.TempDir()}
			for _, folder := range []string{"json", "cmd"} {
				if err := os.Mkdir(filepath.Join(m.dir, folder), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for file, text := range c.texts {
				if err := os.WriteFile(filepath.Join(m.dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := m.findLicenses([]string{".", "json"})
			if c.problem != "" {
				testtool.WantError(t, err, c.problem)
				return
			}
			if err != nil || !slices.Equal(m.texts, c.files) || !slices.Equal(m.licenses, c.licenses) {
				t.Errorf("%v %q %q", err, m.texts, m.licenses)
			}
		})
	}
}

// TestLicensesOfTheBinary checks that everything in a binary can be distributed, for each
// target.
func TestLicensesOfTheBinary(t *testing.T) {
	t.Chdir("../..")
	script := readFile(t, "scripts/release")
	_, targets, _ := strings.Cut(script, "\ntargets='")
	targets, _, _ = strings.Cut(targets, "'\n")
	if len(strings.Fields(targets)) != 6 {
		t.Fatalf("targets are %q", targets)
	}
	for target := range strings.FieldsSeq(targets) {
		modules, err := modulesOf(t.Context(), target)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		texts := make(map[string][]string)
		for _, m := range modules {
			texts[m.path] = m.texts
		}
		if len(modules) < 100 || modules[0].path != standardLibrary || !slices.Contains(texts["github.com/go-jose/go-jose/v4"], "json/LICENSE") || texts["github.com/caddymtls/caddy-mtls-auth"] != nil {
			t.Errorf("%s: %v", target, texts)
		}
		if _, ok := texts["github.com/tailscale/go-winio"]; ok != strings.HasPrefix(target, "windows/") {
			t.Errorf("%s: the packages are not those of the target: %v", target, texts)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
