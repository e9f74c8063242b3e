package forwarded_test

import (
	"crypto/sha1"
	"fmt"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestFromANginxMap runs the Caddyfiles of the documentation for those who come from a
// map in nginx: behind nginx, without refusing anybody, and then in its place.
func TestFromANginxMap(t *testing.T) {
	r := rig.New(t)
	known, stranger := r.SelfSigned("sensor"), r.SelfSigned("stranger")
	r.Write("clients.caddy", fmt.Appendf(nil, "client sensor-7 {\n\tthumbprint %x\n}\n", sha1.Sum(known.Cert.Raw)))
	common := []string{"file clients-ca.pem", "file @DIR@/clients-ca.pem", "import clients.caddy", "import \"@DIR@/clients.caddy\"", "localhost:8080", "@UP@"}
	const page = "../../docs/from-nginx-or-haproxy.md"

	global, sites := rig.Snippet(t, page, 0, append(common, "http://:8081", "http://:@HTTP@")...)
	r.Start(global, sites)
	c := r.Plain(t)
	for leaf, want := range map[*testpki.Leaf]string{known: "sensor-7", stranger: ""} {
		got := c.Get("http://api.test:"+r.HTTP+"/", rig.ByNginx.Send(leaf), rig.With("X-SSL-Client-S-DN", "CN=as nginx says"))
		got.WantClient(t, want)
		if name := got.Seen.Header.Get("X-SSL-Client-S-DN"); name != "CN=as nginx says" {
			t.Errorf("the API got %q", name)
		}
	}
	r.Logs.Wait(t, "who would be refused", func(e rig.LogEntry) bool {
		return e.Str("msg") == "client would be refused" && e.Str("reason") == "certificate_unknown" && e.Str("register") != ""
	})

	global, sites = rig.Snippet(t, page, 1, append(common, "api.example.com {", "https://api.test:@HTTPS@ {",
		"tls {\n\t\tclient_auth {\n\t\t\tmode request\n\t\t}\n\t}", "import mtls")...)
	r.Reload(global, sites)
	r.Caller(t, "h2", known).Get("https://api.test/").WantClient(t, "sensor-7")
	r.WantReason(t, r.Caller(t, "h1", stranger).Get("https://api.test/").WantStatus(t, 401), "certificate_unknown")
}
