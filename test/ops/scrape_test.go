package ops_test

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestScrapesAndAdminRequestsDuringLoads_S5 reads the metrics and the admin API
// continuously while configurations are loaded, because Caddy serves the metrics of
// a configuration before it has provisioned its directives.
func TestScrapesAndAdminRequestsDuringLoads_S5(t *testing.T) {
	r := rig.New(t)
	r.AdminOn = true
	r.Issue("billing")
	var trusted strings.Builder
	for i := range 40 {
		// nothing listens on this port; keys are not fetched before the start
		fmt.Fprintf(&trusted, `
		trust_issuer https://127.0.0.1:1/%d {
			audience  api
			id_prefix i%d-
			trust_pool file "@DIR@/other-ca.pem"
		}`, i, i)
	}
	global := `mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client billing {
			subject CN=billing
		}
		forwarded_certificate rfc9440 {
			from 127.0.0.2
		}
		issuer https://auth.test
	}
	mtls other {
		client sensor {
			thumbprint bca0d040847f843c5ee0fa6eb494837470155868
		}
		issuer https://auth.test/other
	}`
	sites := `https://api.test:@HTTPS@ {
	import mtls
	mtls_auth /a {
		forward_certificate
		forward_token {
			audience behind
		}
	}
	mtls_bearer /b {
		realm default
		audience api` + trusted.String() + `
	}
	mtls_bearer /c {
		realm other
		audience api` + trusted.String() + `
	}
	respond ok
}
`
	r.Start(global, sites)

	done := make(chan struct{})
	var readers sync.WaitGroup
	for _, path := range []string{"/metrics", "/metrics", "/mtls/realms/default/keys", "/config/apps/mtls/realms"} {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				// the endpoint is briefly unavailable while Caddy replaces it
				if response, err := rig.AdminClient.Get("http://127.0.0.1:" + r.Admin + path); err == nil {
					_, _ = io.Copy(io.Discard, response.Body)
					_ = response.Body.Close()
				}
			}
		})
	}
	for range 10 {
		if err := r.Load(global, sites); err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	readers.Wait()
	if !strings.Contains(rig.Metrics(r, t), `caddy_mtls_clients{realm="default",source="config"} 1`) {
		t.Error("the metrics have lost the clients")
	}
}
