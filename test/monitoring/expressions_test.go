package monitoring_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

var (
	selector = regexp.MustCompile(`\b(caddy_mtls_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(=~|=|!=|!~)"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`)
)

// notSeen are the values of labels that only a failure has.
var notSeen = []string{tokens.CodeServerError, tokens.CodeTemporarilyUnavailable}

// checkExpression checks that the metrics of an expression are exposed with its labels,
// and that its matchers fit values that exist.
func checkExpression(t *testing.T, where, expression string, families map[string]*dto.MetricFamily) {
	t.Helper()
	labels := []string{"job", "instance", "le"}
	found := selector.FindAllStringSubmatch(expression, -1)
	if len(found) == 0 {
		t.Errorf("%s has no metric: %s", where, expression)
	}
	for _, match := range found {
		family := familyOf(families, match[1])
		if family == nil {
			t.Errorf("%s: no %s is exposed", where, match[1])
			continue
		}
		values := valuesOf(family)
		for label := range values {
			labels = append(labels, label)
		}
		for _, condition := range matcher.FindAllStringSubmatch(match[2], -1) {
			label, operator, value := condition[1], condition[2], condition[3]
			if values[label] == nil {
				t.Errorf("%s: %s has no label %s", where, match[1], label)
				continue
			}
			if value == "$realm" {
				continue
			}
			for alternative := range strings.SplitSeq(value, "|") {
				fits := func(text string) bool { return text == alternative }
				if strings.HasSuffix(operator, "~") {
					pattern := regexp.MustCompile("^(?:" + alternative + ")$")
					fits = pattern.MatchString
				}
				if !slices.ContainsFunc(append(notSeen, values[label]...), fits) {
					t.Errorf("%s: %s has no %s that %s%q fits; it has %q", where, match[1], label, operator, alternative, values[label])
				}
			}
		}
	}
	for _, group := range grouping.FindAllStringSubmatch(expression, -1) {
		for label := range strings.SplitSeq(group[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(labels, label) {
				t.Errorf("%s groups by %s, which no metric in it has", where, label)
			}
		}
	}
}

// familyOf returns the metrics of a series, which of a histogram has another name.
func familyOf(families map[string]*dto.MetricFamily, series string) *dto.MetricFamily {
	if family := families[series]; family != nil {
		return family
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if name, is := strings.CutSuffix(series, suffix); is && families[name].GetType() == dto.MetricType_HISTOGRAM {
			return families[name]
		}
	}
	return nil
}

// valuesOf returns the values of each label.
func valuesOf(family *dto.MetricFamily) map[string][]string {
	values := make(map[string][]string)
	for _, series := range family.GetMetric() {
		for _, label := range series.GetLabel() {
			values[label.GetName()] = append(values[label.GetName()], label.GetValue())
		}
	}
	return values
}
