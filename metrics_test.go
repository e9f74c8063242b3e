package mtlsauth

import (
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
)

// TestDroppedRefusalsAreCounted checks that a refusal for which the queue has no room is
// counted as dropped.
func TestDroppedRefusalsAreCounted(t *testing.T) {
	count := func() float64 {
		var metric dto.Metric
		if err := metrics.RefusalsDropped.Write(&metric); err != nil {
			t.Fatal(err)
		}
		return metric.GetCounter().GetValue()
	}
	realm, _, refused := refusing(t)
	r, _ := newRequest(nil)
	before := count()
	for range maxQueuedRefusals + 3 {
		logRefusal(realm, r, refused)
	}
	if dropped := count() - before; dropped != 3 {
		t.Errorf("%v are counted as dropped, want 3", dropped)
	}
}
