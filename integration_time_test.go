package mtlsauth

import (
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// reused tells whether a request went over a connection that was open already.
// Only net/http's transport reports that, so it is not for HTTP/3.
func reused(into *bool) func(*http.Request) {
	return func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { *into = info.Reused },
		}))
	}
}

// clockRealm is billingAndSensor with a clock that the test moves.
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

func clockRealmOf(t *testing.T) string { return strings.Replace(clockRealm, "CLOCK", t.Name(), 1) }

func TestC1_ValidityOnEveryRequest(t *testing.T) {
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			r, clock := newRig(t), newRigClock(t)
			soon := testpki.Validity(time.Now().Add(10*time.Minute), time.Now().Add(20*time.Minute))
			billing, sensor := r.issue("billing", soon), r.selfSigned("sensor", soon)
			r.start(clockRealmOf(t), oneSite)
			for name, tc := range map[string]struct {
				leaf *testpki.Leaf
				id   string
			}{"subject": {billing, "billing.partner"}, "pinned": {sensor, "sensor-7"}} {
				clock.ahead.Store(0)
				c := r.caller(t, protocol, tc.leaf)
				r.wantReason(t, c.get("https://api.test/"), "certificate_expired") // not yet valid
				var open bool
				trace := reused(&open)
				clock.advance(15 * time.Minute)
				c.get("https://api.test/", trace).wantStatus(t, http.StatusOK).wantClient(t, tc.id)
				clock.advance(10 * time.Minute)
				r.wantReason(t, c.get("https://api.test/", trace), "certificate_expired")
				if protocol != "h3" && !open {
					t.Errorf("%s: the certificate did not expire on a live connection, but on a new one", name)
				}
				// and does not come back with the clock of nobody else
				clock.advance(-10 * time.Minute)
				c.get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, tc.id)
			}
		})
	}
}

func TestC1_CAExpiresOnALiveConnection(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	sub := testpki.MustIntermediate(t, r.ca, testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	billing := r.issueBy(sub, "billing")
	r.selfSigned("sensor")
	r.start(clockRealmOf(t), oneSite)
	callers := make(map[string]*caller)
	for _, protocol := range rigProtocols {
		callers[protocol] = r.caller(t, protocol, billing)
		callers[protocol].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	}
	clock.advance(2 * time.Hour)
	for _, protocol := range rigProtocols {
		r.wantReason(t, callers[protocol].get("https://api.test/"), "certificate_untrusted")
	}
}

// The tests above move the clock; here the system's own decides.
func TestC1_SystemClock(t *testing.T) {
	r := newRig(t)
	until := time.Now().Add(2 * time.Second)
	billing := r.issue("billing", testpki.Validity(until.Add(-time.Hour), until))
	r.selfSigned("sensor")
	r.start(billingAndSensor, oneSite)
	for _, protocol := range rigProtocols {
		c := r.caller(t, protocol, billing)
		for deadline := time.Now().Add(rigPatience); ; {
			got := c.get("https://api.test/")
			if got.status == http.StatusOK && time.Now().Before(deadline) {
				continue
			}
			r.wantReason(t, got, "certificate_expired")
			break
		}
	}
}

func TestC2_DisabledByReload(t *testing.T) {
	const disabled = `
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client billing.partner {
			subject "CN=billing"
			disabled
		}
		client sensor-7 {
			thumbprint ` + "abababababababababababababababababababababababababababababababab" + `
		}
	}`
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			r := newRig(t)
			billing, sensor := r.issue("billing"), r.selfSigned("sensor")
			r.start(billingAndSensor, oneSite)
			asBilling, asSensor := r.caller(t, protocol, billing), r.caller(t, protocol, sensor)
			asBilling.get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
			asSensor.get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")

			// a request is under way on the connection when the client is
			// disabled, so that the connection cannot be closed as idle
			underway := make(chan reply)
			go func() {
				got, err := asBilling.try(http.MethodGet, "https://api.test/block")
				if err != nil {
					t.Error(err)
				}
				underway <- got
			}()
			<-r.upstream.blocked
			r.reload(disabled, oneSite)

			var open bool
			options := []func(*http.Request){}
			if protocol != "h3" {
				options = append(options, reused(&open))
			}
			r.wantReason(t, asBilling.get("https://api.test/", options...), "client_disabled")
			if open {
				// TestC2_StubbornClients goes on using it
				t.Error("the connection from before the reload goes on")
			}
			r.wantReason(t, asSensor.get("https://api.test/"), "certificate_untrusted")
			r.upstream.release <- struct{}{}
			(<-underway).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner") // it was admitted before
			r.wantReason(t, asBilling.get("https://api.test/"), "client_disabled")
		})
	}
}

// With client authentication Caddy issues no session tickets, so no session is
// resumed and no early data is sent; every connection shows its certificate.
func TestC3_D5_NoSessionIsResumed(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(billingAndSensor, oneSite)
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			cache := tls.NewLRUClientSessionCache(8)
			resumed := false
			for _, leaf := range []*testpki.Leaf{billing, nil, billing} {
				c := r.caller(t, protocol, leaf)
				c.tls.ClientSessionCache = cache
				c.tls.VerifyConnection = func(state tls.ConnectionState) error {
					resumed = resumed || state.DidResume
					return nil
				}
				got := c.get("https://api.test/", with("X-Client-Id", "billing.partner"))
				if leaf == nil {
					got.wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
				} else {
					got.wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
				}
			}
			if resumed {
				t.Error("a session was resumed")
			}
		})
	}
}

// oneSession offers the session of any server to every server.
type oneSession struct{ session *tls.ClientSessionState }

func (s *oneSession) Get(string) (*tls.ClientSessionState, bool) { return s.session, s.session != nil }

func (s *oneSession) Put(_ string, session *tls.ClientSessionState) {
	if session != nil {
		s.session = session
	}
}

// A site that asks for no certificate does issue session tickets. None of them
// may open a connection to a guarded site of the same server.
func TestC3_SessionOfAnotherSite(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start("servers {\nstrict_sni_host insecure_off\n}\n"+billingAndSensor, publicAndGuarded)
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			cache := new(oneSession)
			var resumed bool
			connect := func(leaf *testpki.Leaf) *caller {
				c := r.caller(t, protocol, leaf)
				c.tls.ClientSessionCache = cache
				c.tls.VerifyConnection = func(state tls.ConnectionState) error {
					resumed = state.DidResume
					return nil
				}
				return c
			}
			for range 2 { // the second time with the session of the first
				c := connect(nil)
				c.get("https://public.test/").wantStatus(t, http.StatusOK)
				c.get("https://public.test/", host("api.test")).wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
				c.close()
			}
			if !resumed {
				t.Error("the public site resumes no session, so nothing is tested here")
			}
			for _, leaf := range []*testpki.Leaf{nil, billing} {
				got := connect(leaf).get("https://api.test/", with("X-Client-Id", "sensor-7"))
				if resumed {
					t.Error("the guarded site resumes a session of the public one")
				}
				if leaf == nil {
					got.wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
				} else {
					got.wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
				}
			}
		})
	}
}

// Early data can be replayed by anybody who recorded it, so what comes in it is
// to be sent again. Only sites that ask for no certificate take any.
func TestD5_EarlyData(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("SKIPPED under the race detector: quic-go's client has a data race of its own when it sends early data")
	}
	r := newRig(t)
	r.issue("billing")
	r.selfSigned("sensor")
	r.start(billingAndSensor, `
https://public.test:@HTTPS@ {
	import tls_without_client_auth
	mtls_auth {
		optional
	}
	reverse_proxy @UP@
}
`)
	cache, early := new(oneSession), 0
	for range 10 {
		c := r.caller(t, "h3", nil)
		c.tls.ClientSessionCache, c.early = cache, true
		got := c.do(http3.MethodGet0RTT, "https://public.test/", with("X-Client-Id", "sensor-7"))
		if got.status == http.StatusTooEarly {
			early++
			got = c.get("https://public.test/", with("X-Client-Id", "sensor-7"))
		}
		got.wantStatus(t, http.StatusOK).wantClient(t, "")
		c.close()
	}
	if early == 0 {
		t.Error("no request of ten came as early data, so nothing is tested here")
	}
}
