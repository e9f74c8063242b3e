package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
)

// Plugin is the plugin whose configuration is checked.
type Plugin struct {
	// AppID is the ID of its app.
	AppID string
	// DefaultRealm is the realm of a directive that names none.
	DefaultRealm string
	// NewApp returns an app that is not provisioned yet.
	NewApp func() App
}

// App is the app that has the realms. If its context has a logger, it is only checked; see
// [LoggerOf].
type App interface {
	caddy.Provisioner
	caddy.CleanerUpper
	// Observed returns the parts of an app that is provisioned.
	Observed() *observed.App
}

// loggerKey is the key of the logger in the context of a configuration that is only
// checked.
type loggerKey struct{}

// LoggerOf returns where the warnings of a configuration go that is only checked, nil for
// any other. Its storage is [EmptyStorage].
func LoggerOf(ctx context.Context) *zap.Logger {
	logger, _ := ctx.Value(loggerKey{}).(*zap.Logger)
	return logger
}

// checker finds what is wrong in a configuration. It provisions the realms and the
// directives of this plugin, and nothing else, so it starts nothing and needs neither the
// network nor storage.
type checker struct {
	ctx      caddy.Context
	findings *Findings
	// broken are realms that were left out, partial those without some of their
	// clients, and tokenless those without the issuer that they should have.
	broken, partial, tokenless map[string]bool
	plugin                     Plugin
	app                        *observed.App
	uses                       []use
}

// Check returns what is wrong in the apps of a configuration and its admin endpoint.
// loadable are the apps that Caddy may load in the context.
func (p Plugin) Check(ctx caddy.Context, loadable, apps caddy.ModuleMap, admin json.RawMessage) []Finding {
	c := &checker{
		ctx: ctx, plugin: p, findings: new(Findings),
		broken: make(map[string]bool), partial: make(map[string]bool), tokenless: make(map[string]bool),
	}
	var app struct {
		Realms map[string]json.RawMessage `json:"realms"`
	}
	if raw := apps[p.AppID]; raw != nil {
		if err := caddy.StrictUnmarshalJSON(raw, &app); err != nil {
			c.findings.AddError("", fmt.Errorf("app %s: %w", p.AppID, err))
			return c.findings.Sorted()
		}
	}
	if len(app.Realms) == 0 {
		c.findings.AddError("", errors.New("the configuration has no realm; add 'mtls { … }' to the global options"))
		return c.findings.Sorted()
	}
	clean := make(map[string]json.RawMessage)
	for _, name := range slices.Sorted(maps.Keys(app.Realms)) {
		if realm := c.cleanRealm(name, app.Realms[name]); realm != nil {
			clean[name] = realm
		} else {
			c.broken[name] = true
		}
	}
	c.findings.Skip = c.follows
	loadable[p.AppID], _ = json.Marshal(map[string]any{"realms": clean})
	c.ctx = ctx.WithValue(loggerKey{}, c.findings.Logger())
	module, err := c.ctx.App(p.AppID)
	if err != nil { // two realms that do not go together
		c.findings.AddError("", err)
		return c.findings.Sorted()
	}
	loaded := module.(App)
	defer func() { _ = loaded.Cleanup() }()
	c.app = loaded.Observed()
	c.checkServers(apps["http"])
	c.checkUses()
	c.checkTimes()
	c.checkAdmin(admin)
	return c.findings.Sorted()
}

// follows reports whether a warning may only follow from clients that are not known.
func (c *checker) follows(code, realm string) bool {
	return c.partial[realm] && slices.Contains([]string{"no_clients", "allow_unmatched", "scope_unmatched", "claim_unmatched", CodeNowhere}, code)
}

// checkAdmin reports an admin endpoint on more than the loopback interface, because
// it can change clients and keys.
func (c *checker) checkAdmin(raw json.RawMessage) {
	var admin struct {
		Disabled bool   `json:"disabled"`
		Listen   string `json:"listen"`
	}
	_ = json.Unmarshal(raw, &admin)
	address, err := caddy.ParseNetworkAddress(cmp.Or(admin.Listen, caddy.DefaultAdminListen))
	if err != nil || admin.Disabled || address.IsUnixNetwork() || address.Host == "localhost" {
		return
	}
	if ip := net.ParseIP(address.Host); ip == nil || !ip.IsLoopback() {
		c.findings.Add(CodeAdmin, "admin "+admin.Listen, "the admin endpoint listens on more than the loopback interface")
	}
}
