package events_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestClientRefused checks that there is an event for each log line of a refusal: one at
// once, with the caller's error id, and one for those that followed. Names that a stranger
// chose do no harm.
func TestClientRefused(t *testing.T) {
	r, events := rig.New(t), rig.NewEvents(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	stranger := r.SelfSigned("stranger", testpki.CommonName("\u202e<b>\"{event.data.realm}\n\x1b[31m"+strings.Repeat("x", 4000)))
	global := on(t, "mtls_client_refused") + rig.BillingAndSensor
	r.Start(global, rig.OneSite)
	c := r.Caller(t, "h2", stranger)
	refused := c.Get("https://api.test/\u202e\"").WantStatus(t, http.StatusUnauthorized)
	data := events.Wait(t, 1, "mtls_client_refused")
	events.Check(t, 1, "mtls_client_refused", map[string]any{
		"realm": "default", "directive": "mtls_auth", "reason": data["reason"], "message": "client refused", "detail": "*",
		"error_id": refused.ErrorID, "times": 1, "several": false, "report_only": false, "client_id": "", "client_id_claimed": false,
		"thumbprint": testpki.HashOf(stranger.Cert.Raw), "subject": "*", "issuer": "*", "hint": data["hint"],
		"remote_ip": "127.0.0.1", "forwarded": false, "host": "api.test", "uri": "*",
	})
	for name, value := range data {
		text, _ := value.(string)
		if len(text) > 1100 || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
			t.Errorf("%s is %q", name, text)
		}
	}
	for range 3 {
		refused = c.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	}
	r.Reload(global, rig.OneSite)
	events.Check(t, 2, "mtls_client_refused", map[string]any{
		"realm": "default", "directive": "mtls_auth", "reason": data["reason"], "message": "client refused", "detail": "",
		"error_id": refused.ErrorID, "times": 3, "several": false, "report_only": false, "client_id": "", "client_id_claimed": false,
		"thumbprint": testpki.HashOf(stranger.Cert.Raw), "subject": "", "issuer": "", "hint": "",
		"remote_ip": "127.0.0.1", "forwarded": false, "host": "", "uri": "",
	})
}

// TestCertificateExpiringEvent checks that handlers are told once a day of certificates
// that expire soon, those of clients and of CAs, also across reloads.
func TestCertificateExpiringEvent(t *testing.T) {
	r, events, clock := rig.New(t), rig.NewEvents(t), rig.NewClock(t)
	const day = 24 * time.Hour
	until := func(left time.Duration) testpki.Option {
		return testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(left))
	}
	soon := r.Issue("billing", until(10*day+time.Hour))
	sensor := r.SelfSigned("sensor", until(30*day+5*time.Hour)) // not yet
	ca := testpki.MustCA(t, testpki.CommonName("Old CA"), until(5*day+time.Hour))
	r.Write("clients-ca.pem", append(r.CA.PEM(), ca.PEM()...))
	global := on(t, "mtls_certificate_expiring") + rig.ClockRealmOf(t)
	r.Start(global, rig.OneSite)
	r.Caller(t, "h2", soon).Get("https://api.test/").WantStatus(t, http.StatusOK)
	// check waits for the two events of a day
	check := func(before int, daysOfClient, daysOfCA string) {
		t.Helper()
		clock.Advance(2 * time.Minute) // and it looks again
		events.Wait(t, before+2, "mtls_certificate_expiring")
		seen := make(map[string]map[string]any)
		for _, event := range events.All("mtls_certificate_expiring")[before:] {
			seen[event.Data["kind"].(string)] = event.Data
		}
		client, authority := seen["client"], seen["ca"]
		if len(seen) != 2 || client["client_id"] != "billing.partner" || client["thumbprint"] != testpki.HashOf(soon.Cert.Raw) || client["subject"] == "" ||
			authority["client_id"] != "" || authority["subject"] != "CN=Old CA" || authority["realm"] != "default" || len(authority) != 7 {
			t.Errorf("the events are %v", seen)
		}
		if got := strconv.Itoa(client["days_left"].(int)); got != daysOfClient || client["not_after"] != soon.Cert.NotAfter.UTC().Format(time.RFC3339) {
			t.Errorf("the client has %s days left until %v, want %s", got, client["not_after"], daysOfClient)
		}
		if got := strconv.Itoa(authority["days_left"].(int)); got != daysOfCA {
			t.Errorf("the CA has %s days left, want %s", got, daysOfCA)
		}
	}
	check(0, "10", "5")
	r.Reload(global, rig.OneSite)
	// when it looks within the day, it tells of another certificate, and of nothing again
	clock.Advance(10 * time.Hour)
	if third := events.Wait(t, 3, "mtls_certificate_expiring"); third["thumbprint"] != testpki.HashOf(sensor.Cert.Raw) {
		t.Errorf("within the day, it tells of %v", third)
	}
	clock.Advance(day - 10*time.Hour)
	check(3, "9", "4")
	if n := len(events.All("mtls_certificate_expiring")); n != 5 {
		t.Errorf("%d events in two days, want 5", n)
	}
}
