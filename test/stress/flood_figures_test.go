package stress_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// Figures is an environment variable. If it is set, the figures of docs/benchmarks.md
// are measured.
const Figures = "MTLS_FIGURES"

// TestFloodFigures measures how much slower known clients are served in a flood. It
// runs only for scripts/bench.
func TestFloodFigures(t *testing.T) {
	if os.Getenv(Figures) == "" {
		t.Skip("measures; scripts/bench runs it")
	}
	f := startFlooded(t)
	const each = 8 * time.Second
	f.latency(t, each/4, nil) // what is done first is slow
	calm := f.latency(t, each, nil)
	row := func(name string, l latencies, made int) {
		fmt.Printf("FLOOD | %s | %d | %.1f ms | %.1f ms | **%.1f** | %.1f |\n", name, made, l.at(0.5), l.at(0.99), l.at(0.5)/calm.at(0.5), l.at(0.99)/calm.at(0.99))
	}
	row("none", calm, 0)
	floods := f.floods()
	for _, name := range slices.Sorted(maps.Keys(floods)) {
		leaf := f.proxy
		if name == "huge forms" {
			leaf = f.known["named"]
		}
		var workers sync.WaitGroup
		var mu sync.Mutex
		made := 0
		stop := make(chan struct{})
		for range 4 {
			c := f.Caller(t, "h2", leaf)
			workers.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						mu.Lock()
						made += n
						mu.Unlock()
						return
					default:
					}
					if err := floods[name](t, c, n); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
				}
			})
		}
		l := f.latency(t, each, nil)
		close(stop)
		workers.Wait()
		row(name, l, made)
	}
	const connections = 1000
	over, ended := make(chan struct{}), make(chan int)
	go func() {
		for made := 0; ; made += connections {
			select {
			case <-over:
				ended <- made
				return
			default:
				f.together(t, connections)
			}
		}
	}()
	l := f.latency(t, each, nil)
	close(over)
	row("handshakes of clients, 1000 at once", l, <-ended)
	dribble := f.slow(t, connections)
	l = f.latency(t, each, dribble)
	row("forms that never end", l, connections)
}

// latencies are the times of requests, sorted, in milliseconds.
type latencies []float64

func (l latencies) at(quantile float64) float64 { return l[int(quantile*float64(len(l)-1))] }

// latency measures the requests of two known clients for that long. Meanwhile it calls
// also, if that is not nil, ten times a second.
func (f *flooded) latency(t *testing.T, duration time.Duration, also func()) (all latencies) {
	t.Helper()
	var workers sync.WaitGroup
	var mu sync.Mutex
	end := time.Now().Add(duration)
	for id, protocol := range map[string]string{"pinned": "h2", "named": "h1"} {
		c := f.Caller(t, protocol, f.known[id])
		workers.Go(func() {
			for time.Now().Before(end) {
				begin := time.Now()
				if err := f.ask(c, id, 0, nil); err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				took := time.Since(begin)
				mu.Lock()
				all = append(all, float64(took.Nanoseconds())/1e6)
				mu.Unlock()
			}
		})
	}
	for also != nil && time.Now().Before(end) {
		also()
		time.Sleep(100 * time.Millisecond)
	}
	workers.Wait()
	slices.Sort(all)
	return all
}
