package auth_test

import (
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

func TestValidityOnEveryRequest_C1(t *testing.T) {
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			r, clock := rig.New(t), rig.NewClock(t)
			soon := testpki.Validity(time.Now().Add(10*time.Minute), time.Now().Add(20*time.Minute))
			billing, sensor := r.Issue("billing", soon), r.SelfSigned("sensor", soon)
			r.Start(rig.ClockRealmOf(t), rig.OneSite)
			for name, tc := range map[string]struct {
				leaf *testpki.Leaf
				id   string
			}{"subject": {billing, "billing.partner"}, "pinned": {sensor, "sensor-7"}} {
				clock.Ahead.Store(0)
				c := r.Caller(t, protocol, tc.leaf)
				r.WantReason(t, c.Get("https://api.test/"), "certificate_expired") // not yet valid
				var open bool
				trace := rig.Reused(&open)
				clock.Advance(15 * time.Minute)
				c.Get("https://api.test/", trace).WantStatus(t, http.StatusOK).WantClient(t, tc.id)
				clock.Advance(10 * time.Minute)
				r.WantReason(t, c.Get("https://api.test/", trace), "certificate_expired")
				if protocol != "h3" && !open {
					t.Errorf("%s: the certificate expired on a new connection, want a live one", name)
				}
				// the refusal is not cached: with the clock set back the certificate is valid
				clock.Advance(-10 * time.Minute)
				c.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, tc.id)
			}
		})
	}
}

func TestCAExpiresOnALiveConnection_C1(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	sub := testpki.MustIntermediate(t, r.CA, testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	billing := r.IssueBy(sub, "billing")
	r.SelfSigned("sensor")
	r.Start(rig.ClockRealmOf(t), rig.OneSite)
	callers := make(map[string]*rig.Caller)
	for _, protocol := range rig.Protocols {
		callers[protocol] = r.Caller(t, protocol, billing)
		callers[protocol].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
	clock.Advance(2 * time.Hour)
	for _, protocol := range rig.Protocols {
		r.WantReason(t, callers[protocol].Get("https://api.test/"), "certificate_untrusted")
	}
}

// TestSystemClock_C1 checks expiry by the system clock; the tests above move theirs.
func TestSystemClock_C1(t *testing.T) {
	r := rig.New(t)
	until := time.Now().Add(2 * time.Second)
	billing := r.Issue("billing", testpki.Validity(until.Add(-time.Hour), until))
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite)
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, billing)
		for deadline := time.Now().Add(rig.Patience); ; {
			got := c.Get("https://api.test/")
			if got.Status == http.StatusOK && time.Now().Before(deadline) {
				continue
			}
			r.WantReason(t, got, "certificate_expired")
			break
		}
	}
}

func TestDisabledByReload_C2(t *testing.T) {
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
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			r := rig.New(t)
			r.Grace = "1m" // after which Caddy closes connections of HTTP/3
			billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
			r.Start(rig.BillingAndSensor, rig.OneSite)
			asBilling, asSensor := r.Caller(t, protocol, billing), r.Caller(t, protocol, sensor)
			asBilling.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			asSensor.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")

			// a request in flight while the client is disabled keeps the
			// connection from being closed as idle
			underway := make(chan rig.Reply)
			go func() {
				got, err := asBilling.Try(http.MethodGet, "https://api.test/block")
				if err != nil {
					t.Error(err)
				}
				underway <- got
			}()
			<-r.Upstream.Blocked
			r.Reload(disabled, rig.OneSite)

			var open bool
			options := []func(*http.Request){}
			if protocol != "h3" {
				options = append(options, rig.Reused(&open))
			}
			r.WantReason(t, asBilling.Get("https://api.test/", options...), "client_disabled")
			if open {
				// TestStubbornClients_C2 covers clients that keep using it
				t.Error("the connection from before the reload is still used")
			}
			r.WantReason(t, asSensor.Get("https://api.test/"), "certificate_untrusted")
			r.Upstream.Release <- struct{}{}
			(<-underway).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner") // it was admitted before
			r.WantReason(t, asBilling.Get("https://api.test/"), "client_disabled")
		})
	}
}

// TestNoSessionIsResumed_C3_D5 checks that every connection presents its
// certificate. With client authentication Caddy issues no session tickets, so
// clients cannot resume sessions or send early data.
func TestNoSessionIsResumed_C3_D5(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			cache := tls.NewLRUClientSessionCache(8)
			resumed := false
			for _, leaf := range []*testpki.Leaf{billing, nil, billing} {
				c := r.Caller(t, protocol, leaf)
				c.Tls.ClientSessionCache = cache
				c.Tls.VerifyConnection = func(state tls.ConnectionState) error {
					resumed = resumed || state.DidResume
					return nil
				}
				got := c.Get("https://api.test/", rig.With("X-Client-Id", "billing.partner"))
				if leaf == nil {
					got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
				} else {
					got.WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
				}
			}
			if resumed {
				t.Error("a session was resumed")
			}
		})
	}
}

// TestSessionOfAnotherSite_C3 checks that a session of a public site cannot be
// resumed on a guarded site of the same server. Sites that request no
// certificate do issue session tickets.
func TestSessionOfAnotherSite_C3(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start("servers {\nstrict_sni_host insecure_off\n}\n"+rig.BillingAndSensor, publicAndGuarded)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			cache := new(rig.OneSession)
			var resumed bool
			connect := func(leaf *testpki.Leaf) *rig.Caller {
				c := r.Caller(t, protocol, leaf)
				c.Tls.ClientSessionCache = cache
				c.Tls.VerifyConnection = func(state tls.ConnectionState) error {
					resumed = state.DidResume
					return nil
				}
				return c
			}
			for range 2 { // the second connection resumes the session of the first
				c := connect(nil)
				c.Get("https://public.test/").WantStatus(t, http.StatusOK)
				c.Get("https://public.test/", host("api.test")).WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
				c.Close()
			}
			if !resumed {
				t.Error("the public site resumes no session, so nothing is tested here")
			}
			for _, leaf := range []*testpki.Leaf{nil, billing} {
				got := connect(leaf).Get("https://api.test/", rig.With("X-Client-Id", "sensor-7"))
				if resumed {
					t.Error("the guarded site resumes a session of the public one")
				}
				if leaf == nil {
					got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
				} else {
					got.WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
				}
			}
		})
	}
}

// TestEarlyData_D5 checks that requests in early data must be sent again,
// because anyone who recorded them can replay them. Only sites that request no
// certificate accept early data.
func TestEarlyData_D5(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("SKIPPED under the race detector: quic-go's client has a data race of its own when it sends early data")
	}
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, `
https://public.test:@HTTPS@ {
	import tls_without_client_auth
	mtls_auth {
		optional
	}
	reverse_proxy @UP@
}
`)
	cache, early := new(rig.OneSession), 0
	for range 10 {
		c := r.Caller(t, "h3", nil)
		c.Tls.ClientSessionCache, c.Early = cache, true
		got := c.Do(http3.MethodGet0RTT, "https://public.test/", rig.With("X-Client-Id", "sensor-7"))
		if got.Status == http.StatusTooEarly {
			early++
			r.Logs.WithErrorID(t, "early data refused", got.ErrorID)
			got = c.Get("https://public.test/", rig.With("X-Client-Id", "sensor-7"))
		}
		got.WantStatus(t, http.StatusOK).WantClient(t, "")
		c.Close()
	}
	if early == 0 {
		t.Error("none of ten requests arrived as early data, so nothing is tested here")
	}
}
