package rig

import (
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
)

// WithoutProxyLog excludes the log of the proxy, which at level DEBUG contains the
// headers that it sends to the upstream.
func WithoutProxyLog(r *Rig) { WithoutLogs(r, "http.handlers.reverse_proxy") }

// WithoutLogs excludes the logs of these names, instead of others.
func WithoutLogs(r *Rig, names ...any) {
	r.Change = func(config map[string]any) {
		logs := Member(r.T, config, "logging", "logs", "default")
		excluded, _ := logs["exclude"].([]any)
		logs["exclude"] = append(excluded, names...)
	}
}

// OneSite admits clients of the default realm to the upstream.
const OneSite = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
`

// PatientSite is [OneSite] with longer timeouts for connecting to the upstream,
// because on a busy machine Caddy's three seconds may end in a 502.
var PatientSite = strings.Replace(OneSite, "reverse_proxy @UP@", "reverse_proxy @UP@ {\n\t\tlb_try_duration 20s\n\t\ttransport http {\n\t\t\tdial_timeout 10s\n\t\t}\n\t}", 1)

// BillingAndSensor is a realm with one client known by its subject and one with a
// pinned certificate.
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

// Reused reports whether a request used a connection that was already open. Only
// net/http's transport reports that, so it does not work with HTTP/3.
func Reused(into *bool) func(*http.Request) {
	return func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			// the transport may find the connection closed and open another
			GetConn: func(string) { *into = false },
			GotConn: func(info httptrace.GotConnInfo) { *into = info.Reused },
		}))
	}
}

// clockRealm is a realm like [BillingAndSensor] with a clock that the test moves.
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

// ClockRealmOf returns a realm like [BillingAndSensor] with an issuer and the
// test's clock.
func ClockRealmOf(t *testing.T) string { return strings.Replace(clockRealm, "CLOCK", t.Name(), 1) }

// OneSession is a TLS session cache that offers its only session to every server.
type OneSession struct{ session *tls.ClientSessionState }

// Get implements tls.ClientSessionCache.
func (s *OneSession) Get(string) (*tls.ClientSessionState, bool) { return s.session, s.session != nil }

// Put implements tls.ClientSessionCache.
func (s *OneSession) Put(_ string, session *tls.ClientSessionState) {
	if session != nil {
		s.session = session
	}
}
