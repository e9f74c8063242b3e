// Package events_test checks the events that Caddy's events app hands to its handlers.
package events_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// on returns global options that have the test's handler called with events.
func on(t *testing.T, names ...string) string {
	return "events {\non " + strings.Join(names, " rig "+t.Name()+"\non ") + " rig " + t.Name() + "\n}\n"
}

const tokenURL = "https://auth.test/connect/token"

// TestTokenIssued checks the event about an access token, and that only events somebody
// listens to are made.
func TestTokenIssued(t *testing.T) {
	r, events := rig.New(t), rig.NewEvents(t)
	r.Issue("billing")
	sensor := r.SelfSigned("sensor")
	r.Start(on(t, "mtls_token_issued")+rig.IssuerRealm("audience https://api.test"), rig.IssuerSite)
	_, _, claims := rig.Token(r, t, r.Caller(t, "h2", sensor), tokenURL, rig.Form("sensor-7"))
	events.Check(t, 1, "mtls_token_issued", map[string]any{
		"realm": "default", "client_id": "sensor-7", "credential": "certificate", "thumbprint": testpki.HashOf(sensor.Cert.Raw),
		"token_id": claims["jti"], "scope": "telemetry", "audience": "https://api.test", "expires_in": "*",
		"remote_ip": "127.0.0.1", "host": "auth.test",
	})
	event := events.All("mtls_token_issued")[0]
	if origin := event.Origin(); origin == nil || origin.CaddyModule().ID != "mtls" {
		t.Errorf("the origin is %v, want mtls", origin)
	}
	if text, err := json.Marshal(event.CloudEvent()); err != nil || strings.Contains(string(text), "eyJ") {
		t.Errorf("as a CloudEvent: %s %v", text, err)
	}
	// one that is refused issues none
	r.Caller(t, "h2", sensor).Do(http.MethodPost, tokenURL, rig.Form("sensor-7", "scope", "more")).WantStatus(t, http.StatusBadRequest)
	rig.Token(r, t, r.Caller(t, "h2", sensor), tokenURL, rig.Form("sensor-7"))
	events.Wait(t, 2, "mtls_token_issued")
}

// TestClientChanged checks the event about changes on the admin API: who, what, and no
// secret.
func TestClientChanged(t *testing.T) {
	r, events := rig.New(t), rig.NewEvents(t)
	r.AdminOn = true
	r.Start(on(t, "mtls_client_changed")+"mtls {\nclients_from storage\n}", rig.OneSite)
	thumbprint := strings.Repeat("0a", 32)
	path := "/mtls/realms/default/clients/partner"
	ask := func(method, body string, status int) {
		t.Helper()
		if got, text := rig.Ask(r, t, method, path, body); got != status {
			t.Fatalf("%s returned %d %s", method, got, text)
		}
	}
	want := map[string]any{
		"realm": "default", "client_id": "partner", "source": "storage", "in_force": true,
		"remote_ip": "127.0.0.1", "admin": "", "admin_thumbprint": "",
	}
	for i, step := range []struct {
		method, body, members string
		status                int
	}{
		{"PUT", `{"client_id":"partner","x509_thumbprints":"` + thumbprint + `","jwks_uri":"https://user:geheim@c.test/"}`, "client_id jwks_uri x509_thumbprints", http.StatusCreated},
		{"PATCH", `{"scope":"a","client_name":"\u202egpj"}`, "client_name scope", http.StatusOK},
		{"PATCH", `{"scope":"a"}`, "", http.StatusOK},
		{"DELETE", "", "client_id client_name jwks_uri scope x509_thumbprints", http.StatusOK},
	} {
		ask(step.method, step.body, step.status)
		want["action"], want["members"] = strings.ToLower(step.method), step.members
		events.Check(t, i+1, "mtls_client_changed", want)
	}
	// a change that is refused is none
	ask("DELETE", "", http.StatusNotFound)
	ask("PUT", `{"client_id":"partner","x509_thumbprints":"`+thumbprint+`"}`, http.StatusCreated)
	want["action"], want["members"] = "put", "client_id x509_thumbprints"
	events.Check(t, 5, "mtls_client_changed", want)
}

// TestHandlerThatHangs checks that a handler that never returns holds up no request, no
// reload and no stop, and that the log says what it has cost.
func TestHandlerThatHangs(t *testing.T) {
	r, events := rig.New(t), rig.NewEvents(t)
	hanging, release := make(chan struct{}, 2), make(chan struct{})
	events.Handle = func(caddy.Event) error {
		hanging <- struct{}{}
		<-release
		return nil
	}
	r.Issue("billing")
	sensor := r.SelfSigned("sensor")
	global := on(t, "mtls_token_issued") + rig.IssuerRealm("")
	r.Start(global, rig.IssuerSite)
	c := r.Caller(t, "h2", sensor)
	rig.Token(r, t, c, tokenURL, rig.Form("sensor-7"))
	<-hanging
	for range 3 {
		rig.Token(r, t, c, tokenURL, rig.Form("sensor-7"))
	}
	r.Reload(global, rig.IssuerSite)
	// the next configuration has a queue of its own
	rig.Token(r, t, r.Caller(t, "h2", sensor), tokenURL, rig.Form("sensor-7"))
	<-hanging
	close(release)
	entry := r.Logs.Wait(t, "dropped events", func(e rig.LogEntry) bool { return e.Str("msg") == "events dropped; their handlers are too slow" })
	if entry["dropped"] != 3.0 {
		t.Errorf("the log line is %v, want 3 dropped", entry)
	}
}

// TestHandlerThatPanics checks that a handler that panics ends neither Caddy nor the
// events.
func TestHandlerThatPanics(t *testing.T) {
	r, events := rig.New(t), rig.NewEvents(t)
	events.Handle = func(caddy.Event) error { panic("no mail server") }
	r.Issue("billing")
	sensor := r.SelfSigned("sensor")
	r.Start(on(t, "mtls_token_issued")+rig.IssuerRealm(""), rig.IssuerSite)
	for n := range 2 {
		rig.Token(r, t, r.Caller(t, "h2", sensor), tokenURL, rig.Form("sensor-7"))
		r.Logs.WaitFor(t, n+1, "a panic", func(e rig.LogEntry) bool {
			return e.Str("msg") == "event handler failed" && e.Str("event") == "mtls_token_issued" && strings.Contains(e.Str("error"), "no mail server")
		})
	}
}
