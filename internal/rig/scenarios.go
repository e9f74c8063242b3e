package rig

import (
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
)

// WithoutProxyLog leaves out what the proxy logs at level DEBUG: the headers
// that it sends to the API.
func WithoutProxyLog(r *Rig) {
	r.Change = func(config map[string]any) {
		logs := Member(r.T, config, "logging", "logs", "default")
		excluded, _ := logs["exclude"].([]any)
		logs["exclude"] = append(excluded, "http.handlers.reverse_proxy")
	}
}

// OneSite guards the API behind for clients of the default realm.
const OneSite = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
`

// PatientSite is OneSite with patience for an API that is slow to take a
// connection, as all are on a machine with more to do. Caddy's own three seconds
// end in a 502.
var PatientSite = strings.Replace(OneSite, "reverse_proxy @UP@", "reverse_proxy @UP@ {\n\t\tlb_try_duration 20s\n\t\ttransport http {\n\t\t\tdial_timeout 10s\n\t\t}\n\t}", 1)

// BillingAndSensor is a realm with a client of each kind: one that is known by
// its name and one that is pinned.
const BillingAndSensor = `
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

// Reused tells whether a request went over a connection that was open already.
// Only net/http's transport reports that, so it is not for HTTP/3.
func Reused(into *bool) func(*http.Request) {
	return func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { *into = info.Reused },
		}))
	}
}

// clockRealm is BillingAndSensor with a clock that the test moves.
const clockRealm = `
mtls {
	trust_pool rig @DIR@/clients-ca.pem CLOCK
	client billing.partner {
		subject "CN=billing"
		scopes  invoices.read
	}
	client sensor-7 {
		certificate "@DIR@/sensor.pem"
	}
	issuer https://auth.test {
		token_lifetime 1h
	}
}
`

// ClockRealmOf is a realm like [BillingAndSensor] with an issuer and the clock
// of the test.
func ClockRealmOf(t *testing.T) string { return strings.Replace(clockRealm, "CLOCK", t.Name(), 1) }

// OneSession offers the session of any server to every server.
type OneSession struct{ session *tls.ClientSessionState }

func (s *OneSession) Get(string) (*tls.ClientSessionState, bool) { return s.session, s.session != nil }

func (s *OneSession) Put(_ string, session *tls.ClientSessionState) {
	if session != nil {
		s.session = session
	}
}
