package auth_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestPanicOverTheWire_E2 checks that a panic during authentication ends the
// request with an error or without a response, and that the API is not reached.
func TestPanicOverTheWire_E2(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	realm := strings.Replace(rig.BillingAndSensor, `file "@DIR@/clients-ca.pem"`, `rig "@DIR@/clients-ca.pem" `+t.Name(), 1)
	r.Start(realm, rig.OneSite+strings.NewReplacer("api.test", "public.test", "mtls_auth", "mtls_auth {\n\toptional\n}").Replace(rig.OneSite))
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			clock.Broken.Store(true)
			before := r.Upstream.Hits.Load()
			for _, url := range []string{"https://api.test/", "https://public.test/"} {
				for _, leaf := range []*testpki.Leaf{billing, sensor} {
					got, err := r.Caller(t, protocol, leaf).Try(http.MethodPost, url, rig.With("X-Client-Id", "billing.partner"))
					if err == nil && got.Status < 500 {
						t.Errorf("%s is answered %d %.200q", url, got.Status, got.Body)
					}
				}
			}
			if n := r.Upstream.Hits.Load() - before; n > 0 {
				t.Errorf("%d requests reached the API", n)
			}
			clock.Broken.Store(false)
			r.Caller(t, protocol, billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		})
	}
}
