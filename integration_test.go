package mtlsauth

import (
	"net/http"
	"strings"
	"testing"
)

// oneSite guards the API behind for clients of the default realm.
const oneSite = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
`

// patientSite is oneSite with patience for an API that is slow to take a
// connection, as all are on a machine with more to do. Caddy's own three seconds
// end in a 502.
var patientSite = strings.Replace(oneSite, "reverse_proxy @UP@", "reverse_proxy @UP@ {\n\t\tlb_try_duration 20s\n\t\ttransport http {\n\t\t\tdial_timeout 10s\n\t\t}\n\t}", 1)

// billingAndSensor is a realm with a client of each kind: one that is known by
// its name and one that is pinned.
const billingAndSensor = `
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	client billing.partner {
		subject "CN=billing"
		scopes  invoices.read invoices.write
		claim   tenant "partner 7"
	}
	client sensor-7 {
		certificate "@DIR@/sensor.pem"
		scopes      telemetry
	}
}
`

func TestClientsReachTheAPI(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	r.start(billingAndSensor, oneSite)
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			r.caller(t, protocol, billing).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
			r.caller(t, protocol, sensor).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
			r.caller(t, protocol, nil).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
		})
	}
}
