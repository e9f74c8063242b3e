package ops_test

import (
	"crypto/sha256"
	"encoding/json"
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

// statusOf asks the admin endpoint for the status.
func statusOf(r *rig.Rig, t *testing.T, query string) (report status.Report) {
	t.Helper()
	code, text := rig.Ask(r, t, http.MethodGet, "/mtls/status"+query, "")
	if code != http.StatusOK {
		t.Fatalf("the status is %d %q", code, text)
	}
	if strings.Contains(text, "null") {
		t.Errorf("a list is null: %s", text)
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatal(err)
	}
	return report
}

// sourceOf returns the source of that name.
func sourceOf(t *testing.T, sources []status.Source, name string) status.Source {
	t.Helper()
	for _, s := range sources {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no source %q in %+v", name, sources)
	return status.Source{}
}

func TestStatusOfRealms(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.Write("more.json", []byte(`[{"client_id":"more-1","client_name":"Größer","tls_client_auth_subject_dn":"CN=more"},{"client_id":"more-2","disabled":true,"tls_client_auth_subject_dn":"CN=two"}]`))
	r.AdminOn = true
	realm := strings.Replace(rig.ClockRealmOf(t), "issuer https", "clients_from file \"@DIR@/more.json\"\n\tissuer https", 1)
	r.Start(realm+"\nmtls bare {\n\tclient only {\n\t\tcertificate \"@DIR@/sensor.pem\"\n\t}\n}\n", rig.IssuerSite)

	report := statusOf(r, t, "")
	if len(report.Realms) != 2 || report.Realms[0].Name != "bare" || report.Realms[1].Name != "default" || report.Version == "" ||
		report.At.Sub(clock.Now()).Abs() > time.Minute || report.Since.IsZero() || report.Since.After(report.At) {
		t.Fatalf("the report is %+v", report)
	}
	if bare := report.Realms[0]; bare.Issuer != nil || bare.Clients.Total != 1 || bare.Shadow != nil {
		t.Errorf("realm bare: %+v", bare)
	}
	list := report.Realms[1].Clients
	if list.Total != 4 || list.Seen != 0 || list.Next != "" || len(list.List) != 4 {
		t.Fatalf("the clients are %+v", list)
	}
	if got, want := list.List[1], (status.Client{ClientID: "more-1", Name: "Größer", Source: "file:" + r.Dir + "/more.json"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !list.List[2].Disabled || list.List[3].Disabled {
		t.Errorf("not only more-2 is disabled: %+v", list.List)
	}
	for query, want := range map[string]string{
		"?realm=default&limit=2":               "billing.partner more-1 → more-1",
		"?realm=default&limit=2&after=more-1":  "more-2 sensor-7",
		"?realm=default&q=GR%C3%96":            "more-1",
		"?realm=default&q=sensor&never=true":   "sensor-7",
		"?realm=default&q=nobody&never=false":  "",
		"?realm=default&after=sensor-7":        "",
		"?realm=default&after=more&limit=1000": "more-1 more-2 sensor-7",
	} {
		got := statusOf(r, t, query)
		if len(got.Realms) != 1 {
			t.Fatalf("%s: %+v", query, got.Realms)
		}
		var ids []string
		for _, client := range got.Realms[0].Clients.List {
			ids = append(ids, client.ClientID)
		}
		if next := got.Realms[0].Clients.Next; next != "" {
			ids = append(ids, "→", next)
		}
		if strings.Join(ids, " ") != want {
			t.Errorf("%s: %v, want %s", query, ids, want)
		}
	}
}

func TestStatusOfTheIssuer(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(rig.ClockRealmOf(t), rig.IssuerSite)
	c := r.Caller(t, "h2", billing)
	token, _, _ := rig.Token(r, t, c, "https://auth.test/connect/token", rig.Form("billing.partner"))
	issuer := statusOf(r, t, "").Realms[0].Issuer
	if issuer == nil || issuer.URL != "https://auth.test" || len(issuer.Keys) != 1 || issuer.Keys[0].State != "active" || issuer.Keys[0].Algorithm != "ES256" || issuer.RevokedTokens != 0 {
		t.Fatalf("the issuer is %+v", issuer)
	}
	if wait := issuer.NextRotation.Sub(clock.Now()); wait < 89*24*time.Hour || wait > 90*24*time.Hour {
		t.Errorf("the next rotation is in %v", wait)
	}
	rig.Revoke(r, t, "h2", billing, "billing.partner", token["access_token"].(string))
	keyring(r, t, http.MethodPost, keysPath+"/rotate", "")
	issuer = statusOf(r, t, "").Realms[0].Issuer
	if len(issuer.Keys) != 2 || issuer.Keys[1].State != "next" || !issuer.NextRotation.Equal(issuer.Keys[1].From) || issuer.RevokedTokens != 1 {
		t.Errorf("after a rotation and a revocation, the issuer is %+v", issuer)
	}
	clock.Advance(2 * time.Hour) // longer than the token lives
	if issuer = statusOf(r, t, "").Realms[0].Issuer; issuer.RevokedTokens != 0 {
		t.Errorf("an expired token counts as revoked: %+v", issuer)
	}
}

func TestStatusOfSources(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.Write("deny.txt", []byte("# nobody\n"))
	r.AdminOn = true
	realm := strings.Replace(rig.ClockRealmOf(t), "issuer https", "revocation {\n\t\tdeny \"@DIR@/deny.txt\"\n\t}\n\tissuer https", 1)
	r.Start(realm, rig.IssuerSite)
	rig.Await(r, t, "everything has been read", func() bool {
		for _, s := range statusOf(r, t, "").Realms[0].Sources {
			if s.LastSuccess.IsZero() {
				return false
			}
		}
		return true
	})
	sources := statusOf(r, t, "").Realms[0].Sources
	for name, normal := range map[string]float64{
		"certificate:" + r.Dir + "/sensor.pem": 1, "trust_pool": 3600, "deny": 1, "keys": 30, "revocations": 5,
	} {
		if s := sourceOf(t, sources, name); s.Normal != normal || s.Late || s.Error != "" {
			t.Errorf("%+v, want a normal age of %v", s, normal)
		}
	}
	// a file that is broken says so, and is late in time
	r.Write("deny.txt", []byte("nonsense\n"))
	rig.Await(r, t, "the deny file is broken", func() bool {
		return strings.Contains(sourceOf(t, statusOf(r, t, "").Realms[0].Sources, "deny").Error, "nonsense")
	})
	if s := sourceOf(t, statusOf(r, t, "").Realms[0].Sources, "deny"); s.Late {
		t.Errorf("a failure of a second is late: %+v", s)
	}
	clock.Advance(2 * time.Minute)
	if s := sourceOf(t, statusOf(r, t, "").Realms[0].Sources, "deny"); !s.Late {
		t.Errorf("%+v is not late", s)
	}
}

func TestStatusQueriesThatAreRefused(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(rig.BillingAndSensor, "")
	for query, want := range map[string]string{
		"?realm=nowhere":                 `404 unknown realm \"nowhere\"`,
		"?realm=":                        "400 realm name '' has 0 characters",
		"?realm=A%00":                    "400 realm name",
		"?limit=0":                       "400 limit is",
		"?limit=1001":                    "400 use a number from 1 to 1000",
		"?limit=1&limit=2":               "400 appears 2 times",
		"?never=yes":                     "400 use true or false",
		"?after=%20":                     "400 which is not a client_id",
		"?Never=true":                    `400 unknown parameter \"Never\"`,
		"?q=%zz":                         "400 the query cannot be read",
		"?q=" + strings.Repeat("a", 201): "400 more than 200 bytes",
	} {
		code, text := rig.Ask(r, t, http.MethodGet, "/mtls/status"+query, "")
		status, message, _ := strings.Cut(want, " ")
		if code != map[string]int{"404": 404, "400": 400}[status] || !strings.Contains(text, message) {
			t.Errorf("%.40s returned %d %q, want %s", query, code, text, want)
		}
	}
	if code, text := rig.Ask(r, t, http.MethodPost, "/mtls/status", ""); code != 405 {
		t.Errorf("a POST returned %d %q", code, text)
	}
	r.Reload("", "")
	if code, text := rig.Ask(r, t, http.MethodGet, "/mtls/status", ""); code != 404 || !strings.Contains(text, "the running configuration has no realm") {
		t.Errorf("without realms: %d %q", code, text)
	}
}

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
