package ops_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
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
	// a machine that stops for longer than the slack makes a source late
	late := func(report status.Report, s status.Source) bool {
		return s.Late && report.At.Sub(s.LastSuccess) < 30*time.Second
	}
	report := statusOf(r, t, "")
	sources := report.Realms[0].Sources
	for name, normal := range map[string]float64{
		"certificate:" + r.Dir + "/sensor.pem": 1, "trust_pool": 3600, "deny": 1, "keys": 30, "revocations": 5,
	} {
		if s := sourceOf(t, sources, name); s.Normal != normal || late(report, s) || s.Error != "" {
			t.Errorf("%+v, want a normal age of %v", s, normal)
		}
	}
	// a file that is broken says so, and is late in time
	r.Write("deny.txt", []byte("nonsense\n"))
	var broken status.Source
	rig.Await(r, t, "the deny file is broken", func() bool {
		report = statusOf(r, t, "")
		broken = sourceOf(t, report.Realms[0].Sources, "deny")
		return strings.Contains(broken.Error, "nonsense")
	})
	if late(report, broken) {
		t.Errorf("a failure of a second is late: %+v", broken)
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

// TestStatusDuringReloads asks for the status all the time while the configuration changes
// under it, and requests are served.
func TestStatusDuringReloads(t *testing.T) {
	r := rig.New(t)
	billing, _ := r.Issue("billing"), r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(rig.BillingAndSensor, rig.OneSite)
	done := make(chan struct{})
	var all sync.WaitGroup
	asked := 0
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			response, err := rig.AdminClient.Get("http://127.0.0.1:" + r.Admin + "/mtls/status")
			if err != nil {
				continue // the admin endpoint starts anew with each configuration
			}
			var report status.Report
			err = json.NewDecoder(response.Body).Decode(&report)
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK || err == nil && (len(report.Realms) == 0 || report.Realms[0].Clients.Total < 2) {
				t.Errorf("%d, %+v", response.StatusCode, report)
			}
			if err == nil {
				asked++
			}
		}
	})
	for i := range 8 {
		more := strings.Repeat("\nmtls more {\n\tclient only {\n\t\tcertificate \"@DIR@/sensor.pem\"\n\t}\n}\n", i%2)
		r.Reload(rig.BillingAndSensor+more+fmt.Sprintf("# %d\n", i), rig.OneSite)
		r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, 200)
	}
	close(done)
	all.Wait()
	if asked == 0 {
		t.Error("the status never came")
	}
	if got := sighted(r, t, "billing.partner"); got.LastSeen.IsZero() {
		t.Errorf("%+v", got)
	}
}

// TestStatusHasRefusalsOfNoRealm checks that refusals of mtls_bearer without a realm are in
// the status of all realms.
func TestStatusHasRefusalsOfNoRealm(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(rig.BillingAndSensor, rig.OneSite+`
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		trust_issuer https://login.example.net {
			jwks_uri https://127.0.0.1:1/keys
			audience https://other.test
		}
	}
	reverse_proxy @UP@
}
`)
	got := r.Caller(t, "h2", nil).Get("https://other.test/")
	rig.Refusal(t, got.ErrorID)
	if list := statusOf(r, t, "").Refusals; len(list) != 1 || list[0].ErrorID != got.ErrorID || list[0].Realm != "" {
		t.Errorf("%+v", list)
	}
	if list := statusOf(r, t, "?realm=default").Refusals; len(list) != 0 {
		t.Errorf("in the status of a realm: %+v", list)
	}
}
