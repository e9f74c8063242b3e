package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

const bomOfTool = `{
	"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6",
	"metadata": {
		"tools": [{"name": "cyclonedx-gomod", "hashes": [{"alg": "MD5", "content": "00"}]}],
		"component": {"name": "plugin", "purl": "pkg:golang/plugin?a=b&c=d"}
	},
	"components": [{"name": "a", "version": "v1.0.0", "hashes": [{"alg": "SHA-256"}]}, {"name": "std", "version": "go1.26.8"}]
}`

// TestCompleteBOM checks what is added to the SBOM of the tool, and what is removed.
func TestCompleteBOM(t *testing.T) {
	modules := []*module{{path: "std", version: "go1.26.8", licenses: []string{"BSD-3-Clause"}}, {path: "a", version: "v1.0.0", licenses: []string{"Apache-2.0", "MIT"}}}
	at := time.Date(2026, 11, 29, 21, 35, 30, 0, time.UTC)
	const want = `{"$schema":"http://cyclonedx.org/schema/bom-1.6.schema.json","bomFormat":"CycloneDX","components":[` +
		`{"evidence":{"licenses":[{"license":{"id":"Apache-2.0"}},{"license":{"id":"MIT"}}]},"hashes":[{"alg":"SHA-256"}],"name":"a","version":"v1.0.0"},` +
		`{"evidence":{"licenses":[{"license":{"id":"BSD-3-Clause"}}]},"name":"std","version":"go1.26.8"}],` +
		`"metadata":{"component":{"licenses":[{"license":{"id":"Apache-2.0"}}],"name":"plugin","purl":"pkg:golang/plugin?a=b\u0026c=d"},` +
		`"timestamp":"2026-11-29T21:35:30Z","tools":[{"name":"cyclonedx-gomod"}]},"specVersion":"1.6"}`
	text, err := completeBOM([]byte(bomOfTool), modules, at)
	if err != nil {
		t.Fatal(err)
	}
	var bom any
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(bom); err != nil || string(got) != want {
		t.Errorf("%v\n%s\n%s", err, got, want)
	}

	_, err = completeBOM([]byte(bomOfTool), modules[:1], at)
	testtool.WantError(t, err, "it has a@v1.0.0, which is not among the packages that were built")
	_, err = completeBOM([]byte(bomOfTool), append(modules, &module{path: "b", version: "v2.0.0"}), at)
	testtool.WantError(t, err, "it lacks b@v2.0.0")
	_, err = completeBOM([]byte(`{}`), modules, at)
	testtool.WantError(t, err, "it does not say what it is about")
	_, err = completeBOM([]byte(`[`), modules, at)
	testtool.WantError(t, err, "unexpected end")
}
