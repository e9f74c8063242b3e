package ops_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// metricsRealm has a name of its own because counters live as long as the process.
const metricsRealm = `
mtls metered {
	trust_pool file "@DIR@/clients-ca.pem"
	client billing.partner {
		subject "CN=billing"
		scopes  invoices.read
	}
	client sensor-7 {
		certificate "@DIR@/sensor.pem"
	}
	MORE
	issuer https://auth.test
}
`

const metricsSites = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth /free* {
		realm metered
		optional
	}
	mtls_auth /report {
		realm metered
		report_only
	}
	@rest not path /free* /report
	mtls_auth @rest {
		realm metered
		allow billing.partner
	}
	reverse_proxy @UP@
}
https://auth.test:@HTTPS@ {
	import mtls
	mtls_issuer {
		realm metered
	}
}
https://metrics.test:@HTTPS@ {
	import mtls
	metrics
}
`

func TestMetrics(t *testing.T) {
	r := rig.New(t)
	billing, sensor, stranger := r.Issue("billing"), r.SelfSigned("sensor"), r.Issue("stranger")
	r.AdminOn = true
	r.Start(strings.Replace(metricsRealm, "MORE", "", 1), metricsSites)
	now := func() map[string]float64 { return rig.Series(t, rig.Metrics(r, t), "metered") }
	r.Caller(t, "h2", nil).Get("https://auth.test/.well-known/openid-configuration/jwks").WantStatus(t, 200) // this creates the signing key
	last := now()
	// changed fails the test unless exactly these series moved by these amounts
	changed := func(t *testing.T, want map[string]float64) {
		t.Helper()
		current := now()
		for name, value := range current {
			moved := value - last[name]
			if strings.Contains(name, "_seconds_sum") || strings.HasPrefix(name, "certificate_expiry") || strings.HasPrefix(name, "source_last_success") || strings.HasPrefix(name, "cache_entries") {
				continue
			}
			if strings.HasPrefix(name, "client_refusals_total") || name == "recent_refusals" || name == "strangers" {
				continue // these move after the answer
			}
			if moved != want[name] {
				t.Errorf("%s moved by %v, want %v", name, moved, want[name])
			}
			delete(want, name)
		}
		for name := range want {
			t.Errorf("series %s is missing", name)
		}
		last = current
	}
	result := func(reason string) string { return `authentications_total{result="` + reason + `"}` }
	hit, miss := `cache_total{outcome="hit"}`, `cache_total{outcome="miss"}`
	const duration = "authentication_duration_seconds_count"
	const byAuth, byIssuer = `handler_duration_seconds_count{directive="mtls_auth"}`, `handler_duration_seconds_count{directive="mtls_issuer"}`
	refused := func(directive, reason string) string {
		return `refusals_total{directive="` + directive + `",reason="` + reason + `",report_only="false"}`
	}

	for _, reason := range validators.Reasons {
		if _, ok := last[result(string(reason))]; !ok {
			t.Errorf("the series for %s is missing before its first event", reason)
		}
		for _, directive := range []string{"mtls_auth", "mtls_issuer"} {
			if _, ok := last[refused(directive, string(reason))]; !ok {
				t.Errorf("the series for %s by %s is missing before its first event", reason, directive)
			}
		}
	}
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			first, later := miss, hit // the certificate is examined once
			if protocol != rig.Protocols[0] {
				first = hit
			}
			sum := func(pairs ...string) map[string]float64 {
				want := make(map[string]float64)
				for _, name := range pairs {
					want[name]++
				}
				return want
			}
			asBilling, asSensor, asStranger, asNobody := r.Caller(t, protocol, billing), r.Caller(t, protocol, sensor), r.Caller(t, protocol, stranger), r.Caller(t, protocol, nil)
			asBilling.Get("https://api.test/").WantStatus(t, 200)
			changed(t, sum(result("ok"), duration, first, byAuth))
			asBilling.Get("https://api.test/").WantStatus(t, 200)
			changed(t, sum(result("ok"), duration, later, byAuth))
			asSensor.Get("https://api.test/").WantStatus(t, 403)
			changed(t, sum(result("client_not_allowed"), duration, first, byAuth, refused("mtls_auth", "client_not_allowed")))
			asStranger.Get("https://api.test/").WantStatus(t, 401)
			changed(t, sum(result("certificate_unknown"), duration, first, byAuth, refused("mtls_auth", "certificate_unknown")))
			asNobody.Get("https://api.test/").WantStatus(t, 401)
			changed(t, sum(result("certificate_missing"), duration, byAuth, refused("mtls_auth", "certificate_missing")))
			asNobody.Get("https://api.test/report").WantStatus(t, 200)
			changed(t, sum(result("certificate_missing"), duration, byAuth, `refusals_total{directive="mtls_auth",reason="certificate_missing",report_only="true"}`))
			asNobody.Get("https://api.test/free").WantStatus(t, 200)
			changed(t, sum(duration, byAuth)) // no decision was made

			token := func(c *rig.Caller, status int, request func(*http.Request)) {
				t.Helper()
				got := c.Do(http.MethodPost, "https://auth.test/connect/token", request).WantStatus(t, status)
				if status == 200 {
					token, _ := rig.JSON(t, got.Body)["access_token"].(string)
					r.Secrets = append(r.Secrets, token)
				}
			}
			token(asBilling, 200, rig.Form("billing.partner"))
			changed(t, sum(result("ok"), duration, hit, byIssuer, "tokens_issued_total"))
			invalidScope, invalidClient := `token_errors_total{error="invalid_scope"}`, `token_errors_total{error="invalid_client"}`
			token(asBilling, 400, rig.Form("billing.partner", "scope", "x"))
			changed(t, sum(result("ok"), duration, hit, byIssuer, invalidScope, refused("mtls_issuer", "invalid_scope")))
			token(asBilling, 400, rig.Form("sensor-7"))
			changed(t, sum(result("client_mismatch"), duration, hit, byIssuer, invalidClient, refused("mtls_issuer", "client_mismatch")))

			mine := rig.JSON(t, asBilling.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner")).Body)["access_token"].(string)
			r.Secrets = append(r.Secrets, mine)
			changed(t, sum(result("ok"), duration, hit, byIssuer, "tokens_issued_total"))
			about := func(endpoint, token, result string, status int) {
				t.Helper()
				asBilling.Do(http.MethodPost, "https://auth.test/connect/"+endpoint, rig.Query("billing.partner", token)).WantStatus(t, status)
				changed(t, sum(`authentications_total{result="ok"}`, duration, hit, byIssuer, result))
			}
			about("introspect", mine, `introspections_total{result="active"}`, 200)
			about("introspect", "nonsense", `introspections_total{result="inactive"}`, 200)
			about("revocation", "nonsense", `revocations_total{result="ignored"}`, 200)
			about("revocation", mine, `revocations_total{result="revoked"}`, 200)
			about("introspect", mine, `introspections_total{result="inactive"}`, 200)
			asNobody.Do(http.MethodPost, "https://auth.test/connect/introspect", rig.Query("billing.partner", mine)).WantStatus(t, 401)
			changed(t, sum(result("certificate_missing"), duration, byIssuer, invalidClient, refused("mtls_issuer", "certificate_missing")))
		})
	}
	if site := rig.Series(t, r.Caller(t, "h2", nil).Get("https://metrics.test/metrics").WantStatus(t, 200).Body, "metered"); site[result("ok")] != last[result("ok")] {
		t.Errorf("the metrics directive reports %v", site)
	}

	rig.CheckGauges(t, now(), map[string]float64{
		`clients{source="config"}`: 2, `signing_keys{state="active"}`: 1, `signing_keys{state="next"}`: 0, `signing_keys{state="past"}`: 0, `signing_keys{state="verify"}`: 0,
		`certificate_expiry_timestamp_seconds{client_id="billing.partner"}`: float64(billing.Cert.NotAfter.Unix()),
		`certificate_expiry_timestamp_seconds{client_id="sensor-7"}`:        float64(sensor.Cert.NotAfter.Unix()),
	})

	if read := now()[`source_last_success_timestamp_seconds{source="revocations"}`]; read < float64(time.Now().Add(-time.Minute).Unix()) {
		t.Errorf("revoked tokens were last read at %v", read)
	}

	// counters survive a reload, gauges follow it
	rig.WaitForRefusals(t, 7*len(rig.Protocols), func(rig.LogEntry) bool { return true }) // and count by client
	before := now()
	r.Reload(strings.Replace(metricsRealm, "MORE", "client third {\nsubject CN=third\n}", 1), metricsSites)
	after := now()
	for name, value := range before {
		if strings.Contains(name, "_total") && after[name] != value {
			t.Errorf("after a reload %s is %v, was %v", name, after[name], value)
		}
	}
	rig.CheckGauges(t, after, map[string]float64{`clients{source="config"}`: 3, `signing_keys{state="active"}`: 1})
	r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, 200)
	if moved := now()[result("ok")] - before[result("ok")]; moved != 1 {
		t.Errorf("after a reload the counter moved by %v", moved)
	}
	r.Reload(strings.ReplaceAll(strings.Replace(metricsRealm, "MORE", "", 1), "mtls metered", "mtls renamed"), strings.ReplaceAll(metricsSites, "realm metered", "realm renamed"))
	if gone := now(); gone[`clients{source="config"}`] != 0 {
		t.Errorf("the removed realm still has the gauges %v", gone)
	}
	if renamed := rig.Series(t, rig.Metrics(r, t), "renamed"); renamed[`clients{source="config"}`] != 2 {
		t.Errorf("the new realm has the gauges %v", renamed)
	}
}

// TestMetricsStayBounded_E3 checks that a flood of strangers does not add a series
// for each.
func TestMetricsStayBounded_E3(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(strings.Replace(metricsRealm, "MORE", "", 1), metricsSites)
	var before int
	rig.Await(r, t, "keys and revoked tokens have been read", func() bool {
		series := rig.Series(t, rig.Metrics(r, t), "metered")
		before = len(series)
		return series[`source_last_success_timestamp_seconds{source="keys"}`] > 0 && series[`source_last_success_timestamp_seconds{source="revocations"}`] > 0
	})
	for range 30 {
		stranger := testpki.MustSelfSigned(t)
		c := r.Caller(t, "h1", stranger)
		c.Get("https://api.test/").WantStatus(t, 401)
		c.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("client-"+stranger.Cert.SerialNumber.String())).WantStatus(t, 400)
	}
	after := rig.Series(t, rig.Metrics(r, t), "metered")
	// one more for invalid_client, unless another test has already provoked it
	if len(after) > before+1 {
		t.Errorf("%d series, previously %d: %v", len(after), before, after)
	}
}
