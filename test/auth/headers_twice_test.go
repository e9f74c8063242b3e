package auth_test

import (
	"net/http"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// twiceSite sends requests through two directives, and those below /third/ through three.
// The first one keeps what others remove, as while an API moves to the plugin.
const twiceSite = `
https://api.test:@HTTPS@ {
	import mtls
	route {
		mtls_auth {
			report_only
			header_up   X-Watched {http.mtls.client_id}
			keep_header X-Client-ID X-SSL-* X-Consumer-* X-Device
		}
		mtls_auth /guarded/* {
			header_up   X-Device {http.mtls.client_id}
			keep_header X-Consumer-* X-Watched
		}
		mtls_auth /guarded/third/* {
			header_up X-Third {http.mtls.client_id}
		}
		reverse_proxy @UP@
	}
}
`

// TestHeadersKeptByAnotherDirective_A8 checks that a header which one directive keeps is
// removed by the next one that does not, and that none removes what an earlier one set.
func TestHeadersKeptByAnotherDirective_A8(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	sensor := r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, twiceSite)
	const id, forged = "sensor-7", "admin"
	for path, want := range map[string]map[string]string{
		"/":               {"X-Watched": id, "X-Client-Id": forged, "X-Ssl-Client-S-Dn": forged, "X-Consumer-Username": forged, "X-Device": forged, "X-Third": ""},
		"/guarded/":       {"X-Watched": id, "X-Client-Id": "", "X-Ssl-Client-S-Dn": "", "X-Consumer-Username": forged, "X-Device": id, "X-Third": ""},
		"/guarded/third/": {"X-Watched": id, "X-Client-Id": "", "X-Ssl-Client-S-Dn": "", "X-Consumer-Username": "", "X-Device": id, "X-Third": id},
	} {
		for _, protocol := range rig.Protocols {
			var options []func(*http.Request)
			for name := range want {
				options = append(options, rig.With(name, forged))
			}
			got := r.Caller(t, protocol, sensor).Get("https://api.test"+path, options...).WantStatus(t, http.StatusOK)
			for name, value := range want {
				if seen := got.Seen.Header.Get(name); seen != value || len(got.Seen.Header[name]) > 1 {
					t.Errorf("%s over %s: %s is %q, want %q", path, protocol, name, got.Seen.Header[name], value)
				}
			}
		}
	}
}
