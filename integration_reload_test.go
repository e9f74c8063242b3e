package mtlsauth

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Requests go on, on several connections of each kind, while the configuration
// is replaced again and again; none may fail, and each is told who it is. Only a
// connection that is being opened may fail: when Caddy closes the old socket,
// the operating system resets those that wait in its queue, and Go's server
// closes those that it has just accepted. A client opens another, and likewise
// where a handshake over UDP was not done in time.
func TestReloadUnderTraffic(t *testing.T) {
	r := newRig(t)
	clients := map[string]*testpki.Leaf{"billing.partner": r.issue("billing"), "sensor-7": r.selfSigned("sensor")}
	// what is under way when a configuration is given up has a second to end,
	// which is little where other processes have the machine too
	r.grace = "20s"
	r.start(issuerRealm(""), patientSite+issuerSite)
	var (
		stop      = make(chan struct{})
		warm      sync.WaitGroup
		workers   sync.WaitGroup
		completed atomic.Int64
		reopened  atomic.Int64
	)
	work := func(c *caller, id string) {
		defer workers.Done()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			var open bool
			got, err := c.try(http.MethodGet, fmt.Sprintf("https://api.test/%d", n), with("X-Client-Id", "forged"), reused(&open))
			var rejected *http3.Error // HTTP/3 says by itself that the request may be sent again
			var handshake *quic.HandshakeTimeoutError
			again := !open && c.protocol != "h3" || errors.As(err, &rejected) && rejected.ErrorCode == http3.ErrCodeRequestRejected || errors.As(err, &handshake)
			if err != nil && again && reopened.Add(1) < 20 {
				n--
				continue
			}
			if err != nil || got.status != http.StatusOK || got.seen == nil || got.seen.Header.Get("X-Client-Id") != id {
				t.Errorf("%s, request %d of %s, on an open connection: %v %d %.200q", c.protocol, n, id, err, got.status, got.body)
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
	for _, protocol := range rigProtocols {
		for id, leaf := range clients {
			for range 2 {
				workers.Add(1)
				warm.Add(1)
				c := r.caller(t, protocol, leaf)
				c.patience = time.Minute
				if transport, ok := c.rt.(*http3.Transport); ok {
					transport.QUICConfig = &quic.Config{HandshakeIdleTimeout: 20 * time.Second, MaxIdleTimeout: time.Minute}
				}
				go work(c, id)
			}
		}
	}
	warm.Wait()
	for n := range 6 {
		before := completed.Load()
		r.reload(fmt.Sprintf("%s\n# change %d", issuerRealm(""), n), patientSite+issuerSite)
		for completed.Load() < before+50 && !t.Failed() { // traffic flows in between
			r.caller(t, "h1", nil).get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
		}
	}
	close(stop)
	workers.Wait()
	t.Logf("%d requests over 7 configurations; %d times a connection had to be opened again", completed.Load(), reopened.Load())
}

// A request that is under way when the configuration changes ends under the
// configuration that it began with.
func TestReloadUnderARequest(t *testing.T) {
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			r := newRig(t)
			billing := r.issue("billing")
			r.selfSigned("sensor")
			r.start(billingAndSensor, oneSite)
			const requests = 4
			answers := make(chan reply, requests)
			for range requests {
				go func() {
					got, err := r.caller(t, protocol, billing).try(http.MethodGet, "https://api.test/block")
					if err != nil {
						t.Error(err)
					}
					answers <- got
				}()
			}
			for range requests {
				<-r.upstream.blocked
			}
			r.reload(billingAndSensor+"\n# changed", oneSite)
			for range requests {
				r.upstream.release <- struct{}{}
				(<-answers).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
			}
		})
	}
}

// A configuration that does not load leaves everything as it was.
func TestFailedReload(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	r.start(issuerRealm(""), oneSite+issuerSite)
	callers := make(map[string]*caller)
	for _, protocol := range rigProtocols {
		callers[protocol] = r.caller(t, protocol, billing)
	}
	kid := r.verifiedToken(t, "h2", sensor, "https://auth.test")["kid"]
	for _, broken := range []string{
		issuerRealm("audience {env.NO_SUCH_VARIABLE_AT_ALL}"),
		billingAndSensor + "mtls other {\nclient x {\nsubject CN=x\n}\n}\n",
		billingAndSensor + "mtls other {\nclient x {\nthumbprint abc\n}\n}\n",
		"",
	} {
		if err := r.load(broken, oneSite+issuerSite); err == nil {
			t.Fatalf("it loads: %s", broken)
		}
		for _, protocol := range rigProtocols {
			callers[protocol].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
			r.caller(t, protocol, nil).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			if again := r.verifiedToken(t, protocol, sensor, "https://auth.test")["kid"]; again != kid {
				t.Errorf("the kid is %v, was %v", again, kid)
			}
		}
	}
}
