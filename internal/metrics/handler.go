package metrics

import (
	"io"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// AddRefusals adds the series of what a directive of a realm can refuse a request for.
func AddRefusals(realm, directive string, reportOnly bool, reasons []validators.Reason) {
	for _, reason := range reasons {
		refusal(realm, directive, reason, reportOnly).Add(0)
	}
	refusal(realm, directive, validators.ConfigurationEnded, reportOnly).Add(0)
}

// CountRefusal counts a refusal. With reportOnly, the request was passed on
// nevertheless.
func CountRefusal(realm, directive string, reason validators.Reason, reportOnly bool) {
	refusal(realm, directive, reason, reportOnly).Inc()
}

func refusal(realm, directive string, reason validators.Reason, reportOnly bool) prometheus.Counter {
	return refusals.WithLabelValues(realm, directive, string(reason), strconv.FormatBool(reportOnly))
}

// Timer measures what a directive adds to its requests.
type Timer struct{ duration prometheus.Observer }

// NewTimer returns the timer of a directive of a realm.
func NewTimer(realm, directive string) Timer {
	return Timer{handlerDuration.WithLabelValues(realm, directive)}
}

// Observe notes how long it has been since the instant, without the time in which the
// body was waited for. body may be nil.
func (t Timer) Observe(start Instant, body *Body) {
	took := start.Elapsed()
	if body != nil {
		took -= body.waited
	}
	t.duration.Observe(took.Seconds())
}

// Instant is a reading of the monotonic clock, which takes half as long as time.Now.
type Instant time.Duration

var began = time.Now()

// Now returns the current instant.
func Now() Instant { return Instant(time.Since(began)) }

// Elapsed returns the time since the instant.
func (i Instant) Elapsed() time.Duration { return time.Duration(Now() - i) }

// Body is the body of a request, and how long its reader waited for it.
type Body struct {
	io.ReadCloser
	waited time.Duration
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	start := Now()
	n, err := b.ReadCloser.Read(p)
	b.waited += start.Elapsed()
	return n, err
}
