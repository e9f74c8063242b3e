package command

import (
	"encoding/json"
	"errors"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// configFile has the parts of a configuration that commands ask for.
type configFile struct {
	Storage json.RawMessage            `json:"storage"`
	Apps    map[string]json.RawMessage `json:"apps"`
	Admin   json.RawMessage            `json:"admin"`
}

// quietly makes Caddy log nothing but errors, on standard error.
func quietly() *caddy.Logging {
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{
			Level:     "ERROR",
			WriterRaw: caddyconfig.JSONModuleObject(caddy.StderrWriter{}, "output", "stderr", nil),
		}},
	}}
}

// readConfig adapts a configuration file, as 'caddy validate' does.
func readConfig(file, adapter string) (*configFile, error) {
	// adapting the file logs, so this comes first
	if _, err := caddy.ProvisionContext(&caddy.Config{Logging: quietly()}); err != nil {
		return nil, err
	}
	text, _, _, err := caddycmd.LoadConfig(file, adapter)
	if err != nil {
		return nil, err
	}
	whole := new(configFile)
	if err := json.Unmarshal(caddy.RemoveMetaFields(text), whole); err != nil {
		return nil, err
	}
	return whole, nil
}

// provision returns the context of a configuration with the storage, and without apps.
// Those that are added to its AppsRaw afterwards are provisioned only when something asks
// for them.
func (c *configFile) provision() (*caddy.Config, caddy.Context, error) {
	config := &caddy.Config{StorageRaw: c.Storage, AppsRaw: make(caddy.ModuleMap), Logging: quietly()}
	ctx, err := caddy.ProvisionContext(config)
	return config, ctx, err
}

// configOrDefault returns the file of --config, or the Caddyfile in the current
// directory.
func configOrDefault(file string) (string, error) {
	if file != "" {
		return file, nil
	}
	if _, err := os.Stat("Caddyfile"); err != nil {
		return "", errors.New("no Caddyfile in the current directory; name a configuration with --config")
	}
	return "Caddyfile", nil
}

// unreadable returns why a configuration file cannot be read.
func unreadable(file string) error {
	if file == "-" {
		return nil
	}
	opened, err := os.Open(file)
	if err != nil {
		return err
	}
	return opened.Close()
}
