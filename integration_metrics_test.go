package mtlsauth

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// metrics returns what Caddy's admin endpoint tells a Prometheus server.
func (r *rig) metrics(t *testing.T) string {
	t.Helper()
	response, err := http.Get("http://127.0.0.1:" + r.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s %v", response.Status, err)
	}
	return string(body)
}

// series parses the series of ours that are about one realm: name, and what
// labels there are beside the realm, to value.
func series(t *testing.T, text, realm string) map[string]float64 {
	t.Helper()
	found := make(map[string]float64)
	line := regexp.MustCompile(`(?m)^caddy_mtls_(\w+)\{([^}]*)\} (\S+)$`)
	for _, match := range line.FindAllStringSubmatch(text, -1) {
		name, labels := match[1], match[2]
		if !strings.Contains(labels, `realm="`+realm+`"`) || strings.HasSuffix(name, "_bucket") {
			continue
		}
		labels = strings.Trim(strings.Replace(labels, `realm="`+realm+`"`, "", 1), ",")
		if labels != "" {
			name += "{" + labels + "}"
		}
		value, err := strconv.ParseFloat(match[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		found[name] = value
	}
	return found
}

// metricsRealm has a name of its own: counters live as long as the process.
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
	r := newRig(t)
	billing, sensor, stranger := r.issue("billing"), r.selfSigned("sensor"), r.issue("stranger")
	r.adminOn = true
	r.start(strings.Replace(metricsRealm, "MORE", "", 1), metricsSites)
	now := func() map[string]float64 { return series(t, r.metrics(t), "metered") }
	r.caller(t, "h2", nil).get("https://auth.test/.well-known/openid-configuration/jwks").wantStatus(t, 200) // now there is a key
	last := now()
	// changed fails the test unless exactly these series moved by so much
	changed := func(t *testing.T, want map[string]float64) {
		t.Helper()
		current := now()
		for name, value := range current {
			moved := value - last[name]
			if strings.HasSuffix(name, "_sum") || strings.HasPrefix(name, "certificate_expiry") || strings.HasPrefix(name, "source_last_success") {
				continue
			}
			if moved != want[name] {
				t.Errorf("%s moved by %v, want %v", name, moved, want[name])
			}
			delete(want, name)
		}
		for name := range want {
			t.Errorf("there is no %s", name)
		}
		last = current
	}
	result := func(reason string) string { return `authentications_total{result="` + reason + `"}` }
	hit, miss := `cache_total{outcome="hit"}`, `cache_total{outcome="miss"}`
	const duration = "authentication_duration_seconds_count"

	for _, reason := range validators.Reasons {
		if _, ok := last[result(string(reason))]; !ok {
			t.Errorf("there is no series for %s before it first happens", reason)
		}
	}
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			first, later := miss, hit // the certificate is examined once
			if protocol != rigProtocols[0] {
				first = hit
			}
			sum := func(pairs ...string) map[string]float64 {
				want := make(map[string]float64)
				for _, name := range pairs {
					want[name]++
				}
				return want
			}
			asBilling, asSensor, asStranger, asNobody := r.caller(t, protocol, billing), r.caller(t, protocol, sensor), r.caller(t, protocol, stranger), r.caller(t, protocol, nil)
			asBilling.get("https://api.test/").wantStatus(t, 200)
			changed(t, sum(result("ok"), duration, first))
			asBilling.get("https://api.test/").wantStatus(t, 200)
			changed(t, sum(result("ok"), duration, later))
			asSensor.get("https://api.test/").wantStatus(t, 403)
			changed(t, sum(result("client_not_allowed"), duration, first))
			asStranger.get("https://api.test/").wantStatus(t, 401)
			changed(t, sum(result("certificate_unknown"), duration, first))
			asNobody.get("https://api.test/").wantStatus(t, 401)
			changed(t, sum(result("certificate_missing"), duration))
			asNobody.get("https://api.test/report").wantStatus(t, 200)
			changed(t, sum(result("certificate_missing"), duration))
			asNobody.get("https://api.test/free").wantStatus(t, 200)
			changed(t, sum(duration)) // nobody was decided about

			token := func(c *caller, status int, request func(*http.Request)) {
				t.Helper()
				got := c.do(http.MethodPost, "https://auth.test/connect/token", request).wantStatus(t, status)
				if status == 200 {
					token, _ := asJSON(t, got.body)["access_token"].(string)
					r.secrets = append(r.secrets, token)
				}
			}
			token(asBilling, 200, form("billing.partner"))
			changed(t, sum(result("ok"), duration, hit, "tokens_issued_total"))
			invalidScope, invalidClient := `token_errors_total{error="invalid_scope"}`, `token_errors_total{error="invalid_client"}`
			token(asBilling, 400, form("billing.partner", "scope", "x"))
			changed(t, sum(result("ok"), duration, hit, invalidScope))
			token(asBilling, 401, form("sensor-7"))
			changed(t, sum(result("client_mismatch"), duration, hit, invalidClient))

			mine := asJSON(t, asBilling.do(http.MethodPost, "https://auth.test/connect/token", form("billing.partner")).body)["access_token"].(string)
			r.secrets = append(r.secrets, mine)
			changed(t, sum(result("ok"), duration, hit, "tokens_issued_total"))
			about := func(endpoint, token, result string, status int) {
				t.Helper()
				asBilling.do(http.MethodPost, "https://auth.test/connect/"+endpoint, query("billing.partner", token)).wantStatus(t, status)
				changed(t, sum(`authentications_total{result="ok"}`, duration, hit, result))
			}
			about("introspect", mine, `introspections_total{result="active"}`, 200)
			about("introspect", "nonsense", `introspections_total{result="inactive"}`, 200)
			about("revocation", "nonsense", `revocations_total{result="ignored"}`, 200)
			about("revocation", mine, `revocations_total{result="revoked"}`, 200)
			about("introspect", mine, `introspections_total{result="inactive"}`, 200)
			asNobody.do(http.MethodPost, "https://auth.test/connect/introspect", query("billing.partner", mine)).wantStatus(t, 401)
			changed(t, sum(result("certificate_missing"), duration, invalidClient))
		})
	}
	if site := series(t, r.caller(t, "h2", nil).get("https://metrics.test/metrics").wantStatus(t, 200).body, "metered"); site[result("ok")] != last[result("ok")] {
		t.Errorf("the metrics directive tells %v", site)
	}

	// gauges
	checkGauges(t, now(), map[string]float64{
		`clients{source="config"}`: 2, `signing_keys{state="active"}`: 1, `signing_keys{state="next"}`: 0, `signing_keys{state="past"}`: 0, `signing_keys{state="verify"}`: 0,
		`certificate_expiry_timestamp_seconds{client_id="billing.partner"}`: float64(billing.Cert.NotAfter.Unix()),
		`certificate_expiry_timestamp_seconds{client_id="sensor-7"}`:        float64(sensor.Cert.NotAfter.Unix()),
	})

	if read := now()[`source_last_success_timestamp_seconds{source="revocations"}`]; read < float64(time.Now().Add(-time.Minute).Unix()) {
		t.Errorf("the revocations were last read at %v", read)
	}

	// counters survive a reload, gauges follow it
	before := now()
	r.reload(strings.Replace(metricsRealm, "MORE", "client third {\nsubject CN=third\n}", 1), metricsSites)
	after := now()
	for name, value := range before {
		if strings.Contains(name, "_total") && after[name] != value {
			t.Errorf("after a reload %s is %v, was %v", name, after[name], value)
		}
	}
	checkGauges(t, after, map[string]float64{`clients{source="config"}`: 3, `signing_keys{state="active"}`: 1})
	r.caller(t, "h2", billing).get("https://api.test/").wantStatus(t, 200)
	if moved := now()[result("ok")] - before[result("ok")]; moved != 1 {
		t.Errorf("after a reload the counter moved by %v", moved)
	}
	r.reload(strings.ReplaceAll(strings.Replace(metricsRealm, "MORE", "", 1), "mtls metered", "mtls renamed"), strings.ReplaceAll(metricsSites, "realm metered", "realm renamed"))
	if gone := now(); gone[`clients{source="config"}`] != 0 {
		t.Errorf("a realm that is gone still has the gauges %v", gone)
	}
	if renamed := series(t, r.metrics(t), "renamed"); renamed[`clients{source="config"}`] != 2 {
		t.Errorf("the new realm has the gauges %v", renamed)
	}
}

func checkGauges(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if is, ok := got[name]; !ok || is != value {
			t.Errorf("%s is %v (%v), want %v", name, is, ok, value)
		}
	}
}

// A flood of strangers must not add a series for each.
func TestE3_MetricsStayBounded(t *testing.T) {
	r := newRig(t)
	r.issue("billing")
	r.selfSigned("sensor")
	r.adminOn = true
	r.start(strings.Replace(metricsRealm, "MORE", "", 1), metricsSites)
	before := len(series(t, r.metrics(t), "metered"))
	for range 30 {
		stranger := testpki.MustSelfSigned(t)
		c := r.caller(t, "h1", stranger)
		c.get("https://api.test/").wantStatus(t, 401)
		c.do(http.MethodPost, "https://auth.test/connect/token", form("client-"+stranger.Cert.SerialNumber.String())).wantStatus(t, 401)
	}
	after := series(t, r.metrics(t), "metered")
	// one for invalid_client, where no other test has provoked it
	if len(after) > before+1 {
		t.Errorf("%d series, there were %d: %v", len(after), before, after)
	}
}
