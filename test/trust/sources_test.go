package trust_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// sourceFailed waits for the log line about a failed source of clients.
func sourceFailed(r *rig.Rig, t *testing.T, source, want string) {
	t.Helper()
	r.Logs.Wait(t, "what failed: "+want, func(entry rig.LogEntry) bool {
		return strings.HasPrefix(entry.Str("msg"), "client source failed") && strings.Contains(entry.Str("source"), source) && strings.Contains(entry.Str("error"), want)
	})
}

// pinsFile returns a clients file whose clients are identified by thumbprint.
func pinsFile(members string, leaves map[string]*testpki.Leaf) []byte {
	var records []string
	for id, leaf := range leaves {
		records = append(records, fmt.Sprintf(`{"client_id":%q,"x509_thumbprints":%q%s}`, id, testpki.HashOf(leaf.Cert.Raw), members))
	}
	return []byte("[" + strings.Join(records, ",\n") + "]")
}

// TestClientsFile_C2 checks that changes of a clients file apply to the next
// request, on open connections too, whether the file is replaced or rewritten in
// place.
func TestClientsFile_C2(t *testing.T) {
	r := rig.New(t)
	billing, partner, device := r.Issue("billing"), r.SelfSigned("partner"), r.SelfSigned("device")
	r.SelfSigned("sensor")
	both := map[string]*testpki.Leaf{"partner": partner, "device": device}
	r.Write("partners.json", pinsFile(`,"scope":"api1"`, both))
	r.Write("more.json", []byte("[]"))
	r.AdminOn = true
	r.Start(strings.Replace(rig.IssuerRealm(""), "client billing.partner", "clients_from file \"@DIR@/partners.json\" \"@DIR@/more.json\"\nclient billing.partner", 1), rig.OneSite+rig.IssuerSite)
	open, others := map[string]*rig.Caller{}, map[string]*rig.Caller{}
	ofPartner, ofDevice := map[string]*rig.Connections{}, map[string]*rig.Connections{}
	for _, protocol := range rig.Protocols {
		open[protocol], others[protocol] = r.Caller(t, protocol, partner), r.Caller(t, protocol, device)
		ofPartner[protocol], ofDevice[protocol] = open[protocol].ConnectionsTo("api.test"), others[protocol].ConnectionsTo("api.test")
	}
	want := func(partnerStatus, deviceStatus int) {
		t.Helper()
		for _, protocol := range rig.Protocols {
			got := open[protocol].Eventually(t, partnerStatus)
			if partnerStatus == http.StatusOK {
				got.WantClient(t, "partner")
			} else {
				got.WantRefused(t, "default", partnerStatus, "certificate_refused")
			}
			others[protocol].Eventually(t, deviceStatus)
			ofPartner[protocol].WantOne(t)
			ofDevice[protocol].WantOne(t)
			r.Caller(t, protocol, billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		}
	}
	want(http.StatusOK, http.StatusOK)
	if _, _, claims := rig.Token(r, t, open["h1"], "https://auth.test/connect/token", rig.Form("partner")); claims["client_id"] != "partner" {
		t.Errorf("claims %v", claims)
	}
	replace(r, "partners.json", pinsFile("", map[string]*testpki.Leaf{"device": device}))
	want(http.StatusUnauthorized, http.StatusOK)
	open["h1"].Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("partner")).WantStatus(t, http.StatusBadRequest)
	r.Write("partners.json", pinsFile("", both)) // rewritten in place
	want(http.StatusOK, http.StatusOK)
	replace(r, "partners.json", pinsFile(`,"disabled":true`, map[string]*testpki.Leaf{"partner": partner}))
	want(http.StatusUnauthorized, http.StatusUnauthorized)
	replace(r, "more.json", pinsFile("", map[string]*testpki.Leaf{"device": device}))
	want(http.StatusUnauthorized, http.StatusOK)

	before := rig.Series(t, rig.Metrics(r, t), "default")
	for _, source := range []struct {
		file  string
		count float64
	}{{"partners.json", 1}, {"more.json", 1}} {
		if got := before[fmt.Sprintf(`clients{source="file:%s/%s"}`, r.Dir, source.file)]; got != source.count {
			t.Errorf("%v clients of %s in %v", got, source.file, before)
		}
		if before[fmt.Sprintf(`source_last_success_timestamp_seconds{source="clients:%s/%s"}`, r.Dir, source.file)] == 0 {
			t.Errorf("no last success of %s in %v", source.file, before)
		}
	}
	if before[`clients{source="config"}`] != 2 {
		t.Errorf("wrong number of configured clients in %v", before)
	}

	// B4: a file that is broken, missing or in conflict with other clients changes nothing
	for _, broken := range []struct{ content, want string }{
		{"", "not a JSON array"},
		{string(pinsFile("", both))[:100], "the array does not end; close it with ]"},
		{`[{"client_id":"partner","disabled":false,"Disabled":true}]`, "unknown member"},
		{string(pinsFile("", map[string]*testpki.Leaf{"partner": partner, "other": partner})), "is also a credential of client"},
		{`[{"client_id":"a","tls_client_auth_subject_dn":"CN={env.HOME}","claims":{"sub":"x"}}]`, "claim 'sub' is reserved"},
	} {
		replace(r, "partners.json", []byte(broken.content))
		sourceFailed(r, t, "clients:", broken.want)
		want(http.StatusUnauthorized, http.StatusOK)
	}
	if err := os.Remove(r.Dir + "/partners.json"); err != nil {
		t.Fatal(err)
	}
	sourceFailed(r, t, "clients:", "no such file")
	want(http.StatusUnauthorized, http.StatusOK)
	replace(r, "partners.json", pinsFile("", map[string]*testpki.Leaf{"partner": partner}))
	want(http.StatusOK, http.StatusOK)
}

// TestClientsFileExpandsNothing checks that the author of a clients file cannot
// read the server's environment.
func TestClientsFileExpandsNothing(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	t.Setenv("MTLS_TEST_SECRET", "secret")
	r.Write("partners.json", []byte(`[{"client_id":"billing","tls_client_auth_subject_dn":"CN=billing","claims":{"tenant":"{env.MTLS_TEST_SECRET}"}}]`))
	r.Start(`mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	clients_from file "@DIR@/partners.json"
}`, strings.Replace(rig.OneSite, "mtls_auth", "mtls_auth {\n\theader_up X-Tenant {http.mtls.claim.tenant}\n}", 1))
	got := r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusOK)
	if tenant := got.Seen.Header.Get("X-Tenant"); tenant != "{env.MTLS_TEST_SECRET}" {
		t.Errorf("the API received tenant %q", tenant)
	}
}

// TestCertificateFile_C2 checks that a client's certificate file is watched.
func TestCertificateFile_C2(t *testing.T) {
	r := rig.New(t)
	billing, old := r.Issue("billing"), r.SelfSigned("sensor")
	next := testpki.MustSelfSigned(t, testpki.CommonName("next"))
	r.Leaves = append(r.Leaves, next)
	r.Start(rig.BillingAndSensor, rig.OneSite)
	open, counted := map[string]*rig.Caller{}, map[string]*rig.Connections{}
	for _, protocol := range rig.Protocols {
		open[protocol] = r.Caller(t, protocol, old)
		counted[protocol] = open[protocol].ConnectionsTo("api.test")
		open[protocol].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
	}
	replace(r, "sensor.pem", []byte("no certificate"))
	sourceFailed(r, t, "certificate:", "contains no PEM certificate")
	open["h1"].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
	replace(r, "sensor.pem", next.PEM())
	for _, protocol := range rig.Protocols {
		open[protocol].Eventually(t, http.StatusUnauthorized)
		counted[protocol].WantOne(t)
		r.Caller(t, protocol, next).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
		r.Caller(t, protocol, billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
	got := r.Caller(t, "h1", old).Get("https://api.test/")
	r.WantReason(t, got, "certificate_untrusted")
}

// TestClientsFileAtTheStart_B4 checks that a missing, empty or broken file fails
// the load, and that the running configuration continues.
func TestClientsFileAtTheStart_B4(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite)
	realm := strings.Replace(rig.BillingAndSensor, "client billing.partner", "clients_from file \"@DIR@/partners.json\"\nclient billing.partner", 1)
	for _, broken := range []struct{ content, want string }{
		{"missing", "realm 'default': clients from file:" + r.Dir + "/partners.json: stat "},
		{"", "not a JSON array"},
		{"[{]", "line 1: ']' does not close what is open"},
		{`[{"client_id":"a"}]`, "client 'a': no credential"},
	} {
		if broken.content != "missing" {
			r.Write("partners.json", []byte(broken.content))
		}
		testtool.WantError(t, r.Load(realm, rig.OneSite), broken.want)
		r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
}
