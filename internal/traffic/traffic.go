// Package traffic knows what was decided in each minute of the last hour. Requests cost
// nothing for it: it is told what the counters of the metrics say from time to time.
package traffic

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

const minutes = 60

// Counts is what the counters of a realm say at some time.
type Counts struct {
	Admitted, Tokens uint64
	// Refused counts refusals by reason, and ReportOnly those of them that were passed on.
	Refused, ReportOnly map[string]uint64
}

// Hour is the last hour of a realm. The zero Hour has observed nothing. It is safe for
// concurrent use.
type Hour struct {
	mu sync.Mutex
	// last is the minute of the last observation, since 1970, and first that of the first.
	first, last int64
	before      Counts
	admitted    series
	tokens      series
	refused     series
	reasons     map[string]*reason
}

type reason struct{ refused, reportOnly series }

// series is what happened in each minute, at its number modulo 60.
type series [minutes]uint64

// Observe notes what the counters say now. What has happened since the last call counts
// for this minute; before the first call, nothing has.
func (h *Hour) Observe(at time.Time, now Counts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	minute := at.Unix() / minutes
	if h.reasons == nil || h.last-minute > 1 { // the clock has been set back
		h.begin(minute, now)
		return
	}
	h.turn(max(minute, h.last))
	slot := h.last % minutes
	h.admitted[slot] += since(now.Admitted, h.before.Admitted)
	h.tokens[slot] += since(now.Tokens, h.before.Tokens)
	for name, count := range now.Refused {
		passed := since(now.ReportOnly[name], h.before.ReportOnly[name])
		refused := since(count, h.before.Refused[name])
		if refused == 0 && passed == 0 {
			continue
		}
		known := h.reasons[name]
		if known == nil {
			known = new(reason)
			h.reasons[name] = known
		}
		known.refused[slot] += refused
		known.reportOnly[slot] += passed
		h.refused[slot] += refused
	}
	h.before = now
}

// since returns by how much a counter has grown. One that is smaller has begun anew.
func since(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

func (h *Hour) begin(minute int64, now Counts) {
	h.first, h.last, h.before = minute, minute, now
	h.admitted, h.tokens, h.refused, h.reasons = series{}, series{}, series{}, make(map[string]*reason)
}

// turn goes on to a minute.
func (h *Hour) turn(minute int64) {
	for next := max(h.last+1, minute-minutes+1); next <= minute; next++ {
		slot := next % minutes
		h.admitted[slot], h.tokens[slot], h.refused[slot] = 0, 0, 0
		for _, reason := range h.reasons {
			reason.refused[slot], reason.reportOnly[slot] = 0, 0
		}
	}
	h.last = minute
}

// Traffic describes the hour that ended with the last observation.
func (h *Hour) Traffic() status.Traffic {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := status.Traffic{Reasons: []status.Reason{}}
	if h.reasons != nil {
		t.Minutes = int(min(h.last-h.first+1, minutes))
	}
	t.Admitted, t.Refused, t.Tokens = h.series(&h.admitted), h.series(&h.refused), h.series(&h.tokens)
	for name, known := range h.reasons {
		if refused := h.series(&known.refused); refused.Total > 0 {
			t.Reasons = append(t.Reasons, status.Reason{Reason: name, Series: refused, ReportOnly: h.series(&known.reportOnly).Total})
		}
	}
	slices.SortFunc(t.Reasons, func(a, b status.Reason) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Reason, b.Reason))
	})
	return t
}

// series returns the minutes that have been observed, the oldest first.
func (h *Hour) series(from *series) status.Series {
	s := status.Series{Minute: []uint64{}}
	if h.reasons == nil {
		return s
	}
	for minute := max(h.first, h.last-minutes+1); minute <= h.last; minute++ {
		count := from[minute%minutes]
		s.Minute = append(s.Minute, count)
		s.Total += count
	}
	return s
}
