package monitoring_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// dashboard is the part of a Grafana dashboard that matters here.
type dashboard struct {
	SchemaVersion int
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []panel
}

type panel struct {
	ID          int
	Type, Title string
	Datasource  datasource
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		Datasource                datasource
		RefID, Expr, LegendFormat string
	}
}

type datasource struct{ Type, UID string }

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "contrib/grafana/caddy-mtls.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboardFitsTheMetrics checks that a running Caddy exposes every metric and label
// of the dashboard, and that the dashboard shows every metric.
func TestDashboardFitsTheMetrics(t *testing.T) {
	families, d := scrape(t), readDashboard(t)
	label := regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
	shown := make(map[string]bool)
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			where := "panel '" + panel.Title + "'"
			checkExpression(t, where, target.Expr, families)
			for _, match := range selector.FindAllStringSubmatch(target.Expr, -1) {
				family := familyOf(families, match[1])
				shown[family.GetName()] = true
				values := valuesOf(family)
				if values["realm"] != nil && !strings.Contains(match[2], `realm=~"$realm"`) {
					t.Errorf("%s does not select the realm of %s", where, match[1])
				}
				for _, legend := range label.FindAllStringSubmatch(target.LegendFormat, -1) {
					grouped := grouping.FindString(target.Expr)
					if values[legend[1]] == nil || grouped != "" && !strings.Contains(target.Expr, legend[1]) {
						t.Errorf("the legend of %s has label %s", where, legend[1])
					}
				}
			}
		}
	}
	for name := range families {
		if !shown[name] {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// TestDashboardImports checks what Grafana needs to import the dashboard: each panel has
// a number and a place of its own, and asks the data source that the user chooses.
func TestDashboardImports(t *testing.T) {
	d := readDashboard(t)
	var variables, rows []string
	for _, variable := range d.Templating.List {
		variables = append(variables, variable.Name+" "+variable.Type)
	}
	if !slices.Equal(variables, []string{"datasource datasource", "realm query"}) {
		t.Errorf("the variables are %q", variables)
	}
	numbers, cells := make(map[int]bool), make(map[[2]int]string)
	for _, panel := range d.Panels {
		if panel.ID == 0 || numbers[panel.ID] || panel.Title == "" {
			t.Errorf("panel '%s' has the number %d", panel.Title, panel.ID)
		}
		numbers[panel.ID] = true
		at := panel.GridPos
		if at.W < 1 || at.H < 1 || at.X+at.W > 24 {
			t.Errorf("panel '%s' is at %v", panel.Title, at)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("panel '%s' lies on '%s'", panel.Title, other)
				}
				cells[[2]int{x, y}] = panel.Title
			}
		}
		if panel.Type == "row" {
			rows = append(rows, panel.Title)
			continue
		}
		chosen := datasource{"prometheus", "${datasource}"}
		if panel.Datasource != chosen || len(panel.Targets) == 0 {
			t.Errorf("panel '%s' asks %v", panel.Title, panel.Datasource)
		}
		for _, target := range panel.Targets {
			if target.Datasource != chosen || target.RefID == "" {
				t.Errorf("a query of panel '%s' asks %v", panel.Title, target.Datasource)
			}
		}
	}
	if want := []string{"Refusals", "Clients", "Certificates", "Tokens", "Sources", "Performance"}; !slices.Equal(rows, want) {
		t.Errorf("the rows are %q, want %q", rows, want)
	}
}

// TestPromtoolReadsTheDashboard has Prometheus check the queries of the dashboard.
func TestPromtoolReadsTheDashboard(t *testing.T) {
	promtool := testtool.Path(t, "promtool")
	var file strings.Builder
	file.WriteString("groups:\n- name: dashboard\n  rules:\n")
	values := strings.NewReplacer("$__rate_interval", "5m", "$realm", ".*")
	for _, panel := range readDashboard(t).Panels {
		for _, target := range panel.Targets {
			fmt.Fprintf(&file, "  - record: panel:%d:%s\n    expr: %q\n", panel.ID, target.RefID, values.Replace(target.Expr))
		}
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.CommandContext(t.Context(), promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, output)
	}
}
