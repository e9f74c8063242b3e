package auth_test

import (
	"net/http"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// combinedSite runs mtls_auth several times on one request, and other directives
// that use the identity.
const combinedSite = `
(told) {
	reverse_proxy @UP@ {
		header_up X-Told-Id    {http.mtls.client_id}
		header_up X-Told-Realm {http.mtls.realm}
		header_up X-Told-User  {http.auth.user.id}
		header_up X-Told-Error {http.mtls.error}
	}
}

https://api.test:@HTTPS@ {
	import mtls
	log
	handle /narrow/* {
		route {
			mtls_auth
			mtls_auth /narrow/billing {
				allow     billing.*
				header_up X-Second {http.mtls.client_id}
			}
			mtls_auth /narrow/scope {
				require_scope telemetry
			}
			reverse_proxy @UP@
		}
	}
	handle /wider {
		route {
			mtls_auth {
				allow billing.partner
			}
			mtls_auth
			reverse_proxy @UP@
		}
	}
	handle /cleared/own {
		route {
			mtls_auth
			mtls_auth {
				realm devices
				report_only
			}
			import told
		}
	}
	handle /cleared/other {
		route {
			mtls_auth
			mtls_auth {
				realm     devices
				report_only
				header_up X-Device {http.mtls.client_id}
			}
			import told
		}
	}
	handle /rooms {
		mtls_auth {
			optional
		}
		@billing expression ` + "`" + `{http.mtls.client_id} == "billing.partner"` + "`" + `
		respond @billing "billing room"
		@sensor header X-Client-ID sensor-7
		respond @sensor "sensor room"
		@forged header X-Client-ID *
		respond @forged "forged"
		@vars vars {http.mtls.client_id} ""
		respond @vars "nobody's room"
	}
	handle /errors/* {
		mtls_auth /errors/denied {
			allow billing.partner
		}
		mtls_auth
		reverse_proxy @UP@
	}
	handle_errors {
		respond "reason [{http.mtls.error}] message [{http.error.message}] client [{http.mtls.client_id}] user [{http.auth.user.id}]"
	}
}
`

func startCombined(t *testing.T) (r *rig.Rig, billing, sensor *testpki.Leaf) {
	r = rig.New(t)
	billing, sensor = r.Issue("billing"), r.SelfSigned("sensor")
	r.Start(twoRealms, combinedSite)
	return r, billing, sensor
}

func TestLaterDirectivesNarrow(t *testing.T) {
	r, billing, sensor := startCombined(t)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			forged := rig.With("X-Second", "sensor-7")
			asBilling, asSensor := r.Caller(t, protocol, billing), r.Caller(t, protocol, sensor)
			got := asBilling.Get("https://api.test/narrow/billing", forged).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			if second := got.Seen.Header["X-Second"]; len(second) != 1 || second[0] != "billing.partner" {
				t.Errorf("the second directive set %q", second)
			}
			asSensor.Get("https://api.test/narrow/billing", forged).WantRefused(t, "default", http.StatusForbidden, "client_not_allowed")
			asSensor.Get("https://api.test/narrow/scope").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
			asBilling.Get("https://api.test/narrow/scope").WantRefused(t, "default", http.StatusForbidden, "scope_missing")
			asBilling.Get("https://api.test/narrow/else").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")

			// a later directive cannot admit clients that an earlier one refused
			asSensor.Get("https://api.test/wider").WantRefused(t, "default", http.StatusForbidden, "client_not_allowed")
			asBilling.Get("https://api.test/wider").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		})
	}
}

func TestLaterDirectivesClearTheIdentity(t *testing.T) {
	r, billing, sensor := startCombined(t)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			told := func(got rig.Reply, want map[string]string) {
				t.Helper()
				got.WantStatus(t, http.StatusOK)
				if got.Seen == nil {
					t.Fatal("the request did not reach the upstream")
				}
				for _, name := range []string{"X-Told-Id", "X-Told-Realm", "X-Told-User", "X-Told-Error", "X-Client-Id", "X-Device"} {
					if value := got.Seen.Header.Get(name); value != want[name] {
						t.Errorf("%s is %q, want %q", name, value, want[name])
					}
				}
			}
			// a client of both realms: the second directive decides
			told(r.Caller(t, protocol, sensor).Get("https://api.test/cleared/own"),
				map[string]string{"X-Told-Id": "device-1", "X-Told-Realm": "devices", "X-Told-User": "device-1", "X-Client-Id": "device-1"})
			told(r.Caller(t, protocol, sensor).Get("https://api.test/cleared/other"),
				map[string]string{"X-Told-Id": "device-1", "X-Told-Realm": "devices", "X-Told-User": "device-1", "X-Client-Id": "sensor-7", "X-Device": "device-1"})

			// a client of the first realm only: the second directive clears its
			// identity, except for the header that it does not set itself
			told(r.Caller(t, protocol, billing).Get("https://api.test/cleared/own"),
				map[string]string{"X-Told-Error": "certificate_unknown", "X-Told-User": "{http.auth.user.id}"})
			told(r.Caller(t, protocol, billing).Get("https://api.test/cleared/other", rig.With("X-Device", "device-1")),
				map[string]string{"X-Told-Error": "certificate_unknown", "X-Told-User": "{http.auth.user.id}", "X-Client-Id": "billing.partner"})
		})
	}
}

func TestMatchersAfterTheDirective(t *testing.T) {
	r, billing, sensor := startCombined(t)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, tc := range []struct {
				leaf *testpki.Leaf
				room string
			}{{billing, "billing room"}, {sensor, "sensor room"}, {nil, "nobody's room"}} {
				for _, forged := range []string{"billing.partner", "sensor-7", ""} {
					got := r.Caller(t, protocol, tc.leaf).Get("https://api.test/rooms", rig.With("X-Client-Id", forged)).WantStatus(t, http.StatusOK)
					if got.Body != tc.room {
						t.Errorf("with forged X-Client-ID %q: got %q, want %q", forged, got.Body, tc.room)
					}
				}
			}
		})
	}
}

func TestErrorRoutes(t *testing.T) {
	r, billing, sensor := startCombined(t)
	stranger := r.Issue("stranger")
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, tc := range []struct {
				leaf       *testpki.Leaf
				path, want string
				status     int
			}{
				{nil, "/errors/any", "reason [certificate_missing] message [certificate_missing] client [] user [{http.auth.user.id}]", 401},
				{stranger, "/errors/any", "reason [certificate_unknown] message [certificate_refused] client [] user [{http.auth.user.id}]", 401},
				{sensor, "/errors/denied", "reason [client_not_allowed] message [client_not_allowed] client [] user [{http.auth.user.id}]", 403},
			} {
				got := r.Caller(t, protocol, tc.leaf).Get("https://api.test"+tc.path, rig.With("X-Client-Id", "billing.partner")).WantStatus(t, tc.status)
				if got.Body != tc.want {
					t.Errorf("the error route answered %q, want %q", got.Body, tc.want)
				}
			}
			r.Caller(t, protocol, billing).Get("https://api.test/errors/denied").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		})
	}
}
