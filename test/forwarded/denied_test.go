package forwarded_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestDeniedProxy_A9_C2 checks that the deny file ends trust in a proxy, even on open
// connections. An attacker with a proxy's stolen key could impersonate any client.
func TestDeniedProxy_A9_C2(t *testing.T) {
	f := rig.NewForwardingRig(t)
	f.Write("deny", []byte("# nobody\n"))
	realm := rig.ForwardingRealm("edge", "rfc9440", "peer_key "+rig.KeyHash(f.Stranger)+" "+rig.KeyHash(f.Proxy))
	run(f, strings.Replace(realm, "\n\tclient billing.partner", "\n\trevocation {\n\t\tdeny \"@DIR@/deny\"\n\t}\n\tclient billing.partner", 1), "edge")
	const guarded = "https://api.test/edge/guarded"
	open, counted := map[string]*rig.Caller{}, map[string]*rig.Connections{}
	for _, protocol := range rig.Protocols {
		open[protocol] = f.Caller(t, protocol, f.Stranger)
		counted[protocol] = open[protocol].ConnectionsTo("api.test")
		open[protocol].Get(guarded, rig.ByRFC9440.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
	f.Write("deny", []byte("public_key "+rig.KeyHash(f.Stranger)+"\n"))
	for _, protocol := range rig.Protocols {
		got := open[protocol].Get(guarded, rig.ByRFC9440.Send(f.Billing))
		for deadline := time.Now().Add(rig.Patience); got.Status == http.StatusOK && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
			got = open[protocol].Get(guarded, rig.ByRFC9440.Send(f.Billing))
		}
		rig.WantRefusal(f.Rig, t, got, "edge", "certificate_revoked")
		counted[protocol].WantOne(t)
		rig.WantNoToken(f.Rig, t, rig.AskToken(open[protocol], "https://auth.test/edge", "billing.partner", rig.ByRFC9440.Send(f.Billing)), "certificate_revoked")
		f.Caller(t, protocol, f.Proxy).Get(guarded, rig.ByRFC9440.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
}

// TestIncludedRequest_A9_D4 checks that a request included by a page is not trusted. It
// comes from the loopback address with the headers of the page's caller.
func TestIncludedRequest_A9_D4(t *testing.T) {
	f := rig.NewForwardingRig(t)
	paths := forwardingPaths("edge")
	f.Start(rig.ForwardingRealm("edge", "rfc9440", "from 127.0.0.1"), `
https://api.test:@HTTPS@ {
	import mtls
	handle /page {
		header Content-Type text/html
		templates
		respond `+"`included: {{httpInclude \"/edge/guarded\"}}`"+`
	}
`+paths+"}\n")
	for _, protocol := range rig.Protocols {
		rig.CallerFrom(f.Rig, t, protocol, nil, "127.0.0.1").Get("https://api.test/edge/guarded", rig.ByRFC9440.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		got := rig.CallerFrom(f.Rig, t, protocol, nil, "127.0.0.3").Get("https://api.test/page", rig.ByRFC9440.Send(f.Billing))
		if strings.Contains(got.Body, "billing.partner") || got.Status == http.StatusOK {
			t.Errorf("%s: %d %.500s", protocol, got.Status, got.Body)
		}
	}
	f.Logs.Wait(t, "the refusal of what was included", func(entry rig.LogEntry) bool {
		return entry.Str("uri") == "/edge/guarded" && entry.Str("remote_ip") == "127.0.0.1" && entry.Str("detail") == "no certificate was presented"
	})
}
