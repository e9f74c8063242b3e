package mtlsauth

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestA9_C2_DeniedProxy: who has a stolen key of a proxy could be anybody, so
// the deny file ends its trust, on open connections too.
func TestA9_C2_DeniedProxy(t *testing.T) {
	f := newForwardingRig(t)
	f.write("deny", []byte("# nobody\n"))
	realm := forwardingRealm("edge", "rfc9440", "peer_key "+keyHash(f.stranger)+" "+keyHash(f.proxy))
	f.run(strings.Replace(realm, "\n\tclient billing.partner", "\n\trevocation {\n\t\tdeny \"@DIR@/deny\"\n\t}\n\tclient billing.partner", 1), "edge")
	const guarded = "https://api.test/edge/guarded"
	open, counted := map[string]*caller{}, map[string]*connections{}
	for _, protocol := range rigProtocols {
		open[protocol] = f.caller(t, protocol, f.stranger)
		counted[protocol] = open[protocol].connectionsTo("api.test")
		open[protocol].get(guarded, byRFC9440.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	}
	f.write("deny", []byte("public_key "+keyHash(f.stranger)+"\n"))
	for _, protocol := range rigProtocols {
		got := open[protocol].get(guarded, byRFC9440.send(f.billing))
		for deadline := time.Now().Add(rigPatience); got.status == http.StatusOK && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
			got = open[protocol].get(guarded, byRFC9440.send(f.billing))
		}
		f.wantRefusal(t, got, "edge", "certificate_revoked")
		counted[protocol].wantOne(t)
		f.wantNoToken(t, askToken(open[protocol], "https://auth.test/edge", "billing.partner", byRFC9440.send(f.billing)), "certificate_revoked")
		f.caller(t, protocol, f.proxy).get(guarded, byRFC9440.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	}
}

// TestA9_D4_IncludedRequest: a request that a page includes comes from the
// loopback address, with the headers of whoever asked for the page.
func TestA9_D4_IncludedRequest(t *testing.T) {
	f := newForwardingRig(t)
	paths := forwardingPaths("edge")
	f.start(forwardingRealm("edge", "rfc9440", "from 127.0.0.1"), `
https://api.test:@HTTPS@ {
	import mtls
	handle /page {
		header Content-Type text/html
		templates
		respond `+"`included: {{httpInclude \"/edge/guarded\"}}`"+`
	}
`+paths+"}\n")
	for _, protocol := range rigProtocols {
		f.callerFrom(t, protocol, nil, "127.0.0.1").get("https://api.test/edge/guarded", byRFC9440.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		got := f.callerFrom(t, protocol, nil, "127.0.0.3").get("https://api.test/page", byRFC9440.send(f.billing))
		if strings.Contains(got.body, "billing.partner") || got.status == http.StatusOK {
			t.Errorf("%s: %d %.500s", protocol, got.status, got.body)
		}
	}
	f.logs.wait(t, "the refusal of what was included", func(entry logEntry) bool {
		return entry.str("uri") == "/edge/guarded" && entry.str("remote_ip") == "127.0.0.1" && entry.str("reason") == "certificate_missing"
	})
}
