package mtlsauth

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// sourceFailed waits for the log line about a source of clients that failed.
func (r *rig) sourceFailed(t *testing.T, source, want string) {
	t.Helper()
	r.logs.wait(t, "what failed: "+want, func(entry logEntry) bool {
		return strings.HasPrefix(entry.str("msg"), "a source of clients failed") && strings.Contains(entry.str("source"), source) && strings.Contains(entry.str("error"), want)
	})
}

// pinsFile is a clients file of clients that are known by their thumbprints.
func pinsFile(members string, leaves map[string]*testpki.Leaf) []byte {
	var records []string
	for id, leaf := range leaves {
		records = append(records, fmt.Sprintf(`{"client_id":%q,"x509_thumbprints":%q%s}`, id, testpki.HashOf(leaf.Cert.Raw), members))
	}
	return []byte("[" + strings.Join(records, ",\n") + "]")
}

// TestC2_ClientsFile: what a clients file says counts on the next request, on
// connections that are open too, whether it is replaced or written anew.
func TestC2_ClientsFile(t *testing.T) {
	r := newRig(t)
	billing, partner, device := r.issue("billing"), r.selfSigned("partner"), r.selfSigned("device")
	r.selfSigned("sensor")
	both := map[string]*testpki.Leaf{"partner": partner, "device": device}
	r.write("partners.json", pinsFile(`,"scope":"api1"`, both))
	r.write("more.json", []byte("[]"))
	r.adminOn = true
	r.start(strings.Replace(issuerRealm(""), "client billing.partner", "clients_from file \"@DIR@/partners.json\" \"@DIR@/more.json\"\nclient billing.partner", 1), oneSite+issuerSite)
	open, others := map[string]*caller{}, map[string]*caller{}
	ofPartner, ofDevice := map[string]*connections{}, map[string]*connections{}
	for _, protocol := range rigProtocols {
		open[protocol], others[protocol] = r.caller(t, protocol, partner), r.caller(t, protocol, device)
		ofPartner[protocol], ofDevice[protocol] = open[protocol].connectionsTo("api.test"), others[protocol].connectionsTo("api.test")
	}
	want := func(partnerStatus, deviceStatus int) {
		t.Helper()
		for _, protocol := range rigProtocols {
			got := open[protocol].eventually(t, partnerStatus)
			if partnerStatus == http.StatusOK {
				got.wantClient(t, "partner")
			} else {
				got.wantRefused(t, "default", partnerStatus, "certificate_refused")
			}
			others[protocol].eventually(t, deviceStatus)
			ofPartner[protocol].wantOne(t)
			ofDevice[protocol].wantOne(t)
			r.caller(t, protocol, billing).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		}
	}
	want(http.StatusOK, http.StatusOK)
	if _, _, claims := r.token(t, open["h1"], "https://auth.test/connect/token", form("partner")); claims["client_id"] != "partner" {
		t.Errorf("claims %v", claims)
	}
	r.replace("partners.json", pinsFile("", map[string]*testpki.Leaf{"device": device}))
	want(http.StatusUnauthorized, http.StatusOK)
	open["h1"].do(http.MethodPost, "https://auth.test/connect/token", form("partner")).wantStatus(t, http.StatusUnauthorized)
	r.write("partners.json", pinsFile("", both)) // in place
	want(http.StatusOK, http.StatusOK)
	r.replace("partners.json", pinsFile(`,"disabled":true`, map[string]*testpki.Leaf{"partner": partner}))
	want(http.StatusUnauthorized, http.StatusUnauthorized)
	r.replace("more.json", pinsFile("", map[string]*testpki.Leaf{"device": device}))
	want(http.StatusUnauthorized, http.StatusOK)

	before := series(t, r.metrics(t), "default")
	for _, source := range []struct {
		file  string
		count float64
	}{{"partners.json", 1}, {"more.json", 1}} {
		if got := before[fmt.Sprintf(`clients{source="file:%s/%s"}`, r.dir, source.file)]; got != source.count {
			t.Errorf("%v clients of %s in %v", got, source.file, before)
		}
		if before[fmt.Sprintf(`source_last_success_timestamp_seconds{source="clients:%s/%s"}`, r.dir, source.file)] == 0 {
			t.Errorf("no success of %s in %v", source.file, before)
		}
	}
	if before[`clients{source="config"}`] != 2 {
		t.Errorf("clients of the configuration in %v", before)
	}

	// B4: what is broken, gone, or not good with the rest changes nothing
	for _, broken := range []struct{ content, want string }{
		{"", "no JSON array"},
		{string(pinsFile("", both))[:100], "record 1"},
		{`[{"client_id":"partner","disabled":false,"Disabled":true}]`, "unknown member"},
		{string(pinsFile("", map[string]*testpki.Leaf{"billing.partner": partner})), "client 'billing.partner' is in config and in file:"},
		{string(pinsFile("", map[string]*testpki.Leaf{"partner": device})), "is a credential of client"},
		{`[{"client_id":"a","tls_client_auth_subject_dn":"CN={env.HOME}","claims":{"sub":"x"}}]`, "claim 'sub' is reserved"},
	} {
		r.replace("partners.json", []byte(broken.content))
		r.sourceFailed(t, "clients:", broken.want)
		want(http.StatusUnauthorized, http.StatusOK)
	}
	if err := os.Remove(r.dir + "/partners.json"); err != nil {
		t.Fatal(err)
	}
	r.sourceFailed(t, "clients:", "no such file")
	want(http.StatusUnauthorized, http.StatusOK)
	r.replace("partners.json", pinsFile("", map[string]*testpki.Leaf{"partner": partner}))
	want(http.StatusOK, http.StatusOK)
}

// TestClientsFileExpandsNothing: who writes a clients file does not get at the
// environment of the server.
func TestClientsFileExpandsNothing(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	t.Setenv("MTLS_TEST_SECRET", "secret")
	r.write("partners.json", []byte(`[{"client_id":"billing","tls_client_auth_subject_dn":"CN=billing","claims":{"tenant":"{env.MTLS_TEST_SECRET}"}}]`))
	r.start(`mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	clients_from file "@DIR@/partners.json"
}`, strings.Replace(oneSite, "mtls_auth", "mtls_auth {\n\theader_up X-Tenant {http.mtls.claim.tenant}\n}", 1))
	got := r.caller(t, "h1", billing).get("https://api.test/").wantStatus(t, http.StatusOK)
	if tenant := got.seen.Header.Get("X-Tenant"); tenant != "{env.MTLS_TEST_SECRET}" {
		t.Errorf("the API is told %q", tenant)
	}
}

// TestC2_CertificateFile: the certificate file of a client is watched.
func TestC2_CertificateFile(t *testing.T) {
	r := newRig(t)
	billing, old := r.issue("billing"), r.selfSigned("sensor")
	next := testpki.MustSelfSigned(t, testpki.CommonName("next"))
	r.leaves = append(r.leaves, next)
	r.start(billingAndSensor, oneSite)
	open, counted := map[string]*caller{}, map[string]*connections{}
	for _, protocol := range rigProtocols {
		open[protocol] = r.caller(t, protocol, old)
		counted[protocol] = open[protocol].connectionsTo("api.test")
		open[protocol].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
	}
	r.replace("sensor.pem", []byte("no certificate"))
	r.sourceFailed(t, "certificate:", "holds no PEM certificate")
	open["h1"].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
	r.replace("sensor.pem", next.PEM())
	for _, protocol := range rigProtocols {
		open[protocol].eventually(t, http.StatusUnauthorized)
		counted[protocol].wantOne(t)
		r.caller(t, protocol, next).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
		r.caller(t, protocol, billing).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	}
	got := r.caller(t, "h1", old).get("https://api.test/")
	r.wantReason(t, got, "certificate_untrusted")
}

// TestB4_ClientsFileAtTheStart: a file that is missing, empty or broken stops
// the load, and the running configuration goes on.
func TestB4_ClientsFileAtTheStart(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(billingAndSensor, oneSite)
	realm := strings.Replace(billingAndSensor, "client billing.partner", "clients_from file \"@DIR@/partners.json\"\nclient billing.partner", 1)
	for _, broken := range []struct{ content, want string }{
		{"missing", "realm 'default': clients from file:" + r.dir + "/partners.json: stat "},
		{"", "it is no JSON array"},
		{"[{]", "record 1, at or after line 1"},
		{`[{"client_id":"billing.partner","x509_thumbprints":"` + testpki.SomeSHA256 + `"}]`, "client 'billing.partner' is in config and in file:"},
		{`[{"client_id":"a"}]`, "client 'a': no credential"},
	} {
		if broken.content != "missing" {
			r.write("partners.json", []byte(broken.content))
		}
		testtool.WantError(t, r.load(realm, oneSite), broken.want)
		r.caller(t, "h1", billing).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	}
}
