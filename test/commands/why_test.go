package commands_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestWhyFromTheCallToTheRepair goes the way of an operator: a caller quotes what they
// got, the operator asks why, pastes the block, and the caller is admitted.
func TestWhyFromTheCallToTheRepair(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	partner := r.SelfSigned("partner", testpki.DNSNames("partner.example"))
	r.AdminOn = true
	const site = "https://api.test:@HTTPS@ {\n\timport mtls\n\tmtls_auth\n\treverse_proxy @UP@\n}\n"
	const billing = "client billing {\nsubject \"CN=billing\"\n}\n"
	start := func(clients string) string {
		return "mtls {\ntrust_pool file \"@DIR@/clients-ca.pem\"\n" + clients + "}\n"
	}
	r.Start(start(billing), site)
	got := r.Caller(t, "h2", partner).Get("https://api.test/orders").WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
	entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID)

	out := rig.MustShell(r, t, "caddy mtls why '"+strings.ToUpper(strings.TrimSpace(got.Body))+"'")
	reason := entry.Str("reason")
	text, _ := reasons.Of(reason)
	text = text.Plain()
	flat := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"error id " + got.ErrorID, "client refused, by mtls_auth of realm 'default'", "request api.test/orders", "reason " + reason,
		"detail " + entry.Str("detail"), "subject CN=partner", "thumbprint " + entry.Str("thumbprint"), "names san_dns partner.example", text.Sentence + " " + text.Remedy,
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("%s\nlacks %q", out, want)
		}
	}
	_, block, found := strings.Cut(out, "in place of CHANGE-ME:\n\n")
	if !found || strings.TrimSpace(block) != entry.Str("register") {
		t.Fatalf("the block is %q, that of the log %q", block, entry.Str("register"))
	}
	if out := rig.MustShell(r, t, "caddy mtls why --reason "+reason+" --since 1h"); !strings.Contains(out, got.ErrorID) || strings.Count(out, "\n") != 2 {
		t.Errorf("the list is\n%s", out)
	}
	if shown := rig.JSON(t, rig.MustShell(r, t, "caddy mtls why --json "+got.ErrorID)); shown["sentence"] != text.Sentence || shown["remedy"] != text.Remedy || shown["error_id"] != got.ErrorID {
		t.Errorf("%v", shown)
	}

	r.Reload(start(billing+strings.Replace(block, "CHANGE-ME", "partner", 1)), site)
	r.Caller(t, "h2", partner).Get("https://api.test/orders").WantClient(t, "partner")
	rig.MustShell(r, t, "caddy mtls why "+got.ErrorID) // also after the reload

	for line, status := range map[string]int{
		"caddy mtls why 222222222": 1, "caddy mtls why k3f9": 2, "caddy mtls why --since yesterday": 2, "caddy mtls why --limit 0": 2,
		"caddy mtls why --client-id ''": 2, "caddy mtls why --realm other": 1, "caddy mtls why --client-id nobody": 0,
	} {
		if out, problems, got := rig.Shell(r, t, line); got != status || out != "" || problems == "" {
			t.Errorf("%s: exits with %d: %s%s", line, got, out, problems)
		}
	}
}
