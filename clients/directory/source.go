package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// defaultLoadTimeout is how long a source may take to load, unless it says
	// otherwise.
	defaultLoadTimeout = 30 * time.Second
	// loadGrace is how long a source may take to notice that.
	loadGrace = 2 * time.Second
)

// recordSource is the configuration or a source, with its clients. It is the
// [clients.Sink] of the source.
type recordSource struct {
	name string
	rank int
	from clients.Source // nil for the configuration

	directory *Directory
	// origin is what its clients say about where they come from
	origin *clients.Origin
	info   clients.SourceInfo
	// loading is closed when Load has returned
	loading chan struct{}

	// clients are those in force and those that wait. The directory's changing guards
	// them, and its mu what follows
	clients map[*clients.Client]struct{}
	size    int // of clients
	before  int // size before all records were last replaced
	status
	skipped skippedRecords
}

func newRecordSource(d *Directory, name string, rank int) *recordSource {
	return &recordSource{
		directory: d, name: name, rank: rank, origin: clients.NewOrigin(name, rank), loading: make(chan struct{}),
		clients: make(map[*clients.Client]struct{}),
	}
}

// has reports whether a client is one of the source's.
func (s *recordSource) has(c *clients.Client) bool {
	_, has := s.clients[c]
	return has
}

// clientOf returns the client of the source, in force or waiting, or nil.
func (s *recordSource) clientOf(id string) *clients.Client {
	if id == "" {
		return nil
	}
	if client := s.directory.Registry().Client(id); client != nil && client.Rank() == s.rank {
		return client
	}
	if w := s.directory.waiting.list().under(id, s.rank); w != nil {
		return w.client
	}
	return nil
}

// load has a source hand over all of its records. If it cannot be reached, those that
// the running configuration has from it are taken over, or else its own copy.
func (s *recordSource) load(ctx context.Context) error {
	err := s.call(ctx, s.from.Load, s.loading)
	if !errors.Is(err, clients.ErrUnavailable) {
		return err
	}
	if running := s.directory.beginning.Load().before.source(s.name); running != nil {
		if replacing := s.newUpdate(true).run(ctx, running.records()); replacing != nil {
			return replacing
		}
		s.noteUnavailable(err, CopyRunning, running.readTime())
		logger := s.logger()
		logger.Error("client source unavailable; keeping clients of the running configuration", zap.Error(err))
		return nil
	}
	copier, ok := s.from.(clients.Copier)
	if !ok {
		return err
	}
	var written time.Time
	if info, err := os.Stat(s.info.Copy); err == nil {
		written = info.ModTime()
	}
	copying := s.call(ctx, copier.LoadCopy, make(chan struct{}))
	switch {
	case errors.Is(copying, errors.ErrUnsupported):
		return err
	case copying != nil:
		return fmt.Errorf("%w; and its copy: %w", err, copying)
	}
	s.noteUnavailable(err, cmp.Or(s.info.Copy, "copy"), written) // the source has said so itself, and how old its copy is
	return nil
}

// call calls a function of a source, which may be a guest module, and closes done when
// it has returned. It does not wait for one that ignores its context.
func (s *recordSource) call(ctx context.Context, load func(context.Context, clients.Sink) error, done chan struct{}) error {
	timeout := cmp.Or(s.info.LoadTimeout, defaultLoadTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: it was not loaded within %s", clients.ErrUnavailable, timeout))
	defer cancel()
	result := make(chan error, 1)
	go func() {
		defer close(done)
		var err error
		defer func() { result <- err }()
		defer source.Recover(s.name, &err)
		err = load(ctx, s)
	}()
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		select {
		case err = <-result:
		case <-time.After(loadGrace):
			err = ctx.Err()
		}
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// watch watches a source, which may be a guest module. A panic ends it, and not the
// process.
func (s *recordSource) watch(ctx context.Context) {
	<-s.loading
	watch := func() (err error) {
		defer source.Recover(s.name, &err)
		s.from.Watch(ctx, s)
		return nil
	}
	if err := watch(); err != nil {
		s.Note(err)
	}
}

// records returns the records that the source has handed over.
func (s *recordSource) records() iter.Seq2[clients.Entry, error] {
	s.directory.changing.Lock()
	defer s.directory.changing.Unlock()
	list := slices.Collect(maps.Keys(s.clients))
	return func(yield func(clients.Entry, error) bool) {
		for _, client := range list {
			if !yield(clients.Entry{ID: client.ID, Record: []byte(client.Record())}, nil) {
				return
			}
		}
	}
}

// Replace implements [Sink].
func (s *recordSource) Replace(ctx context.Context, records iter.Seq2[clients.Entry, error]) error {
	return s.newUpdate(true).run(ctx, records)
}

// Update implements [Sink].
func (s *recordSource) Update(ctx context.Context, records []clients.Entry) error {
	return s.newUpdate(false).run(ctx, lastOfEach(records))
}

// lastOfEach yields the last record of each client.
func lastOfEach(records []clients.Entry) iter.Seq2[clients.Entry, error] {
	last := make(map[string]int)
	idOf := func(e clients.Entry) string { return cmp.Or(e.ID, clients.GuessID(e.Record)) }
	for i, e := range records {
		last[idOf(e)] = i
	}
	return func(yield func(clients.Entry, error) bool) {
		for i, e := range records {
			if id := idOf(e); id != "" && last[id] != i {
				continue
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Note implements [Sink].
func (s *recordSource) Note(err error) {
	d := s.directory
	if err != nil {
		d.config.countFailure(s.name)
	}
	d.mu.Lock()
	reported := err != nil && s.reading != nil && s.reading.Error() == err.Error()
	mended := s.noteReading(d.config.Now(), err)
	d.mu.Unlock()
	if mended || err != nil && !reported {
		d.config.report(s.label(), s.name, err)
	}
}
