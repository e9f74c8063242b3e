// Package reporter tells operators about refusals, off the request path: in the log, where
// repetitions are folded, by an event, and in the memory of the realm.
package reporter

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/events"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxQueuedRefusals is how many refusals of a class may wait for the reporter, and
	// maxQueuedOctets how large the certificates may be that wait with them.
	maxQueuedRefusals = 1024
	maxQueuedOctets   = 4 << 20

	// tellPoll is how often the reporter looks whether counts are due.
	tellPoll = time.Second
	// tellDropped is how often it tells how many refusals were dropped.
	tellDropped = time.Minute
)

// Config is what a [Reporter] is given.
type Config struct {
	Logger *zap.Logger
	Events *events.Emitter
	Now    func() time.Time
}

// Reporter reports the refusals of all realms of a configuration.
type Reporter struct {
	config  Config
	queues  [refusals.Classes]refusalQueue
	dropped atomic.Int64
	ended   chan struct{} // closed when nothing is queued any more
	done    chan struct{} // closed when the queues have been worked off

	closing sync.RWMutex
	closed  bool // then refusals are reported at once

	reporting sync.Mutex // held while a refusal is reported; it guards what follows
	fold      *refusals.Fold
	// told is how many dropped refusals the log has told of, and when
	told   int64
	toldAt time.Time
}

// refusalQueue has the refusals of a class that wait. Each class has its own, so that a
// flood of strangers takes no room from clients.
type refusalQueue struct {
	waiting chan *Refused
	octets  atomic.Int64 // of their certificates
}

// New returns a reporter whose refusals wait for [Reporter.Run].
func New(config Config) *Reporter {
	p := &Reporter{config: config, ended: make(chan struct{}), done: make(chan struct{}), fold: refusals.NewFold()}
	for i := range p.queues {
		p.queues[i].waiting = make(chan *Refused, maxQueuedRefusals)
	}
	return p
}

// Dropped returns how many refusals were not reported, because too many were waiting.
func (p *Reporter) Dropped() int64 { return p.dropped.Load() }

// Len returns how many refusals are waiting.
func (p *Reporter) Len() (waiting int) {
	for i := range p.queues {
		waiting += len(p.queues[i].waiting)
	}
	return waiting
}

// add queues a refusal. It never blocks: if the queue of its class is full, the refusal is
// dropped and counted. After Close, add reports it itself, without a hint.
func (p *Reporter) add(refused *Refused) {
	p.closing.RLock()
	defer p.closing.RUnlock()
	if p.closed {
		p.report(refused, false)
		return
	}
	queue := &p.queues[refused.class()]
	if queue.octets.Add(refused.octets) <= maxQueuedOctets {
		select {
		case queue.waiting <- refused:
			return
		default:
		}
	}
	queue.octets.Add(-refused.octets)
	p.dropped.Add(1)
	metrics.RefusalsDropped.Inc()
}

// Run reports queued refusals until nothing is queued any more and the queues are empty.
// The classes take turns.
func (p *Reporter) Run() {
	defer close(p.done)
	due := time.NewTicker(tellPoll)
	defer due.Stop()
	for {
		select {
		case refused := <-p.queues[refusals.KnownClient].waiting:
			p.took(refused)
		case refused := <-p.queues[refusals.WithCertificate].waiting:
			p.took(refused)
		case refused := <-p.queues[refusals.WithoutCertificate].waiting:
			p.took(refused)
		case <-due.C:
			p.tell(p.config.Now(), false)
		case <-p.ended:
			p.empty()
			p.tell(p.config.Now(), true)
			return
		}
	}
}

// empty reports what is in the queues.
func (p *Reporter) empty() {
	for i := range p.queues {
		for len(p.queues[i].waiting) > 0 {
			p.took(<-p.queues[i].waiting)
		}
	}
}

// took reports a refusal from its queue.
func (p *Reporter) took(refused *Refused) {
	p.queues[refused.class()].octets.Add(-refused.octets)
	p.report(refused, true)
}

// report reports a refusal, without its certificate if that makes the plugin panic.
func (p *Reporter) report(refused *Refused, inTime bool) {
	err := p.try(refused, inTime)
	if err == nil {
		return
	}
	refused.realm.Logger.Error("certificate of a refusal could not be described", zap.String("error_id", refused.ErrorID), zap.Error(err))
	refused.Notes = nil
	_ = p.try(refused, inTime)
}

// try remembers a refusal and logs it. Refusals that come late each have a line, because
// nobody would tell their count. It turns a panic over a hostile certificate into an
// error; outside of a request, it would end the process.
func (p *Reporter) try(refused *Refused, inTime bool) (err error) {
	defer source.Recover("the reporter", &err)
	record := refused.record(inTime)
	p.reporting.Lock()
	defer p.reporting.Unlock()
	p.tellCounts(p.fold.Due(record.At))
	if !inTime || p.fold.Add(&record) {
		writeLine(refused.realm.Logger, &record)
		p.config.Events.Refused(&record, 1, false)
	}
	refused.realm.Count(&record)
	refused.realm.Memory.Add(record)
	return nil
}

// tell logs the counts that are due, or all at the end.
func (p *Reporter) tell(now time.Time, end bool) {
	p.reporting.Lock()
	defer p.reporting.Unlock()
	counts := p.fold.Due(now)
	if end {
		counts = append(counts, p.fold.Pending()...)
	}
	p.tellCounts(counts)
	if dropped := p.dropped.Load(); dropped > p.told && (end || now.Sub(p.toldAt).Abs() >= tellDropped) {
		p.config.Logger.Warn("too many refusals at once; some were not logged", zap.Int64("dropped", dropped-p.told))
		p.told, p.toldAt = dropped, now
	}
}

func (p *Reporter) tellCounts(counts []refusals.Counted) {
	for i := range counts {
		writeCount(p.config.Logger.With(zap.String("realm", counts[i].Realm)), &counts[i])
		p.config.Events.Counted(&counts[i])
	}
}

// Close ends the worker and waits until it has reported all refusals or the context is
// done.
func (p *Reporter) Close(ctx context.Context) {
	p.closing.Lock()
	if !p.closed {
		p.closed = true
		close(p.ended)
	}
	p.closing.Unlock()
	select {
	case <-p.done:
	case <-ctx.Done():
	}
}
