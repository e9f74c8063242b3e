package clients

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// SourceConfig is the source of the clients of the configuration.
	SourceConfig = "config"

	// maxLooks is how many files a poll looks at, beside those of sources.
	maxLooks = 1000
	// maxFetches is how many JWKS are fetched at a time.
	maxFetches = 8
	// restFactor is how many times as long as a change has taken those of JWKS
	// behind URLs wait after it.
	restFactor = 10
	// retryPause is when what could not be put in force is tried again though
	// nothing has changed: a file that it names may be there by now.
	retryPause = 5 * time.Second
	// maxTold is how many warnings of one load are told one by one.
	maxTold = 20
)

// DirectoryConfig says where clients come from.
type DirectoryConfig struct {
	// Records are the clients of the configuration, their placeholders expanded.
	Records []Record
	// Sources have more of them.
	Sources []Source
	// Check, if set, says what else is wrong with a client.
	Check func(*Client) error
	// Before, if set, is the directory that this one is to take the place of:
	// what it has fetched is taken over.
	Before *Directory
	// Copies, if set, keep the JWK Sets behind URLs over a restart (see
	// [Directory.SaveCopies]).
	Copies *KeySetCopies
	// Fetch gets a JWK Set. Default: the one of [source.URLConfig].
	Fetch func(ctx context.Context, address string, limit int64) (source.Document, error)
	// Now is the clock. Default: [time.Now].
	Now func() time.Time

	// Use, if set, is given a registry that is to take the place of the one
	// before, or says why it cannot. It must not call the directory.
	Use func(*Registry) error
	// Report, if set, is told when a source, as in [SourceState], has something
	// new in force, and once when it fails: what it had before counts on.
	Report func(source, place string, err error)
	// Warn, if set, is told what else an operator should know.
	Warn func(text string)
	// Ignored, if set, is told once of a certificate in a JWKS that does not
	// count.
	Ignored func(Conflict)
	// Ambiguous, if set, is told once of a certificate that has come to be in
	// several JWKS, and Unambiguous once it is no longer.
	Ambiguous, Unambiguous func(Ambiguity)
}

// Directory keeps the clients of a realm: those of the configuration and of
// other sources, with the files and the JWKS that they name. When one of these
// changes it makes a new registry. What is broken, missing or in conflict with
// the rest changes nothing, and is tried again when anything changes, and now
// and then.
//
// It starts nothing of its own but fetches: who has it calls [Directory.Poll]
// a few times a second.
type Directory struct {
	config DirectoryConfig
	// fetches bounds those that are under way
	fetches chan struct{}

	polling sync.Mutex // held by who polls
	files   []*document
	urls    []*document
	// the file and the URL that were looked at last
	lastFile, lastURL int
	pending           []change
	tried             time.Time // when that was tried last
	rest              time.Time // until then, JWKS behind URLs wait
	// the conflicts and, by thumbprint, the ambiguities that have been reported
	conflicts   map[reportedConflict]struct{}
	ambiguities map[string]Ambiguity
	// copiesDeleted is when unused copies were deleted last
	copiesDeleted time.Time

	mu       sync.Mutex // guards what is read by others than who polls
	origins  []*origin
	open     map[documentKey]*document
	registry *Registry

	// copies are those of JWK Sets by URL, while the directory is made
	copies map[string]keySetCopy
}

// origin is the configuration or a source, with its clients.
type origin struct {
	name    string
	source  Source // nil of the configuration
	entries []entry
	status
}

// entry is a client. The record is nil unless it names documents, for then the
// client is made anew when one of them changes.
type entry struct {
	client    *Client
	record    *Record
	documents []*document
}

// status is how a source or a document fares. It is guarded by the directory's
// mu.
type status struct {
	// success is when its content was last found to be in force
	success time.Time
	// reading is why it cannot be read, once that has been reported, and applying
	// why the content that was read cannot be put in force
	reading, applying error
	// health is that of the looks at a file
	health source.Health
}

func (s *status) inForce(now time.Time) { s.success, s.reading, s.applying = now, nil, nil }

// note notes how a look or a fetch went that has brought nothing new, and reports
// whether a failure has ended by that.
func (s *status) note(now time.Time, err error) (mended bool) {
	mended = err == nil && s.reading != nil && s.applying == nil
	s.reading = err
	if err == nil && s.applying == nil {
		s.success = now
	}
	return mended
}

func (s *status) failure() string {
	switch {
	case s.reading != nil:
		return s.reading.Error()
	case s.applying != nil:
		return s.applying.Error()
	}
	return ""
}

// SourceState tells of something that clients are read from.
type SourceState struct {
	// Source is "clients:" and the name of a source, "certificate:" and a file,
	// or "jwks:" and a client_id.
	Source string
	// Success is when it was last read without an error, zero if never.
	Success time.Time
	// Failure is why it could not be used, "" if it could.
	Failure string
}

// SourceSize is how many clients a source has.
type SourceSize struct {
	// Source is [SourceConfig] or the name of a source.
	Source  string
	Clients int
}

// NewDirectory reads all there is to read but URLs. Unlike later, anything that
// is missing, broken or in conflict is an error. The context is for reading
// copies from storage.
func NewDirectory(ctx context.Context, config DirectoryConfig) (*Directory, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Check == nil {
		config.Check = func(*Client) error { return nil }
	}
	if config.Use == nil {
		config.Use = func(*Registry) error { return nil }
	}
	if config.Report == nil {
		config.Report = func(string, string, error) {}
	}
	if config.Warn == nil {
		config.Warn = func(string) {}
	}
	if config.Ignored == nil {
		config.Ignored = func(Conflict) {}
	}
	if config.Ambiguous == nil {
		config.Ambiguous = func(Ambiguity) {}
	}
	if config.Unambiguous == nil {
		config.Unambiguous = func(Ambiguity) {}
	}
	d := &Directory{
		config: config, fetches: make(chan struct{}, maxFetches),
		open: make(map[documentKey]*document),
	}
	d.origins = []*origin{{name: SourceConfig}}
	changes := []change{{origin: d.origins[0], records: config.Records}}
	now := config.Now()
	for _, from := range config.Sources {
		o := &origin{name: from.Name(), source: from}
		if slices.ContainsFunc(d.origins, func(other *origin) bool { return other.name == o.name }) {
			return nil, fmt.Errorf("clients come from %s twice; keep one", o.name)
		}
		records, _, err := from.Load(now)
		if err != nil {
			return nil, o.wrap(err)
		}
		d.origins = append(d.origins, o)
		changes = append(changes, change{origin: o, records: records})
	}
	d.loadCopies(ctx, changes)
	p, err := d.plan(changes)
	if err != nil {
		return nil, err
	}
	d.commit(p, now)
	d.config.Before, d.config.Records, d.copies = nil, nil, nil
	return d, nil
}

// Registry returns the clients as they are now.
func (d *Directory) Registry() *Registry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registry
}

// Sizes tells of the configuration and of every source how many clients it has.
func (d *Directory) Sizes() []SourceSize {
	d.mu.Lock()
	defer d.mu.Unlock()
	sizes := make([]SourceSize, len(d.origins))
	for i, o := range d.origins {
		sizes[i] = SourceSize{o.name, len(o.entries)}
	}
	return sizes
}

// States tells of the sources, and of at most limit certificate files and JWKS
// of clients.
func (d *Directory) States(limit int) []SourceState {
	d.mu.Lock()
	defer d.mu.Unlock()
	var states []SourceState
	for _, o := range d.origins {
		if o.source != nil {
			states = append(states, SourceState{o.label(), o.success, o.failure()})
		}
	}
	limit += len(states)
	for _, document := range slices.Concat(d.files, d.urls) {
		if document.url != nil {
			// to be fetched is one thing, to be of use another
			document.success = document.url.State().Success
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

// Unfetched is how many JWKS have never been fetched.
func (d *Directory) Unfetched() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	count := 0
	for _, document := range d.urls {
		if _, known := document.url.Content(); !known {
			count++
		}
	}
	return count
}

func (o *origin) label() string { return "clients:" + strings.TrimPrefix(o.name, "file:") }

// labels are what a document is called in a [SourceState].
func (d *document) labels() []string {
	if d.kind == KindCertificate {
		return []string{"certificate:" + d.name}
	}
	labels := make([]string, len(d.users))
	for i, user := range d.users {
		labels[i] = "jwks:" + user
	}
	return labels
}
