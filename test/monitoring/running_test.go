// Package monitoring_test holds what the documentation, the dashboard and the alerts say
// about metrics against those of a running Caddy.
package monitoring_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// realm uses everything that has metrics.
const realm = `
mtls monitored {
	trust_pool file "@DIR@/clients-ca.pem"
	shadow_trust_pool file "@DIR@/other-ca.pem"
	clients_from file "@DIR@/clients.json"
	revocation {
		crl  "@DIR@/clients.crl"
		deny "@DIR@/deny"
	}
	issuer https://auth.test
	client billing.partner {
		subject "CN=billing"
		scopes  invoices.read
	}
	client sensor-7 {
		certificate "@DIR@/sensor.pem"
	}
}
`

const sites = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth /report {
		realm monitored
		report_only
	}
	@rest not path /report
	mtls_auth @rest {
		realm monitored
		allow billing.partner
		forward_token X-Identity {
			audience inside
		}
	}
	reverse_proxy @UP@
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		realm monitored
	}
	reverse_proxy @UP@
}
https://auth.test:@HTTPS@ {
	import mtls
	mtls_issuer {
		realm monitored
	}
}
https://alias.test:@HTTPS@ {
	bind 127.0.0.1
	tls "@DIR@/server.pem" "@DIR@/server.key" {
		client_auth {
			mode request
			verifier mtls monitored
		}
	}
	mtls_auth {
		realm monitored
	}
}
`

// scrape returns the plugin's metrics of a Caddy that has had traffic of every kind.
func scrape(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	r := rig.New(t)
	r.AdminOn = true
	billing, sensor, stranger := r.Issue("billing"), r.SelfSigned("sensor"), r.Issue("stranger")
	r.Write("clients.json", []byte(`[{"client_id": "from.file", "tls_client_auth_subject_dn": "CN=from file"}]`))
	r.Write("clients.crl", rig.CRL(r, 1))
	r.Write("deny", nil)
	r.Start(realm, sites)

	for range 2 {
		r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusOK)
		r.Caller(t, "h1", sensor).Get("https://api.test/").WantStatus(t, http.StatusForbidden)
		r.Caller(t, "h1", stranger).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
		r.Caller(t, "h1", stranger).Get("https://api.test/report").WantStatus(t, http.StatusOK)
	}
	late := testpki.MustIssue(t, r.CA, testpki.CommonName("billing"), testpki.Validity(time.Now().Add(-50*time.Minute), time.Now().Add(-time.Minute)))
	r.Caller(t, "h1", late).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	asBilling := r.Caller(t, "h1", billing)
	token := rig.AccessToken(r, t, billing, "billing.partner")
	asBilling.Get("https://other.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK)
	asBilling.Get("https://other.test/").WantStatus(t, http.StatusUnauthorized)
	asBilling.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("sensor-7")).WantStatus(t, http.StatusBadRequest)
	for _, endpoint := range []string{"introspect", "revocation"} {
		asBilling.Do(http.MethodPost, "https://auth.test/connect/"+endpoint, rig.Query("billing.partner", token)).WantStatus(t, http.StatusOK)
	}
	if got, err := r.Caller(t, "h1", stranger).Try(http.MethodGet, "https://alias.test/"); err == nil {
		t.Errorf("a stranger got %d from the verifier", got.Status)
	}

	for _, counted := range []string{
		`caddy_mtls_client_refusals_total{client_id="sensor-7",realm="monitored",reason="client_not_allowed",report_only="false"} 2`,
		`caddy_mtls_client_refusals_total{client_id="billing.partner",realm="monitored",reason="certificate_expired",report_only="false"} 1`,
	} {
		rig.Await(r, t, counted, func() bool { return strings.Contains(rig.Metrics(r, t), counted) })
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(rig.Metrics(r, t)))
	if err != nil {
		t.Fatal(err)
	}
	for name := range families {
		if !strings.HasPrefix(name, "caddy_mtls_") {
			delete(families, name)
		}
	}
	return families
}

// value returns the value of the series with these labels and values.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	for _, series := range families[name].GetMetric() {
		if fits(series, labels) {
			return series.GetCounter().GetValue() + series.GetGauge().GetValue() + float64(series.GetHistogram().GetSampleCount())
		}
	}
	t.Errorf("there is no %s with %q", name, labels)
	return 0
}

// fits reports whether a series has the labels with these values.
func fits(series *dto.Metric, labels []string) bool {
	has := make(map[string]string)
	for _, label := range series.GetLabel() {
		has[label.GetName()] = label.GetValue()
	}
	for i := 0; i < len(labels); i += 2 {
		if found, there := has[labels[i]]; !there || found != labels[i+1] {
			return false
		}
	}
	return true
}

// read returns the text of a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
