package monitoring_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedMetricsAreExposed checks that the tables of metrics.md have what a Caddy
// with traffic of every kind exposes: the same names, types and labels, and no other.
func TestDocumentedMetricsAreExposed(t *testing.T) {
	families, documented := scrape(t), make(map[string]string)
	row := regexp.MustCompile("(?m)^\\| `(caddy_mtls_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*) \\| .+ \\|$")
	for _, match := range row.FindAllStringSubmatch(read(t, "docs/reference/metrics.md"), -1) {
		documented[match[1]] = match[2] + " " + strings.ReplaceAll(match[3], "`", "")
	}
	exposed := make(map[string]string)
	for name, family := range families {
		if family.GetHelp() == "" || !strings.HasSuffix(family.GetHelp(), ".") {
			t.Errorf("the help of %s is no sentence: %q", name, family.GetHelp())
		}
		var labels []string
		for _, label := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, label.GetName())
		}
		exposed[name] = strings.ToLower(family.GetType().String()) + " " + sorted(strings.Join(labels, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(exposed)) {
		kind, labels, _ := strings.Cut(documented[name], " ")
		if want := kind + " " + sorted(labels); want != exposed[name] {
			t.Errorf("%s is exposed as %q, documented as %q", name, exposed[name], want)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s is documented, but not exposed", name)
	}
}

func sorted(list string) string {
	labels := strings.Split(list, ", ")
	slices.Sort(labels)
	return strings.Join(labels, ", ")
}

// TestRefusalsByDirective checks that refusals are counted by what refused, also in the
// handshake, and that those of report_only are told apart.
func TestRefusalsByDirective(t *testing.T) {
	families := scrape(t)
	for _, want := range []struct{ directive, reason, reportOnly string }{
		{"mtls_auth", "client_not_allowed", "false"},
		{"mtls_auth", "certificate_unknown", "false"},
		{"mtls_auth", "certificate_unknown", "true"},
		{"mtls_issuer", "client_mismatch", "false"},
		{"mtls_bearer", "token_missing", "false"},
		{"verifier", "certificate_unknown", "false"},
	} {
		if value(t, families, "caddy_mtls_refusals_total", "realm", "monitored", "directive", want.directive, "reason", want.reason, "report_only", want.reportOnly) < 1 {
			t.Errorf("%v is not counted", want)
		}
	}
	if got := value(t, families, "caddy_mtls_client_refusals_total", "realm", "monitored", "client_id", "sensor-7", "reason", "client_not_allowed", "report_only", "false"); got != 2 {
		t.Errorf("sensor-7 was refused %v times, want 2", got)
	}
	for _, directive := range []string{"mtls_auth", "mtls_issuer", "mtls_bearer"} {
		if value(t, families, "caddy_mtls_handler_duration_seconds", "realm", "monitored", "directive", directive) < 2 {
			t.Errorf("%s is not timed", directive)
		}
	}
}

// TestCacheSizes checks the sizes of the caches.
func TestCacheSizes(t *testing.T) {
	families := scrape(t)
	for cache, want := range map[string]float64{
		"verdicts": 2, "refusals": 2, "ocsp_answers": 0, "token_certificates": 1, "gateway_tokens": 1, "bearer_tokens": 1,
	} {
		if got := value(t, families, "caddy_mtls_cache_entries", "realm", "monitored", "cache", cache); got != want {
			t.Errorf("%s has %v entries, want %v", cache, got, want)
		}
	}
	for _, queue := range []string{"refusals", "shadow", "events"} {
		if waiting := value(t, families, "caddy_mtls_queue_length", "queue", queue); waiting > 1000 {
			t.Errorf("%v wait in %s", waiting, queue)
		}
		if dropped := value(t, families, "caddy_mtls_dropped_total", "queue", queue); dropped != 0 {
			t.Errorf("%s dropped %v", queue, dropped)
		}
	}
}
