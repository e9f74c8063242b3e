package ops_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// signingKeys is the admin endpoint's answer about the keys of a realm.
type signingKeys struct {
	Rotated string `json:"rotated"`
	Keys    []struct {
		ID        string     `json:"kid"`
		Algorithm string     `json:"alg"`
		State     string     `json:"state"`
		Created   *time.Time `json:"created"`
		SignsFrom *time.Time `json:"signs_from"`
		LeavesAt  *time.Time `json:"leaves_at"`
	} `json:"keys"`
	LastRead *time.Time `json:"last_read"`
}

// keyring asks the admin endpoint about the keys of a realm.
func keyring(r *rig.Rig, t *testing.T, method, path, body string) (ring signingKeys) {
	t.Helper()
	status, text := rig.Ask(r, t, method, path, body)
	if status != http.StatusOK {
		t.Fatalf("%s %s returned %d %q", method, path, status, text)
	}
	if err := json.Unmarshal([]byte(text), &ring); err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{`"d"`, "PRIVATE", "private"} {
		if strings.Contains(text, never) {
			t.Errorf("the answer is %s", text)
		}
	}
	return ring
}

const keysPath = "/mtls/realms/default/keys"

func TestKeysOnTheAdminEndpoint(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	billing, _ := r.Issue("billing", testpki.Validity(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))), r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(rig.ClockRealmOf(t), rig.IssuerSite)
	c := r.Caller(t, "h2", billing)
	place := "https://auth.test/.well-known/openid-configuration/jwks"
	kid := func() string {
		_, header, _ := rig.Token(r, t, c, "https://auth.test/connect/token", rig.Form("billing.partner"))
		return header["kid"].(string)
	}
	gauges := func(active, next, past float64) {
		t.Helper()
		rig.CheckGauges(t, rig.Series(t, rig.Metrics(r, t), "default"), map[string]float64{
			`signing_keys{state="active"}`: active, `signing_keys{state="next"}`: next, `signing_keys{state="past"}`: past, `signing_keys{state="verify"}`: 0,
		})
	}
	first := kid()
	ring := keyring(r, t, http.MethodGet, keysPath, "")
	if len(ring.Keys) != 1 || ring.Keys[0].ID != first || ring.Keys[0].State != "active" || ring.Keys[0].Algorithm != "ES256" ||
		ring.Keys[0].Created == nil || ring.Keys[0].SignsFrom == nil || ring.Keys[0].LeavesAt != nil || ring.LastRead == nil {
		t.Fatalf("the keys are %+v", ring)
	}
	gauges(1, 0, 0)
	read := rig.Series(t, rig.Metrics(r, t), "default")[`source_last_success_timestamp_seconds{source="keys"}`]
	if until := keyring(r, t, http.MethodGet, keysPath, "").LastRead; read < float64(ring.LastRead.Unix()) || read > float64(until.Unix()) {
		t.Errorf("the keys were last read at %v, want %v to %v", read, ring.LastRead.Unix(), until.Unix())
	}

	// the second key is announced, then signs; then the first one leaves
	ring = keyring(r, t, http.MethodPost, keysPath+"/rotate", "")
	second := ring.Rotated
	if len(ring.Keys) != 2 || ring.Keys[0].ID != first || ring.Keys[1].ID != second || ring.Keys[1].State != "next" || ring.Keys[0].LeavesAt == nil {
		t.Fatalf("the keys are %+v", ring)
	}
	if wait := ring.Keys[1].SignsFrom.Sub(clock.Now()); wait < 23*time.Hour || wait > 25*time.Hour {
		t.Errorf("the next key starts signing in %v", wait)
	}
	gauges(1, 1, 0)
	if jwks := c.Get(place).Body; kid() != first || !strings.Contains(jwks, second) {
		t.Errorf("the announced key already signs, or is not published: %s", jwks)
	}
	clock.Ahead.Store(int64(time.Until(*ring.Keys[1].SignsFrom) + time.Second))
	if jwks := c.Get(place).Body; kid() != second || !strings.Contains(jwks, first) {
		t.Errorf("the next key does not sign on time, or the past one is gone: %s", jwks)
	}
	gauges(1, 0, 1)
	clock.Ahead.Store(int64(time.Until(*ring.Keys[0].LeavesAt) + time.Second))
	if jwks := c.Get(place).Body; kid() != second || strings.Contains(jwks, first) {
		t.Errorf("the past key is still published: %s", jwks)
	}

	// an emergency rotation retires the old keys at once
	ring = keyring(r, t, http.MethodPost, keysPath+"/rotate", ` { "retire" : "now" } `)
	third := ring.Rotated
	if jwks := c.Get(place).Body; kid() != third || strings.Contains(jwks, second) || len(ring.Keys) != 1 {
		t.Errorf("after the emergency rotation the keys are %+v, %s", ring, jwks)
	}
	gauges(1, 0, 0)
	r.Logs.Wait(t, "the rotation", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "signing keys rotated by an operator" && entry.Str("kid") == third && entry.Str("realm") == "default"
	})

	// a reload keeps the current keys
	r.Reload(rig.ClockRealmOf(t)+"\n# changed", rig.IssuerSite)
	if kid() != third {
		t.Error("the reload brought back a retired key")
	}
}

func TestAdminRequestsThatAreRefused(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(rig.IssuerRealm("")+`
mtls bare {
	client sensor-7 {
		certificate "@DIR@/sensor.pem"
	}
}
`, rig.IssuerSite)
	rig.Await(r, t, "there is a key", func() bool { return len(keyring(r, t, http.MethodGet, keysPath, "").Keys) == 1 })
	before := keyring(r, t, http.MethodGet, keysPath, "")
	for _, tc := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{http.MethodGet, "/mtls/realms/nowhere/keys", "", 404, `unknown realm \"nowhere\"; declared are: bare, default`},
		{http.MethodPost, "/mtls/realms/nowhere/keys/rotate", "", 404, `unknown realm`},
		{http.MethodGet, "/mtls/realms/bare/keys", "", 404, "realm 'bare' has no issuer, so it has no signing keys; add 'issuer"},
		{http.MethodPost, "/mtls/realms/bare/keys/rotate", "", 404, "realm 'bare' has no issuer"},
		{http.MethodGet, keysPath + "/rotate", "", 405, ""},
		{http.MethodDelete, keysPath, "", 405, ""},
		{http.MethodPost, keysPath + "/rotate", `{"retire":"Now"}`, 400, `retire is \"Now\"; the only value is \"now\"`},
		{http.MethodPost, keysPath + "/rotate", `{"retire":true}`, 400, `retire is true; the only value is`},
		{http.MethodPost, keysPath + "/rotate", `{"Retire":"now"}`, 400, `unknown member \"Retire\"; the only one is \"retire\"`},
		{http.MethodPost, keysPath + "/rotate", `{"retire":"now","retire":"now"}`, 400, `duplicate member \"retire\"`},
		{http.MethodPost, keysPath + "/rotate", `{"retire":"now"} {}`, 400, "text after the JSON value"},
		{http.MethodPost, keysPath + "/rotate", `{"retire":"now"`, 400, "the body is not an object such as"},
		{http.MethodPost, keysPath + "/rotate", `["retire"]`, 400, "not a JSON object"},
		{http.MethodPost, keysPath + "/rotate", "retire=now", 400, "invalid character"},
		{http.MethodPost, keysPath + "/rotate", strings.Repeat(" ", 4<<10+1), 413, "the body has more than 4096 bytes"},
	} {
		status, text := rig.Ask(r, t, tc.method, tc.path, tc.body)
		if status != tc.status || !strings.Contains(text, tc.want) {
			t.Errorf("%s %s %.40q returned %d %q, want %d %q", tc.method, tc.path, tc.body, status, text, tc.status, tc.want)
		}
	}
	if after := keyring(r, t, http.MethodGet, keysPath, ""); len(after.Keys) != len(before.Keys) {
		t.Errorf("a refused request created a key: %+v", after)
	}

	// a configuration that fails to load leaves the running one in place
	if err := r.Load("mtls other {\nissuer http://auth.test\n}", ""); err == nil {
		t.Fatal("an invalid configuration loaded")
	}
	keyring(r, t, http.MethodGet, keysPath, "")

	// neither a key file nor a configuration without realms can be rotated
	rig.SigningKeyPEM(r, t, "key.pem", rig.MustSigner(t))
	r.Reload(rig.IssuerRealm(`signing_key "@DIR@/key.pem"`), rig.IssuerSite)
	if status, text := rig.Ask(r, t, http.MethodPost, keysPath+"/rotate", ""); status != 409 || !strings.Contains(text, "realm 'default' signs with the file in signing_key, which is not rotated here; replace the file and reload") {
		t.Errorf("with a key file the answer is %d %q", status, text)
	}
	if ring := keyring(r, t, http.MethodGet, keysPath, ""); len(ring.Keys) != 1 || ring.Keys[0].State != "active" || ring.LastRead != nil {
		t.Errorf("the keys are %+v", ring)
	}
	r.Reload("", "")
	if status, text := rig.Ask(r, t, http.MethodGet, keysPath, ""); status != 404 || !strings.Contains(text, "the running configuration has no realm") {
		t.Errorf("without realms the answer is %d %q", status, text)
	}
}

// TestIssuerOfARealmIsShownAsItIs checks that a placeholder in the URL of an issuer is
// replaced where the realm is described, as it is in tokens.
func TestIssuerOfARealmIsShownAsItIs(t *testing.T) {
	t.Setenv("MTLS_TEST_ISSUER", "https://auth.test")
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(strings.Replace(rig.IssuerRealm(""), "issuer https://auth.test", "issuer {env.MTLS_TEST_ISSUER}", 1), rig.IssuerSite)
	for _, path := range []string{"/mtls/realms", "/mtls/realms/default", "/mtls/status"} {
		if _, text := rig.Ask(r, t, http.MethodGet, path, ""); !strings.Contains(text, `"url":"https://auth.test"`) {
			t.Errorf("%s: %s", path, text)
		}
	}
}
