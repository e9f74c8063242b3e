package directory

import (
	"fmt"
	"math"
	"runtime"
	"runtime/metrics"
	"time"

	"go.uber.org/zap"
)

const (
	// maxHeap is how much of the memory limit the heap may have, in percent, before no
	// more records are taken. Near the limit, the server does little but collect
	// garbage, and beyond it, it is killed.
	maxHeap = 85
	// progressInterval is how often the progress of long updates is logged.
	progressInterval = 3 * time.Second
	// maxHold is how long an update may keep others waiting, and holdPerRecord how much
	// longer for each record. Twenty times as much as usual is enough. Only a start or a
	// reload waits for the first update of a source, for up to maxFirstHold.
	maxHold       = 10 * time.Second
	maxFirstHold  = time.Minute
	holdPerRecord = 100 * time.Microsecond
)

// checkMemory returns an error if memory is nearly used up. The limit is that of the
// process, which Caddy takes from its container or from the machine.
func checkMemory() error {
	used, limit := heapUse()
	if limit == math.MaxInt64 || used <= limit/100*maxHeap {
		return nil
	}
	runtime.GC() // what was used at the last collection may be garbage now
	if used, limit = heapUse(); used <= limit/100*maxHeap {
		return nil
	}
	return fmt.Errorf("%d MiB of the memory limit of %d MiB are in use; give the process more memory, or reduce the clients", used>>20, limit>>20)
}

// heapUse returns how many bytes were in use at the last garbage collection, and the limit.
func heapUse() (used, limit uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// progress logs how far a long update has come. It is about work, which the configured
// clock does not measure.
type progress struct {
	logger      *zap.Logger
	phase       string
	began, last time.Time
	logged      bool
}

func newProgress(logger *zap.Logger) *progress {
	now := time.Now()
	return &progress{logger: logger, phase: "read", began: now, last: now}
}

// next begins the next phase.
func (p *progress) next(phase string) { p.phase = phase }

// report logs how many records are done, if it is time.
func (p *progress) report(done int) {
	now := time.Now()
	if done == 0 || now.Sub(p.last) < progressInterval {
		return
	}
	p.last, p.logged = now, true
	p.logger.Info("loading clients", zap.Int(p.phase, done), zap.Duration("after", now.Sub(p.began)))
}

// end logs that a long update is in force.
func (p *progress) end(records int) {
	if p.logged {
		p.logger.Info("clients loaded", zap.Int("records", records), zap.Duration("after", time.Since(p.began)))
	}
}
