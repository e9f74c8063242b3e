package monitoring_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// rules is the part of a file of rules that matters here.
type rules struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	} `yaml:"groups"`
}

type rule struct {
	Record      string            `yaml:"record"`
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func readRules(t *testing.T) rules {
	t.Helper()
	var all rules
	if err := yaml.Unmarshal([]byte(read(t, "contrib/prometheus/rules.yml")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// recorded matches the metrics that rules record, which have colons.
var recorded = regexp.MustCompile(`\b[a-z_]+:caddy_mtls_[a-z_:0-9]+\b`)

// withoutRecorded puts expressions in the place of the metrics that rules record.
func withoutRecorded(t *testing.T, expression string, all rules) string {
	t.Helper()
	return recorded.ReplaceAllStringFunc(expression, func(name string) string {
		for _, group := range all.Groups {
			for _, rule := range group.Rules {
				if rule.Record == name {
					return "(" + rule.Expr + ")"
				}
			}
		}
		t.Errorf("no rule records %s", name)
		return ""
	})
}

// TestRulesFitTheMetrics checks that a running Caddy exposes every metric and label of
// the rules, and that every alert says what happened and what to do.
func TestRulesFitTheMetrics(t *testing.T) {
	families, all := scrape(t), readRules(t)
	label := regexp.MustCompile(`\$labels\.([a-z_]+)`)
	alerts, first := 0, make(map[string]bool)
	for _, group := range all.Groups {
		for _, rule := range group.Rules {
			expression := withoutRecorded(t, rule.Expr, all)
			checkExpression(t, rule.Record+rule.Alert, expression, families)
			if rule.Alert == "" {
				continue
			}
			alerts++
			if group.Name == "caddy-mtls-first" {
				first[rule.Labels["first"]] = true
			}
			if rule.Labels["severity"] == "" {
				t.Errorf("%s has no severity", rule.Alert)
			}
			for _, name := range []string{"summary", "description", "runbook"} {
				text := rule.Annotations[name]
				if text == "" {
					t.Errorf("%s has no %s", rule.Alert, name)
				}
				for _, match := range label.FindAllStringSubmatch(text, -1) {
					if grouped := grouping.FindString(expression); grouped != "" && !strings.Contains(grouped, match[1]) {
						t.Errorf("the %s of %s has label %s, which is not in '%s'", name, rule.Alert, match[1], grouped)
					}
				}
				for _, link := range regexp.MustCompile(`docs/[a-z_/-]+\.md`).FindAllString(text, -1) {
					read(t, link)
				}
			}
		}
	}
	if alerts < 10 || len(first) != 4 {
		t.Errorf("there are %d alerts, and %d that matter first; want four", alerts, len(first))
	}
}

// TestEveryAlertIsTested checks that the tests of promtool have, for each alert, one
// moment at which it fires and one at which it does not.
func TestEveryAlertIsTested(t *testing.T) {
	var file struct {
		Tests []struct {
			Alerts []struct {
				Name   string `yaml:"alertname"`
				Firing []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "contrib/prometheus/tests.yml")), &file); err != nil {
		t.Fatal(err)
	}
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, test := range file.Tests {
		for _, alert := range test.Alerts {
			fires[alert.Name] = fires[alert.Name] || len(alert.Firing) > 0
			silent[alert.Name] = silent[alert.Name] || len(alert.Firing) == 0
		}
	}
	for _, group := range readRules(t).Groups {
		for _, rule := range group.Rules {
			if rule.Alert != "" && (!fires[rule.Alert] || !silent[rule.Alert]) {
				t.Errorf("%s: tested that it fires: %v, that it does not: %v", rule.Alert, fires[rule.Alert], silent[rule.Alert])
			}
		}
	}
}

// TestPromtool has Prometheus check the rules and run their tests.
func TestPromtool(t *testing.T) {
	promtool := testtool.Path(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "tests.yml"}} {
		command := exec.CommandContext(t.Context(), promtool, args...)
		command.Dir = "../../contrib/prometheus"
		if output, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, output)
		}
	}
}
