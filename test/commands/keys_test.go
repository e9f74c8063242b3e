package commands_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestKeysCommandsOfARunningCaddy checks the commands about signing keys, and the version,
// with a running Caddy.
func TestKeysCommandsOfARunningCaddy(t *testing.T) {
	r := rig.New(t)
	r.AdminOn = true
	r.Issue("sensor-7")
	r.Start(tokenRealm, tokenSites)
	caller := r.Caller(t, "h2", nil)
	caller.Get("https://localhost/.well-known/openid-configuration/jwks") // which makes the first key
	states := func(out string) (list []string) {
		for _, match := range regexp.MustCompile(`(?m)^\S+ +ES256 +(\w+)`).FindAllStringSubmatch(out, -1) {
			list = append(list, match[1])
		}
		return list
	}
	for _, step := range []struct{ command, want string }{
		{"list", "active"},
		{"rotate", "active next"},
		{"rotate --retire now", "active"},
	} {
		if out := rig.MustShell(r, t, "caddy mtls keys "+step.command); strings.Join(states(out), " ") != step.want {
			t.Errorf("%s: want %s\n%s", step.command, step.want, out)
		}
	}
	rig.MustShell(r, t, "caddy mtls keys rotate")
	if _, problems, status := rig.Shell(r, t, "caddy mtls keys rotate"); status != 1 || !strings.Contains(problems, `to replace all keys at once, send {"retire":"now"}`) {
		t.Errorf("%d %s", status, problems)
	}
	if _, problems, status := rig.Shell(r, t, "caddy mtls keys list --realm other"); status != 1 || !strings.Contains(problems, "other") {
		t.Errorf("%d %s", status, problems)
	}
	if out := rig.MustShell(r, t, "caddy mtls version --running"); !strings.Contains(out, "running  ") {
		t.Error(out)
	}
}
