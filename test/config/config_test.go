// Package config_test adapts and provisions valid and invalid configurations.
package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddymtls/caddy-mtls-auth"
)

// Hashes that belong to no certificate.
const (
	someSHA256  = "bca0d040847f843c5ee0fa6eb494837470155868bca0d040847f843c5ee0fa6e"
	otherSHA256 = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
	someSHA1    = "bca0d040847f843c5ee0fa6eb494837470155868"
)

// adaptText adapts a Caddyfile. Errors name file, and imports are relative to it.
func adaptText(file, text string) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": file})
}

// loggedLine is one line of Caddy's log.
type loggedLine map[string]any

// loaded is the outcome of provisioning a configuration without starting it, as
// `caddy validate` does.
type loaded struct {
	err     error
	lines   []loggedLine
	storage string
}

// loadCaddyfile adapts and provisions a Caddyfile.
func loadCaddyfile(t *testing.T, text string) loaded {
	t.Helper()
	config, _, err := adaptText("Caddyfile", text)
	if err != nil {
		t.Fatalf("adapting: %v", err)
	}
	return loadJSON(t, string(config))
}

// loadJSON provisions a configuration with its own log file and empty storage, and
// without an admin endpoint.
func loadJSON(t *testing.T, text string) loaded {
	t.Helper()
	dir := t.TempDir()
	logFile, storage := filepath.Join(dir, "caddy.log"), filepath.Join(dir, "storage")
	// the apps are not decoded, because that would drop duplicate members
	raw := make(map[string]json.RawMessage)
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatal(err)
	}
	raw["admin"] = json.RawMessage(`{"disabled":true,"config":{"persist":false}}`)
	raw["storage"] = caddyconfig.JSON(map[string]any{"module": "file_system", "root": storage}, nil)
	raw["logging"] = caddyconfig.JSON(map[string]any{"logs": map[string]any{"default": map[string]any{
		"level":   "DEBUG",
		"encoder": map[string]any{"format": "json"},
		"writer":  map[string]any{"output": "file", "filename": logFile, "roll": false},
	}}}, nil)
	var config *caddy.Config
	if err := caddy.StrictUnmarshalJSON(caddyconfig.JSON(raw, nil), &config); err != nil {
		t.Fatal(err)
	}
	result := loaded{storage: storage, err: caddy.Validate(config)}
	// loading another configuration closes the log file
	if err := caddy.Validate(new(caddy.Config)); err != nil {
		t.Fatal(err)
	}
	logged, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(logged) {
		var fields loggedLine
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatalf("%v in log line %s", err, line)
		}
		result.lines = append(result.lines, fields)
	}
	return result
}

// warnings returns the messages that the mtls app logged at WARN.
func (l loaded) warnings() []string {
	var messages []string
	for _, line := range l.lines {
		if line["level"] == "warn" && line["logger"] == "mtls" {
			messages = append(messages, line["msg"].(string))
		}
	}
	return messages
}
