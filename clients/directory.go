package clients

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// DirectoryConfig says where clients come from, and what is done with them. Only
// Records or Sources are required; a nil function is not called.
type DirectoryConfig struct {
	// Records are the clients of the configuration. Their placeholders must have
	// been expanded.
	Records []Record
	// Sources have more clients, the one with the highest rank first. Their names must
	// differ.
	Sources []Source
	// Polled are sources that are polled.
	Polled []PolledSource
	// Check returns what else is wrong with a client.
	Check func(*Client) error
	// Before, if set, is the directory that this one replaces. What it has fetched
	// is taken over.
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
	Use func(*Registry) error
	// Logger gets what an operator should know. Default: none.
	Logger *zap.Logger
}

// setDefaults replaces what is nil.
func (c *DirectoryConfig) setDefaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Check == nil {
		c.Check = func(*Client) error { return nil }
	}
	if c.Use == nil {
		c.Use = func(*Registry) error { return nil }
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
}

// Directory keeps the clients of a realm: those of the configuration and of the
// sources, with the files and JWK Sets that they name. When one of these changes,
// it makes a new registry. Whatever is broken, missing or in conflict with the
// rest changes nothing, and is tried again when anything changes, and from time to
// time.
//
// A directory starts nothing but fetches. Its owner calls [Directory.Poll] a few
// times a second.
type Directory struct {
	config DirectoryConfig
	// copies returns what was stored, by name; it is nil once the directory is made
	copies func() map[string]keySetCopy

	polling  sync.Mutex // held by Poll; guards what only it uses
	pending  changes
	tried    time.Time // when the pending changes were last tried
	rest     time.Time // until then, changes of JWK Sets behind URLs wait
	reported reportedConflicts

	mu        sync.Mutex // guards what others read
	sources   []*recordSource
	documents documentSet
	registry  *Registry
}

// recordSource is the configuration or a source, with its clients.
type recordSource struct {
	name    string
	source  PolledSource // nil for the configuration
	from    Source
	sink    *sink
	records []Record
	entries []entry
	status
}

// load loads the records of the source, which may be a guest module.
func (s *recordSource) load(now time.Time) (records []Record, changed bool, err error) {
	defer source.Recover(s.name, &err)
	return s.source.Load(now)
}

// entry is a client. The record is nil unless it names documents: the client is
// made again when one of them changes.
type entry struct {
	client    *Client
	record    *Record
	documents []*watchedDocument
}

// NewDirectory reads everything but URLs. Unlike later, anything that is missing,
// broken or in conflict is an error. The context applies to reading copies.
func NewDirectory(ctx context.Context, config DirectoryConfig) (*Directory, error) {
	config.setDefaults()
	d := &Directory{config: config, documents: documentSet{fetches: make(chan struct{}, maxFetches)}}
	d.sources = []*recordSource{{name: SourceConfig}}
	found := changes{{source: d.sources[0], records: config.Records}}
	now := config.Now()
	for _, from := range config.Sources {
		s := &recordSource{name: from.Info().Name, from: from}
		if d.hasSource(s.name) {
			return nil, fmt.Errorf("clients are read from %s twice; keep one", s.name)
		}
		d.sources = append(d.sources, s)
		err := d.loadSource(ctx, s)
		if errors.Is(err, ErrUnavailable) {
			if records, known := config.Before.recordsOf(s.name); known {
				s.records = records
				d.noteUnavailable(s, err)
				err = nil
			}
		}
		if err != nil {
			return nil, s.wrap(err)
		}
		found = append(found, change{source: s, records: s.records})
	}
	for _, from := range config.Polled {
		s := &recordSource{name: from.Name(), source: from}
		if d.hasSource(s.name) {
			return nil, fmt.Errorf("clients are read from %s twice; keep one", s.name)
		}
		records, _, err := s.load(now)
		if err != nil {
			return nil, s.wrap(err)
		}
		d.sources = append(d.sources, s)
		found = append(found, change{source: s, records: records})
	}
	if config.Copies != nil && config.Before == nil {
		d.copies = sync.OnceValue(func() map[string]keySetCopy {
			copies, err := config.Copies.load(ctx)
			if err != nil {
				config.Logger.Error("reading JWKS copies failed; waiting for fetches", zap.Error(err))
			}
			return copies
		})
	}
	p, err := newPlan(d, found)
	if err != nil {
		return nil, err
	}
	d.commit(p, now)
	d.config.Before, d.config.Records, d.copies = nil, nil, nil
	return d, nil
}

func (d *Directory) hasSource(name string) bool {
	return slices.ContainsFunc(d.sources, func(s *recordSource) bool { return s.name == name })
}

// openKeySet opens a JWK Set behind a URL, which begins with what is known of it.
func (d *Directory) openKeySet(key documentKey) (*watchedDocument, error) {
	opened := &watchedDocument{documentKey: key, contents: new(contents)}
	var err error
	opened.url, err = source.NewURL(source.URLConfig{
		Address: key.place, MaxBytes: maxKeySetBytes, Accept: opened.accept, Fetch: d.config.Fetch, Now: d.config.Now,
	})
	if err != nil {
		return nil, err
	}
	opened.name = opened.url.Name()
	if d.config.Before.takeOverURL(opened) || d.copies == nil {
		return opened, nil
	}
	kept, ok := d.copies()[copyName(key.place)]
	if ok && d.config.Now().Sub(kept.Fetched).Abs() < copyLifetime && opened.url.Begin(kept.KeySet, kept.Fetched) {
		opened.contents, opened.saved = opened.accepted, kept.Fetched
	}
	return opened, nil
}

// takeOverURL has a document begin with what the directory has fetched of the same
// URL, and reports whether there is anything.
func (d *Directory) takeOverURL(document *watchedDocument) bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	old := d.documents.byKey[document.documentKey]
	d.mu.Unlock()
	if old == nil || !document.url.TakeOver(old.url) {
		return false
	}
	document.contents = &contents{certificates: document.accepted.certificates} // warnings have been reported
	return true
}

// Registry returns the clients as they are now.
func (d *Directory) Registry() *Registry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registry
}

// Sizes returns how many clients the configuration and each source have.
func (d *Directory) Sizes() []SourceSize {
	d.mu.Lock()
	defer d.mu.Unlock()
	sizes := make([]SourceSize, len(d.sources))
	for i, s := range d.sources {
		sizes[i] = SourceSize{s.name, len(s.entries)}
	}
	return sizes
}

// States returns the states of all sources, and of certificate files and JWK Sets
// of clients, at most limit of these.
func (d *Directory) States(limit int) []SourceState {
	d.mu.Lock()
	defer d.mu.Unlock()
	var states []SourceState
	for _, s := range d.sources {
		if s.source != nil || s.from != nil {
			states = append(states, SourceState{s.label(), s.success, s.failure()})
		}
	}
	limit += len(states)
	for _, document := range slices.Concat(d.documents.files, d.documents.urls) {
		if document.url != nil {
			// a fetch may succeed though its result cannot be put in force
			document.success = document.url.Success()
		}
		for _, label := range document.labels() {
			if len(states) == limit {
				return states
			}
			states = append(states, SourceState{label, document.success, document.failure()})
		}
	}
	return states
}

// Unfetched returns how many JWK Sets have never been fetched.
func (d *Directory) Unfetched() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	count := 0
	for _, document := range d.documents.urls {
		if _, known := document.url.Content(); !known {
			count++
		}
	}
	return count
}
