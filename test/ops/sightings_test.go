package ops_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// hexOf returns the thumbprint of a certificate as the status shows it.
func hexOf(leaf *testpki.Leaf) string { return fmt.Sprintf("%x", sha256.Sum256(leaf.Cert.Raw)) }

// sighted returns the client of the default realm as the status shows it.
func sighted(r *rig.Rig, t *testing.T, id string) status.Client {
	t.Helper()
	for _, realm := range statusOf(r, t, "?q="+url.QueryEscape(id)).Realms {
		for _, client := range realm.Clients.List {
			if realm.Name == "default" && client.ClientID == id {
				return client
			}
		}
	}
	t.Fatalf("there is no client %s", id)
	return status.Client{}
}

// TestSightingsOfClients checks that a client is seen when it is admitted, and only then:
// by mtls_auth, at the token endpoint and by mtls_bearer. What has been seen outlasts a
// reload and a change of the client's record.
func TestSightingsOfClients(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	clock.Freeze()
	billing, sensor, other := r.Issue("billing"), r.SelfSigned("sensor"), r.Issue("other")
	r.AdminOn = true
	realm := strings.Replace(rig.ClockRealmOf(t), "issuer https", "client off {\n\t\tsubject \"CN=off\"\n\t\tdisabled\n\t}\n\tissuer https", 1)
	sites := rig.IssuerSite + rig.OneSite + `
https://other.test:@HTTPS@ {
	import mtls
	mtls_auth {
		allow billing.partner
	}
	respond "in"
}

https://alias.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://auth.test
	}
	respond "in"
}
`
	r.Start(realm, sites)
	asSensor, asBilling := r.Caller(t, "h2", sensor), r.Caller(t, "h1", billing)

	// refused, so not seen
	asSensor.Get("https://other.test/").WantStatus(t, 403)
	r.Caller(t, "h2", other).Get("https://api.test/").WantStatus(t, 401)
	r.Caller(t, "h2", r.Issue("off")).Get("https://api.test/").WantStatus(t, 401)
	if report := statusOf(r, t, "?never=true").Realms[0].Clients; report.Seen != 0 || len(report.List) != 3 {
		t.Errorf("somebody was seen: %+v", report)
	}

	asSensor.Get("https://api.test/").WantStatus(t, 200)
	got := sighted(r, t, "sensor-7")
	want := status.Client{
		ClientID: "sensor-7", Source: "config", LastSeen: got.LastSeen, Credential: "certificate", Matched: hexOf(sensor),
		Thumbprint: hexOf(sensor), NotAfter: sensor.Cert.NotAfter.UTC(),
	}
	if got != want || got.LastSeen.After(clock.Now()) || clock.Now().Sub(got.LastSeen) > 2*time.Minute || got.LastSeen.Second() != 0 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	clock.Advance(5 * time.Minute)
	asSensor.Get("https://api.test/").WantStatus(t, 200)
	if again := sighted(r, t, "sensor-7"); again.LastSeen.Sub(got.LastSeen) < 4*time.Minute {
		t.Errorf("seen again at %v, before at %v", again.LastSeen, got.LastSeen)
	}

	token, _, _ := rig.Token(r, t, asBilling, "https://auth.test/connect/token", rig.Form("billing.partner"))
	got = sighted(r, t, "billing.partner")
	if got.Credential != "subject" || got.Matched != "CN=billing" || got.Thumbprint != hexOf(billing) {
		t.Errorf("%+v", got)
	}
	clock.Advance(5 * time.Minute)
	asBilling.Get("https://alias.test/", func(q *http.Request) { q.Header.Set("Authorization", "Bearer "+token["access_token"].(string)) }).WantStatus(t, 200)
	if again := sighted(r, t, "billing.partner"); again.LastSeen.Sub(got.LastSeen) < 4*time.Minute {
		t.Errorf("with a token, seen at %v, before at %v", again.LastSeen, got.LastSeen)
	}
	if report := statusOf(r, t, "?never=true").Realms[0].Clients; report.Seen != 2 || len(report.List) != 1 || report.List[0].ClientID != "off" {
		t.Errorf("%+v", report)
	}

	// a client that changes is still the same one, and one that is disabled was seen before;
	// one that is gone has not been seen when it comes back
	seen := sighted(r, t, "sensor-7").LastSeen
	since := statusOf(r, t, "").Since
	r.Reload(strings.Replace(realm, "certificate \"@DIR@/sensor.pem\"", "certificate \"@DIR@/sensor.pem\"\n\t\tdisabled", 1), sites)
	if got := sighted(r, t, "sensor-7"); !got.Disabled || !got.LastSeen.Equal(seen) {
		t.Errorf("after a reload: %+v", got)
	}
	if now := statusOf(r, t, ""); !now.Since.Equal(since) {
		t.Errorf("since %v, before the reload %v", now.Since, since)
	}
	r.Reload(strings.Replace(realm, "client sensor-7", "client other", 1), sites)
	rig.Await(r, t, "the client that is gone is forgotten", func() bool { return statusOf(r, t, "").Realms[0].Clients.Seen == 1 })
	r.Reload(realm, sites)
	if got := sighted(r, t, "sensor-7"); !got.LastSeen.IsZero() {
		t.Errorf("after it came back: %+v", got)
	}
	asSensor = r.Caller(t, "h2", sensor)
	asSensor.Get("https://api.test/").WantStatus(t, 200)
	if got := sighted(r, t, "sensor-7"); got.LastSeen.IsZero() {
		t.Errorf("%+v", got)
	}
}

func TestStatusOfTraffic(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	clock.Freeze() // a minute may turn between two requests
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	r.AdminOn = true
	sites := rig.IssuerSite + rig.OneSite + `
https://other.test:@HTTPS@ {
	import mtls
	mtls_auth {
		allow billing.partner
		report_only
	}
	respond "in"
}

https://alias.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://auth.test
	}
	respond "in"
}
`
	r.Start(rig.ClockRealmOf(t), sites)
	asSensor, asBilling, asNobody := r.Caller(t, "h2", sensor), r.Caller(t, "h1", billing), r.Caller(t, "h2", nil)
	asSensor.Get("https://api.test/").WantStatus(t, 200)
	token, _, _ := rig.Token(r, t, asBilling, "https://auth.test/connect/token", rig.Form("billing.partner"))
	asNobody.Get("https://api.test/").WantStatus(t, 401)
	traffic := func() status.Traffic { return statusOf(r, t, "").Realms[0].Traffic }
	first := traffic()
	if first.Admitted.Total != 2 || first.Refused.Total != 1 || first.Tokens.Total != 1 || first.Minutes < 1 || len(first.Admitted.Minute) != first.Minutes {
		t.Fatalf("%+v", first)
	}

	// later minutes, with refusals for several reasons, of certificates and of tokens
	clock.Advance(10 * time.Minute)
	asNobody.Get("https://api.test/").WantStatus(t, 401)
	asSensor.Get("https://other.test/").WantStatus(t, 200) // report_only
	asBilling.Get("https://alias.test/", func(q *http.Request) { q.Header.Set("Authorization", "Bearer "+token["access_token"].(string)) }).WantStatus(t, 200)
	asSensor.Get("https://alias.test/", func(q *http.Request) { q.Header.Set("Authorization", "Bearer "+token["access_token"].(string)) }).WantStatus(t, 401)
	asBilling.Get("https://alias.test/").WantStatus(t, 401)
	got := traffic()
	last := got.Minutes - 1
	if got.Minutes < 11 || got.Admitted.Total != 3 || got.Admitted.Minute[last] != 1 || got.Refused.Total != 5 || got.Refused.Minute[last] != 4 || got.Tokens.Minute[last] != 0 {
		t.Errorf("%+v", got)
	}
	var reasons []string
	for _, reason := range got.Reasons {
		reasons = append(reasons, fmt.Sprintf("%s %d-%d", reason.Reason, reason.Total, reason.ReportOnly))
	}
	if text := strings.Join(reasons, ", "); text != "certificate_missing 2-0, client_not_allowed 1-1, token_certificate 1-0, token_missing 1-0" {
		t.Errorf("reasons: %s", text)
	}

	// it outlasts a reload, and not the hour
	r.Reload(rig.ClockRealmOf(t)+"\n# changed", sites)
	if again := traffic(); again.Admitted.Total != 3 || again.Refused.Total != 5 {
		t.Errorf("after a reload: %+v", again)
	}
	clock.Advance(55 * time.Minute)
	if later := traffic(); later.Minutes != 60 || later.Admitted.Total != 1 || later.Refused.Total != 4 {
		t.Errorf("55 minutes later: %+v", later)
	}
}

// TestStatusOfExpiringCertificates checks that those that expire within 90 days are shown,
// soonest first, wherever they come from.
func TestStatusOfExpiringCertificates(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	day := 24 * time.Hour
	valid := func(days int) testpki.Option {
		return testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(time.Duration(days)*day))
	}
	soon, late, file := r.Issue("soon", valid(30)), r.Issue("late", valid(100)), r.SelfSigned("file", valid(40))
	shadow := testpki.MustCA(t, testpki.CommonName("Next CA"), valid(60))
	fetch := testpki.MustCA(t, testpki.CommonName("Fetch CA"), valid(20))
	r.Write("next.pem", shadow.PEM())
	r.Write("fetch.pem", fetch.PEM())
	r.AdminOn = true
	r.Start(strings.Replace(`
mtls {
	trust_pool rig @DIR@/clients-ca.pem CLOCK
	shadow_trust_pool file @DIR@/next.pem
	fetch {
		trust_pool file @DIR@/fetch.pem
	}
	client soon {
		subject CN=soon
	}
	client late {
		subject CN=late
	}
	client file {
		certificate @DIR@/file.pem
	}
}
`, "CLOCK", t.Name(), 1), rig.OneSite)
	expiring := func() string {
		var text []string
		for _, e := range statusOf(r, t, "").Realms[0].Expiring {
			if (e.ClientID == "") != (e.Kind != status.ExpiringClient) || e.Subject == "" && e.ClientID != "file" || len(e.Thumbprint) != 64 {
				t.Errorf("%+v", e)
			}
			text = append(text, fmt.Sprintf("%s %s in %.0f", e.Kind, e.Subject, time.Until(e.NotAfter).Hours()/24))
		}
		return strings.Join(text, ", ")
	}
	want := func(want string) {
		t.Helper()
		if got := expiring(); got != want {
			t.Errorf("got:  %s\nwant: %s", got, want)
		}
	}
	ca := fmt.Sprintf(", ca CN=Clients CA in %.0f", time.Until(r.CA.Cert.NotAfter).Hours()/24)
	if time.Until(r.CA.Cert.NotAfter) > 90*day {
		ca = ""
	}
	want("fetch_ca CN=Fetch CA in 20, client CN=file in 40, shadow_ca CN=Next CA in 60" + ca)
	for _, leaf := range []*testpki.Leaf{soon, late, file} {
		r.Caller(t, "h2", leaf).Get("https://api.test/").WantStatus(t, 200)
	}
	files := 0
	for _, e := range statusOf(r, t, "").Realms[0].Expiring {
		if e.ClientID == "file" {
			files++
		}
	}
	if got := expiring(); files != 1 || !strings.HasPrefix(got, "fetch_ca CN=Fetch CA in 20, client CN=soon in 30, client") {
		t.Errorf("%d times in %s", files, got)
	}

	// a renewed certificate replaces the one before
	r.Caller(t, "h2", r.Issue("renewed", testpki.CommonName("soon"), valid(200))).Get("https://api.test/").WantStatus(t, 200)
	if got := expiring(); strings.Contains(got, "CN=soon") {
		t.Error(got)
	}
	clock.Advance(15 * day)
	if got := expiring(); !strings.Contains(got, "client CN=late in 100") {
		t.Error(got)
	}
	clock.Advance(30 * day)
	if got := expiring(); strings.Contains(got, "Fetch") || strings.Contains(got, "file") {
		t.Errorf("what has expired is still there: %s", got)
	}
}

// TestStrangerIsForgottenOnceItIsAdmitted checks that a certificate that is known by now,
// by its name, is not a stranger's any more.
func TestStrangerIsForgottenOnceItIsAdmitted(t *testing.T) {
	r, _ := rig.New(t), rig.NewClock(t)
	r.SelfSigned("sensor")
	newbie := r.Issue("newbie")
	r.AdminOn = true
	r.Start(rig.ClockRealmOf(t), rig.OneSite)
	r.Caller(t, "h2", newbie).Get("https://api.test/").WantStatus(t, 401)
	rig.Await(r, t, "there is a stranger", func() bool { return len(statusOf(r, t, "").Realms[0].Strangers) == 1 })
	r.Reload(strings.Replace(rig.ClockRealmOf(t), "CN=billing", "CN=newbie", 1), rig.OneSite)
	if report := statusOf(r, t, "").Realms[0]; len(report.Strangers) != 1 || len(report.Refusals) != 1 {
		t.Errorf("after a reload: %+v", report)
	}
	r.Caller(t, "h2", newbie).Get("https://api.test/").WantStatus(t, 200)
	if report := statusOf(r, t, "").Realms[0]; len(report.Strangers) != 0 || len(report.Refusals) != 1 {
		t.Errorf("after it was admitted: %+v", report)
	}
}
