package mtlsauth_test

import (
	"net/http"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

func TestClientsReachTheAPI(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			r.Caller(t, protocol, billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			r.Caller(t, protocol, sensor).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
			r.Caller(t, protocol, nil).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
		})
	}
}
