package observed

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/traffic"
)

// TestTrafficIsNotedInOrder checks that what is counted counts once, although several read
// the counters at the same time: two configurations during a reload, or a request for the
// status.
func TestTrafficIsNotedInOrder(t *testing.T) {
	var counted atomic.Uint64
	hour, now := new(traffic.Hour), time.Now()
	hour.Observe(now, traffic.Counts{})
	app := &App{
		Now:     func() time.Time { return now },
		Realms:  map[string]func() *Realm{"default": func() *Realm { return &Realm{Traffic: hour} }},
		InForce: func() bool { return false },
		Counts: func() map[string]traffic.Counts {
			said := traffic.Counts{Admitted: counted.Add(1)}
			runtime.Gosched()
			return map[string]traffic.Counts{"default": said}
		},
	}
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 500 {
				app.observeTraffic()
			}
		})
	}
	readers.Wait()
	if total := hour.Traffic().Admitted.Total; total != counted.Load() {
		t.Errorf("%d are admitted, want %d", total, counted.Load())
	}
}
