package ops_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestReloadUnderTraffic checks that no request fails, and that each caller is
// identified, while the configuration is replaced again and again under traffic on
// several connections of each protocol. Only what [rig.Caller.MayReopen] allows may
// fail.
func TestReloadUnderTraffic(t *testing.T) {
	r := rig.New(t)
	clients := map[string]*testpki.Leaf{"billing.partner": r.Issue("billing"), "sensor-7": r.SelfSigned("sensor")}
	// requests in flight have only a second to finish when a configuration ends,
	// which is too short on a busy machine
	r.Grace = "20s"
	r.Start(rig.IssuerRealm(""), rig.PatientSite+rig.IssuerSite)
	var (
		stop      = make(chan struct{})
		warm      sync.WaitGroup
		workers   sync.WaitGroup
		completed atomic.Int64
		reopened  atomic.Int64
	)
	work := func(c *rig.Caller, id string) {
		defer workers.Done()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			var open bool
			got, err := c.Try(http.MethodGet, fmt.Sprintf("https://api.test/%d", n), rig.With("X-Client-Id", "forged"), rig.Reused(&open))
			if err != nil && c.MayReopen(err, open) && reopened.Add(1) < 20 {
				n--
				continue
			}
			if err != nil || got.Status != http.StatusOK || got.Seen == nil || got.Seen.Header.Get("X-Client-Id") != id {
				t.Errorf("%s, request %d of %s, on an open connection: %v %d %.200q", c.Protocol, n, id, err, got.Status, got.Body)
				if n == 0 {
					warm.Done()
				}
				return
			}
			if n == 0 {
				warm.Done()
			}
			completed.Add(1)
		}
	}
	for _, protocol := range rig.Protocols {
		for id, leaf := range clients {
			for range 2 {
				workers.Add(1)
				warm.Add(1)
				go work(r.Caller(t, protocol, leaf), id)
			}
		}
	}
	warm.Wait()
	for n := range 6 {
		before := completed.Load()
		r.Reload(fmt.Sprintf("%s\n# change %d", rig.IssuerRealm(""), n), rig.PatientSite+rig.IssuerSite)
		for completed.Load() < before+50 && !t.Failed() { // let traffic flow between reloads
			r.Caller(t, "h1", nil).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
		}
	}
	close(stop)
	workers.Wait()
	t.Logf("%d requests over 7 configurations; %d times a connection had to be opened again", completed.Load(), reopened.Load())
}

// TestReloadUnderARequest checks that a request in flight during a reload ends
// under the configuration that it began with.
func TestReloadUnderARequest(t *testing.T) {
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			r := rig.New(t)
			r.Grace = "1m" // after which Caddy closes connections of HTTP/3
			billing := r.Issue("billing")
			r.SelfSigned("sensor")
			r.Start(rig.BillingAndSensor, rig.OneSite)
			const requests = 4
			answers := make(chan rig.Reply, requests)
			for range requests {
				go func() {
					got, err := r.Caller(t, protocol, billing).Try(http.MethodGet, "https://api.test/block")
					if err != nil {
						t.Error(err)
					}
					answers <- got
				}()
			}
			for range requests {
				<-r.Upstream.Blocked
			}
			r.Reload(rig.BillingAndSensor+"\n# changed", rig.OneSite)
			for range requests {
				r.Upstream.Release <- struct{}{}
				(<-answers).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			}
		})
	}
}

// TestFailedReload checks that a configuration that fails to load changes nothing.
func TestFailedReload(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	r.Start(rig.IssuerRealm(""), rig.OneSite+rig.IssuerSite)
	callers := make(map[string]*rig.Caller)
	for _, protocol := range rig.Protocols {
		callers[protocol] = r.Caller(t, protocol, billing)
	}
	kid := rig.VerifiedToken(r, t, "h2", sensor, "https://auth.test")["kid"]
	for _, broken := range []string{
		rig.IssuerRealm("audience {env.NO_SUCH_VARIABLE_AT_ALL}"),
		rig.BillingAndSensor + "mtls other {\nclient x {\nsubject CN=x\n}\n}\n",
		rig.BillingAndSensor + "mtls other {\nclient x {\nthumbprint abc\n}\n}\n",
		"",
	} {
		if err := r.Load(broken, rig.OneSite+rig.IssuerSite); err == nil {
			t.Fatalf("an invalid configuration loaded: %s", broken)
		}
		for _, protocol := range rig.Protocols {
			callers[protocol].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			r.Caller(t, protocol, nil).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			if again := rig.VerifiedToken(r, t, protocol, sensor, "https://auth.test")["kid"]; again != kid {
				t.Errorf("the kid is %v, was %v", again, kid)
			}
		}
	}
}
