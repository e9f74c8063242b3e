package metrics

import (
	"maps"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// clientRefusals describes what [ClientRefusals] counts.
var clientRefusals = prometheus.NewDesc(prefix+"client_refusals_total",
	"Refused requests of a client that is known, by the reason. With report_only, the request was passed on nevertheless.",
	[]string{"realm", "client_id", "reason", "report_only"}, nil)

// ClientRefusals counts the refusals of each client of a realm. It has at most as many
// clients as it is told, and only those that are declared. It may be used by several
// goroutines at once. The zero value has counted nothing.
type ClientRefusals struct {
	mu     sync.Mutex
	counts map[string]map[clientRefusal]uint64
}

type clientRefusal struct {
	reason     string
	reportOnly bool
}

// Declared are the clients of a realm.
type Declared interface {
	Len() int
	Declares(clientID string) bool
}

// Count counts a refusal of a client, unless more than limit clients are declared, or this
// one is not.
func (c *ClientRefusals) Count(clientID, reason string, reportOnly bool, declared Declared, limit int) {
	if declared.Len() > limit || !declared.Declares(clientID) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	refusals := c.counts[clientID]
	if refusals == nil {
		if c.counts == nil {
			c.counts = make(map[string]map[clientRefusal]uint64)
		}
		if len(c.counts) >= limit { // some of them are gone
			maps.DeleteFunc(c.counts, func(id string, _ map[clientRefusal]uint64) bool { return !declared.Declares(id) })
		}
		refusals = make(map[clientRefusal]uint64)
		c.counts[clientID] = refusals
	}
	refusals[clientRefusal{reason, reportOnly}]++
}

// Collect sends the counts of the clients that are declared, unless there are more than
// limit.
func (c *ClientRefusals) Collect(collected chan<- prometheus.Metric, realm string, declared Declared, limit int) {
	if declared.Len() > limit {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, refusals := range c.counts {
		if !declared.Declares(id) {
			continue
		}
		for refusal, times := range refusals {
			collected <- prometheus.MustNewConstMetric(clientRefusals, prometheus.CounterValue, float64(times),
				realm, id, refusal.reason, strconv.FormatBool(refusal.reportOnly))
		}
	}
}
