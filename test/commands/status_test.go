package commands_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestStatusCommand checks that the command prints what the status has, and that no
// name of a stranger reaches the terminal as it is.
func TestStatusCommand(t *testing.T) {
	r := rig.New(t)
	billing, stranger := r.Issue("billing"), r.SelfSigned("stranger", testpki.CommonName("red \x1b[31m\u202eexe"))
	r.AdminOn = true
	r.Start(`mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client billing {
			subject CN=billing
		}
		client idle {
			subject CN=idle
		}
		issuer https://auth.test:@HTTPS@
	}`, "https://api.test:@HTTPS@ {\n\timport mtls\n\tmtls_auth\n\treverse_proxy @UP@\n}\n")
	r.Caller(t, "h2", billing).Get("https://api.test/").WantClient(t, "billing")
	refused := r.Caller(t, "h2", stranger).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
	r.Logs.WithErrorID(t, "client refused", refused.ErrorID)

	rig.Await(r, t, "the signing key is made", func() bool {
		return strings.Contains(rig.MustShell(r, t, "caddy mtls keys list"), "active")
	})
	out := rig.MustShell(r, t, "caddy mtls status")
	for _, want := range []string{"Realm default, counted since 2", "clients: 1 of 2 seen", "issuer: https://auth.test:", "billing", "idle", "never", refused.ErrorID, `\u202e`, "Signing keys:", "active", "trust_pool", "ok"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s\nlacks %q", out, want)
		}
	}
	if strings.ContainsAny(out, "\x1b\u202e") {
		t.Errorf("%q controls the terminal", out)
	}
	if out := rig.MustShell(r, t, "caddy mtls status --never --realm default"); strings.Contains(out, "billing  ") && !strings.Contains(out, "idle") {
		t.Errorf("never seen are\n%s", out)
	}
	if shown := rig.JSON(t, rig.MustShell(r, t, "caddy mtls status --json --query IDLE")); shown["realms"] == nil {
		t.Errorf("%v", shown)
	}
	if out := rig.MustShell(r, t, "caddy mtls status --limit 1"); !strings.Contains(out, "More clients: --realm default --after billing") {
		t.Errorf("the first page is\n%s", out)
	}
	for line, status := range map[string]int{"caddy mtls status --realm other": 1, "caddy mtls status --limit 0": 2, "caddy mtls status x": 2} {
		if out, problems, got := rig.Shell(r, t, line); got != status || out != "" || problems == "" {
			t.Errorf("%s: exits with %d: %s%s", line, got, out, problems)
		}
	}
}
