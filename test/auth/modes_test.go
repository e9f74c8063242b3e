package auth_test

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// modesSite has one path for each way to use mtls_auth.
const modesSite = `
https://api.test:@HTTPS@ {
	import mtls
	log
	handle /optional {
		mtls_auth {
			optional
		}
		reverse_proxy @UP@
	}
	handle /report {
		mtls_auth {
			report_only
			allow billing.partner
		}
		reverse_proxy @UP@ {
			header_up X-Error {http.mtls.error}
		}
	}
	handle /allow/exact {
		mtls_auth {
			allow billing.partner
		}
		reverse_proxy @UP@
	}
	handle /allow/wildcard {
		mtls_auth {
			allow bill*.p*r nobody
		}
		reverse_proxy @UP@
	}
	handle /allow/everyone {
		mtls_auth {
			allow *
		}
		reverse_proxy @UP@
	}
	handle /scope {
		mtls_auth {
			require_scope invoices.write invoices.read
		}
		reverse_proxy @UP@
	}
	handle /realm/default {
		mtls_auth
		reverse_proxy @UP@
	}
	handle /realm/devices {
		mtls_auth {
			realm devices
		}
		reverse_proxy @UP@
	}
	reverse_proxy @UP@
}
`

const twoRealms = rig.BillingAndSensor + `
mtls devices {
	client device-1 {
		certificate "@DIR@/sensor.pem"
	}
}
`

func TestModesOfTheDirective(t *testing.T) {
	r := rig.New(t)
	certificates := map[string]*testpki.Leaf{
		"none": nil, "billing": r.Issue("billing"), "sensor": r.SelfSigned("sensor"), "stranger": r.Issue("stranger"),
	}
	r.Start(twoRealms, modesSite)
	tests := []struct {
		path, certificate string
		status            int
		client            string // sent to the API
		word              string // sent to the caller
	}{
		{"/optional", "none", 200, "", ""},
		{"/optional", "billing", 200, "billing.partner", ""},
		{"/optional", "sensor", 200, "sensor-7", ""},
		{"/optional", "stranger", 401, "", rig.Refused},

		{"/report", "none", 200, "", ""},
		{"/report", "billing", 200, "billing.partner", ""},
		{"/report", "sensor", 200, "", ""}, // not in allow
		{"/report", "stranger", 200, "", ""},

		{"/allow/exact", "billing", 200, "billing.partner", ""},
		{"/allow/exact", "sensor", 403, "", ""},
		{"/allow/exact", "stranger", 401, "", rig.Refused},
		{"/allow/exact", "none", 401, "", "certificate_missing"},
		{"/allow/wildcard", "billing", 200, "billing.partner", ""},
		{"/allow/wildcard", "sensor", 403, "", ""},
		{"/allow/everyone", "sensor", 200, "sensor-7", ""},
		{"/allow/everyone", "stranger", 401, "", rig.Refused},

		{"/scope", "billing", 200, "billing.partner", ""},
		{"/scope", "sensor", 403, "", ""},

		{"/realm/default", "sensor", 200, "sensor-7", ""},
		{"/realm/devices", "sensor", 200, "device-1", ""},
		{"/realm/devices", "billing", 401, "", rig.Refused},
	}
	for _, protocol := range rig.Protocols {
		for _, tc := range tests {
			t.Run(protocol+tc.path+"/"+tc.certificate, func(t *testing.T) {
				uri := tc.path + "?" + protocol + "-" + tc.certificate
				got := r.Caller(t, protocol, certificates[tc.certificate]).Get("https://api.test"+uri,
					rig.With("X-Client-Id", "billing.partner"))
				realm := "default"
				if tc.path == "/realm/devices" {
					realm = "devices"
				}
				if tc.status == 200 {
					got.WantStatus(t, 200).WantClient(t, tc.client)
				} else {
					got.WantRefused(t, realm, tc.status, tc.word)
				}
				entry := r.Logs.Access(t, uri)
				if id, ok := entry["user_id"]; id != tc.client && (ok && id != "" || tc.client != "") {
					t.Errorf("the access log has user_id %q, want %q", id, tc.client)
				}
			})
		}
	}
}

func TestReportOnlyTellsWhatWouldBeRefused(t *testing.T) {
	r := rig.New(t)
	sensor, stranger := r.SelfSigned("sensor"), r.Issue("stranger")
	r.Issue("billing")
	r.Start(twoRealms, modesSite)
	for _, protocol := range rig.Protocols {
		for _, tc := range []struct {
			leaf   *testpki.Leaf
			reason string
		}{{nil, "certificate_missing"}, {sensor, "client_not_allowed"}, {stranger, "certificate_unknown"}} {
			t.Run(protocol+"/"+tc.reason, func(t *testing.T) {
				already := func(e rig.LogEntry) bool {
					return e.Str("msg") == "client would be refused" && e.Str("reason") == tc.reason
				}
				before := len(rig.WaitForRefusals(t, 0, already))
				got := r.Caller(t, protocol, tc.leaf).Get("https://api.test/report").WantStatus(t, http.StatusOK).WantClient(t, "")
				if told := got.Seen.Header.Get("X-Error"); told != tc.reason {
					t.Errorf("{http.mtls.error} is %q, want %q", told, tc.reason)
				}
				if got.Header.Get("WWW-Authenticate") != "" {
					t.Error("the response to an admitted request has a challenge")
				}
				entries := rig.WaitForRefusals(t, before+1, already)
				if len(entries) != before+1 {
					t.Fatalf("%d refusals, want one more than the %d before", len(entries), before)
				}
				entry := r.Logs.WithErrorID(t, "client would be refused", entries[before].Str("error_id"))
				if entry["report_only"] != true || entry.Str("level") != "warn" || strings.Contains(fmt.Sprint(got.Header, got.Seen.Header, got.Body), entry.Str("error_id")) {
					t.Errorf("unexpected log line %v", entry)
				}
			})
		}
	}
	if refused := r.Logs.All(func(e rig.LogEntry) bool { return e.Str("msg") == "client refused" }); len(refused) > 0 {
		t.Errorf("report_only logs a refusal that did not happen: %v", refused)
	}
}

// placeholdersSite responds with the values of all placeholders.
const placeholdersSite = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
	}
	respond "client_id=[{http.mtls.client_id}] realm=[{http.mtls.realm}] scope=[{http.mtls.scope}] credential=[{http.mtls.credential}] matched=[{http.mtls.matched}] thumbprint=[{http.mtls.thumbprint}] subject=[{http.mtls.subject}] not_after=[{http.mtls.not_after}] not_before=[{http.mtls.not_before}] subject_legacy=[{http.mtls.subject_legacy}] issuer=[{http.mtls.issuer}] issuer_legacy=[{http.mtls.issuer_legacy}] serial=[{http.mtls.serial}] sha256=[{http.mtls.fingerprint_sha256}] sha1=[{http.mtls.fingerprint_sha1}] tenant=[{http.mtls.claim.tenant}] limits=[{http.mtls.claim.limits}] other=[{http.mtls.claim.other}] error=[{http.mtls.error}] nonsense=[{http.mtls.nonsense}] user=[{http.auth.user.id}]"
}
`

func TestPlaceholders(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing", testpki.Subject(pkix.Name{CommonName: "billing", Organization: []string{"Größe, \"x\""}}))
	sensor := r.SelfSigned("sensor")
	// a Caddyfile can only express string claims
	r.Change = func(config map[string]any) {
		client := rig.Member(t, config, "apps", "mtls", "realms", "default")["clients"].([]any)[0].(map[string]any)
		rig.Member(t, client, "claims")["limits"] = map[string]any{"max": 5}
	}
	r.Start(`
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client billing.partner {
			subject `+"`"+`CN=billing,O=Größe\, \"x\"`+"`"+`
			scopes  invoices.read invoices.write
			claim   tenant "partner 7"
		}
		client sensor-7 {
			certificate "@DIR@/sensor.pem"
		}
	}`, placeholdersSite)
	sum := sha256.Sum256(sensor.Cert.Raw)
	ofCertificate := func(leaf *testpki.Leaf, more map[string]string) map[string]string {
		maps.Copy(more, map[string]string{
			"thumbprint": validators.X5tS256(sha256.Sum256(leaf.Cert.Raw)), "serial": strings.ToUpper(hex.EncodeToString(leaf.Cert.SerialNumber.Bytes())),
			"sha256": testpki.HashOf(leaf.Cert.Raw), "sha1": fmt.Sprintf("%x", sha1.Sum(leaf.Cert.Raw)),
			"not_before": leaf.Cert.NotBefore.UTC().Format(time.RFC3339), "not_after": leaf.Cert.NotAfter.UTC().Format(time.RFC3339),
		})
		return more
	}
	subject := `CN=billing,O=Gr\C3\B6\C3\9Fe\, \"x\"`
	for _, tc := range []struct {
		name string
		leaf *testpki.Leaf
		want map[string]string
	}{
		{"none", nil, nil},
		{"subject", billing, ofCertificate(billing, map[string]string{
			"client_id": "billing.partner", "user": "billing.partner", "realm": "default", "credential": "subject", "matched": subject, "subject": subject,
			"scope": "invoices.read invoices.write", "tenant": "partner 7", "limits": `{"max":5}`,
			"subject_legacy": `/O=Gr\xC3\xB6\xC3\x9Fe, "x"/CN=billing`, "issuer": r.CA.Cert.Subject.String(), "issuer_legacy": "/" + r.CA.Cert.Subject.String(),
		})},
		{"pinned", sensor, ofCertificate(sensor, map[string]string{
			"client_id": "sensor-7", "user": "sensor-7", "realm": "default", "credential": "certificate", "matched": hex.EncodeToString(sum[:]),
			"subject": "CN=sensor", "subject_legacy": "/CN=sensor", "issuer": "CN=sensor", "issuer_legacy": "/CN=sensor",
		})},
	} {
		for _, protocol := range rig.Protocols {
			t.Run(tc.name+"/"+protocol, func(t *testing.T) {
				got := r.Caller(t, protocol, tc.leaf).Get("https://api.test/").WantStatus(t, http.StatusOK)
				count := 0
				for pair := range strings.SplitSeq(strings.TrimSuffix(got.Body, "]"), "] ") {
					name, value, _ := strings.Cut(pair, "=[")
					count++
					if name == "user" && tc.leaf == nil {
						tc.want = map[string]string{"user": "{http.auth.user.id}"} // Caddy leaves it unresolved without a user
					}
					if value != tc.want[name] {
						t.Errorf("%s is %q, want %q", name, value, tc.want[name])
					}
				}
				if count != 21 {
					t.Errorf("%d placeholders in %q", count, got.Body)
				}
			})
		}
	}
}
