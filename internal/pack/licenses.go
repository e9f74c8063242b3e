package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// module is a module that has packages in a binary.
type module struct {
	path, version, dir string
	// texts are the files with licenses and notices, by their names in dir.
	texts []string
	// licenses are the SPDX identifiers of these licenses.
	licenses []string
}

// accepted are the licenses that a program under the Apache License 2.0 may contain, as
// long as it comes with their texts.
var accepted = map[string]bool{
	"Apache-2.0": true, "BSD-2-Clause": true, "BSD-2-Clause-Views": true, "BSD-3-Clause": true, "CC0-1.0": true, "ISC": true, "MIT": true,
	"MPL-2.0": true,
	"OFL-1.1": true, // of a font
}

// standardLibrary is what an SBOM of cyclonedx-gomod calls the module of Go's packages.
const standardLibrary = "std"

// modulesOf returns the modules of the binary for a target, Go's own first, with their
// licenses.
func modulesOf(ctx context.Context, target string) ([]*module, error) {
	goos, goarch, _ := strings.Cut(target, "/")
	list := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}\t{{$.Dir}}{{end}}{{end}}", "./cmd/caddy")
	list.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch)
	list.Stderr = os.Stderr
	packages, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the packages for %s: %w", target, err)
	}
	goEnv, err := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("asking go for its folder: %w", err)
	}
	goVersion, goRoot, _ := strings.Cut(strings.TrimSpace(string(goEnv)), "\n")

	library := &module{path: standardLibrary, version: goVersion, dir: goRoot}
	modules := []*module{library}
	folders := map[*module]map[string]bool{library: {".": true}}
	byPath := make(map[string]*module)
	for line := range strings.Lines(string(packages)) {
		field := strings.Split(strings.TrimSpace(line), "\t")
		if len(field) != 4 {
			return nil, fmt.Errorf("go list prints %q", line)
		}
		m := byPath[field[0]]
		if m == nil {
			m = &module{path: field[0], version: field[1], dir: field[2]}
			byPath[m.path], folders[m] = m, make(map[string]bool)
			modules = append(modules, m)
		}
		folder, err := filepath.Rel(m.dir, field[3])
		if err != nil {
			return nil, err
		}
		// a license also counts for the packages below its folder
		for ; folder != "."; folder = filepath.Dir(folder) {
			folders[m][folder] = true
		}
		folders[m]["."] = true
	}
	for _, m := range modules {
		if err := m.findLicenses(slices.Sorted(maps.Keys(folders[m]))); err != nil {
			return nil, fmt.Errorf("%s %s: %w", m.path, m.version, err)
		}
	}
	return modules, nil
}

var (
	licenseName = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying)([-.](mit|bsd|apache|apache-2\.0))?(\.(md|txt|rst))?$`)
	noticeName  = regexp.MustCompile(`(?i)^(notice|patents|copyright)(\.(md|txt|rst))?$`)
)

// findLicenses finds the texts in these folders of a module, and which licenses they are.
func (m *module) findLicenses(folders []string) error {
	found := make(map[string]bool)
	for _, folder := range folders {
		entries, err := os.ReadDir(filepath.Join(m.dir, folder))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			name := filepath.Join(folder, entry.Name())
			isLicense := licenseName.MatchString(entry.Name())
			if entry.Type()&fs.ModeType != 0 || !isLicense && !noticeName.MatchString(entry.Name()) {
				continue
			}
			m.texts = append(m.texts, name)
			if !isLicense {
				continue
			}
			text, err := os.ReadFile(filepath.Join(m.dir, name))
			if err != nil {
				return err
			}
			matches := licensecheck.Scan(text).Match
			if len(matches) == 0 {
				return fmt.Errorf("%s is no known license; read it, and teach internal/pack", name)
			}
			for _, match := range matches {
				if !accepted[match.ID] {
					return fmt.Errorf("%s has the license %s, which is not among those accepted; do without the module, or accept it in internal/pack", name, match.ID)
				}
				found[match.ID] = true
			}
		}
	}
	if len(found) == 0 {
		return errors.New("no license found in " + m.dir + "; a binary with this module cannot be distributed")
	}
	m.licenses = slices.Sorted(maps.Keys(found))
	return nil
}
