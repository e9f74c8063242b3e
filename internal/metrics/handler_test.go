package metrics

import (
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// slowly is a body that takes 20 ms.
type slowly struct{}

func (slowly) Read(p []byte) (int, error) {
	for start := Now(); start.Elapsed() < 20*time.Millisecond; {
		runtime.Gosched()
	}
	return 0, io.EOF
}

func (slowly) Close() error { return nil }

// TestTimerLeavesOutTheBody checks that a caller who is slow to send the body does not
// make the directive look slow.
func TestTimerLeavesOutTheBody(t *testing.T) {
	var noted []float64
	timer := Timer{prometheus.ObserverFunc(func(seconds float64) { noted = append(noted, seconds) })}
	start, body := Now(), &Body{ReadCloser: slowly{}}
	if _, err := io.ReadAll(body); err != nil {
		t.Fatal(err)
	}
	timer.Observe(start, body)
	timer.Observe(start, nil)
	if noted[0] < 0 || noted[1] < 0.02 || noted[1]-noted[0] < 0.02 {
		t.Errorf("noted %v seconds", noted)
	}
}
