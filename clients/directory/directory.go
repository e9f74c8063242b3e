// Package directory keeps the registry of clients up to date with the sources that
// clients come from, and with the certificate files and JWK Sets that they name.
package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// Config says where clients come from, and what is done with them. Only
// Records or Sources are required; a nil function is not called.
type Config struct {
	// Records are the clients of the configuration, which has the highest rank. Their
	// placeholders must have been expanded.
	Records []clients.Record
	// Sources have more clients, the one with the highest rank first. Their names must
	// differ.
	Sources []clients.Source
	// Check returns what else is wrong with a client. It must not depend on other
	// clients, or on anything that changes.
	Check func(*clients.Client) error
	// Before, if set, is the directory that this one replaces. What it has fetched
	// is taken over, and the clients of sources that cannot be reached.
	Before *Directory
	// Copies, if set, keep the JWK Sets behind URLs over a restart (see
	// [Directory.SaveCopies]).
	Copies *KeySetCopies
	// Fetch gets a JWK Set. Default: the one of [source.URLConfig].
	Fetch func(ctx context.Context, address string, limit int64) (source.Document, error)
	// Now is the clock. Default: [time.Now].
	Now func() time.Time

	// Use is called with each registry that is to replace the one before. An error
	// keeps the one before in force. Use must not call the directory.
	Use func(*clients.Registry) error
	// Ended reports whether the configuration has ended. What fails after that is not
	// reported: sources have been told to stop, and what they need may be closed. Default:
	// it never does.
	Ended func() bool
	// Failed is called with the name of a source when it cannot be read, or an update of
	// it cannot be put in force.
	Failed func(name string)
	// Report is called with what a [SourceState] calls a source and why it fails, once for
	// each fault, and with nil when it works again or has changed. It must not call the
	// directory.
	Report func(label string, err error)
	// Logger gets what an operator should know. Default: none.
	Logger *zap.Logger
}

// setDefaults replaces what is nil.
func (c *Config) setDefaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Check == nil {
		c.Check = func(*clients.Client) error { return nil }
	}
	if c.Use == nil {
		c.Use = func(*clients.Registry) error { return nil }
	}
	if c.Ended == nil {
		c.Ended = func() bool { return false }
	}
	if c.Failed == nil {
		c.Failed = func(string) {}
	}
	if c.Report == nil {
		c.Report = func(string, error) {}
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
}

// Directory keeps the clients of a realm: those of the configuration and of the
// sources, with the files and JWK Sets that they name. When one of these changes, it
// makes a new registry, at the cost of the change. Whatever is broken, missing or in
// conflict with the rest changes nothing.
//
// The configuration and the sources are ranked. A client that claims what one of a
// higher rank has, its client_id or a credential, waits until that one lets go.
//
// A directory starts nothing but fetches. Its owner calls [Directory.Watch] once, and
// [Directory.Poll] a few times a second.
type Directory struct {
	config Config
	// beginning is nil once the directory is made
	beginning atomic.Pointer[beginning]
	// sources are the configuration and the sources, in the order of their ranks
	sources  []*recordSource
	registry atomic.Pointer[clients.Registry]
	waiting  waiting
	poller   poller

	// aside is held by the update that is prepared without changing, before that
	aside sync.Mutex

	// changing is held while the registry is replaced, after the mu of the poller and before
	// the others. It guards what follows, and with these what of that others read
	changing sync.Mutex
	maxHold  time.Duration // see the constant
	reported clients.ConflictLog
	// concurrent notes what changes while an update is prepared aside, else it is nil
	concurrent *concurrent

	documents *documents
	mu        sync.Mutex // guards how the sources fare
}

// New reads everything but URLs. Unlike later, anything that is missing or
// broken is an error, and so are records of the same rank that are in conflict. The
// context applies to reading sources and copies.
func New(ctx context.Context, config Config) (*Directory, error) {
	config.setDefaults()
	d := &Directory{
		config: config, maxHold: maxHold,
		waiting: waiting{waiters: make(map[*clients.Client]map[*clients.Client]struct{})},
	}
	d.registry.Store(clients.NewRegistry())
	d.waiting.published.Store(newWaitList())
	d.documents = newDocuments(&d.config)
	d.poller = poller{documents: d.documents, remake: d.remake}
	d.config.Before, d.config.Records = nil, nil // they are in the way of the garbage collector
	begin := &beginning{before: config.Before}
	d.beginning.Store(begin)
	if config.Copies != nil && config.Before == nil {
		begin.copies = sync.OnceValue(func() map[string]keySetCopy {
			copies, err := config.Copies.load(ctx)
			if err != nil {
				config.Logger.Error("reading JWKS copies failed; waiting for fetches", zap.Error(err))
			}
			return copies
		})
	}
	d.sources = []*recordSource{newRecordSource(d, SourceConfig, 0)}
	for _, from := range config.Sources {
		info := from.Info()
		if slices.ContainsFunc(d.sources, func(s *recordSource) bool { return s.name == info.Name }) {
			return nil, fmt.Errorf("clients are read from %s twice; keep one", info.Name)
		}
		s := newRecordSource(d, info.Name, len(d.sources))
		s.from, s.info = from, info
		d.sources = append(d.sources, s)
	}
	if err := d.loadRecords(ctx, config.Records); err != nil {
		return nil, err
	}
	for _, s := range d.sources[1:] {
		if err := s.load(ctx); err != nil {
			return nil, s.wrap(err)
		}
	}
	// a source may already hand over changes
	d.changing.Lock()
	defer d.changing.Unlock()
	d.beginning.Store(nil)
	d.reported.Update(config.Logger, d.Registry())
	return d, nil
}

// beginning is what a directory needs while it is made.
type beginning struct {
	// before is the directory that the new one replaces, or nil
	before *Directory
	// copies returns the JWK Sets that were stored, by name. It is nil if they are not
	// needed.
	copies func() map[string]keySetCopy
}

// takeOver has a document begin with what the directory before has fetched of the same
// URL, and reports whether there is anything.
func (b *beginning) takeOver(document *watchedDocument) bool {
	return b.before != nil && b.before.documents.handOver(document)
}

// loaded reports whether the directory is made.
func (d *Directory) loaded() bool { return d.beginning.Load() == nil }

// loadRecords loads the records of the configuration.
func (d *Directory) loadRecords(ctx context.Context, records []clients.Record) error {
	u := d.sources[0].newUpdate(true)
	for i := range records {
		text, err := json.Marshal(records[i])
		if err != nil {
			return err
		}
		u.records = append(u.records, incoming{text: text})
	}
	_, err := u.apply(ctx)
	if wrong := new(clients.RecordError); errors.As(err, &wrong) {
		return wrong.Err // the configuration has no lines, and its text is the operator's own
	}
	return err
}

// newPlan returns a plan with what is in force.
func (d *Directory) newPlan() *plan {
	p := &plan{
		directory: d, now: d.config.Now(), opened: make(map[documentKey]*watchedDocument),
		usedBy: make(map[*clients.Client][]*watchedDocument),
	}
	begin := d.beginning.Load()
	if serves := begin == nil || begin.before != nil; serves && runtime.GOMAXPROCS(0) < enoughProcessors {
		p.pace = &pace{began: time.Now()}
	}
	return p
}

// Watch has the sources hand over changes until ctx is done.
func (d *Directory) Watch(ctx context.Context) {
	for _, s := range d.sources {
		if s.from != nil {
			go s.watch(ctx)
		}
	}
}
