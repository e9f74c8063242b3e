package metrics

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// declared are clients for tests.
type declared map[string]bool

func (d declared) Len() int                { return len(d) }
func (d declared) Declares(id string) bool { return d[id] }

// collect returns the counts by client, reason and report_only.
func collect(t *testing.T, c *ClientRefusals, clients declared, limit int) map[string]float64 {
	t.Helper()
	collected := make(chan prometheus.Metric, 10_000)
	c.Collect(collected, "r", clients, limit)
	close(collected)
	counts := make(map[string]float64)
	for metric := range collected {
		var series dto.Metric
		if err := metric.Write(&series); err != nil {
			t.Fatal(err)
		}
		labels := make(map[string]string)
		for _, label := range series.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		counts[labels["client_id"]+" "+labels["reason"]+" "+labels["report_only"]] = series.GetCounter().GetValue()
	}
	return counts
}

// TestRefusalsByClient checks that only declared clients are counted, and only where
// there are few enough.
func TestRefusalsByClient(t *testing.T) {
	var c ClientRefusals
	clients := declared{"a": true, "b": true}
	for _, id := range []string{"a", "a", "b", "stranger", ""} {
		c.Count(id, "client_disabled", false, clients, 2)
	}
	c.Count("a", "client_disabled", true, clients, 2)
	c.Count("a", "client_disabled", false, clients, 1) // too many clients
	c.Count("a", "client_disabled", false, clients, 0) // turned off
	want := map[string]float64{"a client_disabled false": 2, "a client_disabled true": 1, "b client_disabled false": 1}
	if got := collect(t, &c, clients, 2); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if got := collect(t, &c, clients, 1); len(got) != 0 {
		t.Errorf("with too many clients: %v", got)
	}
	if got := collect(t, &c, declared{"b": true}, 2); len(got) != 1 {
		t.Errorf("after a client is gone: %v", got)
	}
}

// TestRefusalsByClientStayBounded checks that clients that come and go leave nothing
// behind.
func TestRefusalsByClientStayBounded(t *testing.T) {
	var c ClientRefusals
	for i := range 1000 {
		id := fmt.Sprint(i)
		c.Count(id, "client_disabled", false, declared{id: true}, 10)
	}
	if len(c.counts) > 10 {
		t.Errorf("%d clients are remembered, want 10 at most", len(c.counts))
	}
}
