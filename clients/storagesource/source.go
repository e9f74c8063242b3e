package storagesource

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

const (
	sourceName = "storage"

	// pollInterval is the longest time between the starts of two polls, and pollJitter
	// how much shorter it may be, so that nodes do not read at the same time. With it,
	// a change is in force on every node within 10 s, even if each call of storage takes
	// a second.
	pollInterval = 3 * time.Second
	pollJitter   = 500 * time.Millisecond
	// retryInterval is how soon something that was refused or damaged is tried again
	// while the index stays the same.
	retryInterval = 30 * time.Second
	// loadTimeout bounds reading and checking all records.
	loadTimeout = 2 * time.Minute
	// attempts is how often records are read whose objects vanish, because another node
	// is writing.
	attempts = 5
)

// mutex is a mutex that can be waited for with a context.
type mutex chan struct{}

func (m mutex) lock(ctx context.Context) error {
	select {
	case m <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m mutex) unlock() { <-m }

// Source is the clients of a realm that are in storage.
type Source struct {
	objects *objects
	skipBad bool
	// running is set if the running configuration has clients of the source
	running bool
	ended   func() bool // whether storage may not be changed any more
	logger  *zap.Logger
	now     func() time.Time

	writing mutex // held by the one change under way; guards cleaned
	cleaned bool  // whether old objects have been deleted

	applying mutex // guards what follows, and orders the calls of the sink
	sink     clients.Sink
	loaded   bool // whether the sink has ever got all records
	applied  applied
	revision uint64 // of the index that was read last
	trouble  trouble
}

// trouble is why something of an index is not in force.
type trouble struct {
	err      error
	revision uint64
	at       time.Time
}

func newSource(host clients.Host, skipBad bool, ended func() bool) *Source {
	objects := newObjects(host.Storage, host.Realm)
	return &Source{
		running: slices.Contains(host.Running, sourceName),
		objects: objects, skipBad: skipBad, ended: ended, logger: host.Logger, now: host.Now,
		writing: make(mutex, 1), applying: make(mutex, 1), applied: applied{seed: maphash.MakeSeed(), index: objects.key(indexName)},
	}
}

// Info implements [clients.Source].
func (s *Source) Info() clients.SourceInfo {
	return clients.SourceInfo{Name: sourceName, SkipBad: s.skipBad, LoadTimeout: loadTimeout, Refresh: pollInterval}
}

// Load implements [clients.Source].
func (s *Source) Load(ctx context.Context, sink clients.Sink) error {
	if err := s.applying.lock(ctx); err != nil {
		return err
	}
	defer s.applying.unlock()
	s.sink = sink
	x, err := s.objects.readIndex(ctx)
	if err == nil {
		err = s.follow(ctx, x)
	}
	if s.loaded && err != nil { // all but what is damaged, as on_bad_record says
		sink.Note(err)
		return nil
	}
	if err != nil && x != nil && x.Revision == 0 { // the running configuration has the clients
		return fmt.Errorf("%w: %w", clients.ErrUnavailable, err)
	}
	return err
}

// Watch implements [clients.Source].
func (s *Source) Watch(ctx context.Context, sink clients.Sink) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollInterval - rand.N(pollJitter)): //nolint:gosec // it only spreads the load
		}
		s.poll(ctx, sink)
	}
}

// poll hands over what has changed in storage.
func (s *Source) poll(ctx context.Context, sink clients.Sink) {
	if s.applying.lock(ctx) != nil {
		return
	}
	defer s.applying.unlock()
	s.sink = sink
	x, err := s.objects.readIndex(ctx)
	if err == nil {
		err = s.follow(ctx, x)
	}
	if _, refused := errors.AsType[*refusal](err); ctx.Err() == nil && !refused { // which the sink has reported
		sink.Note(err)
	}
}

// refusal is an error of the sink.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// follow hands over what differs between an index and what the sink has. Its error says
// why something of the index is not in force: a [refusal] if the sink refused it.
func (s *Source) follow(ctx context.Context, x *index) error {
	if t := s.trouble; t.err != nil && t.revision == x.Revision && s.now().Sub(t.at).Abs() < retryInterval {
		return t.err
	}
	err := s.apply(ctx, x)
	s.trouble = trouble{}
	if _, refused := errors.AsType[*refusal](err); refused || errors.Is(err, errDamaged) {
		s.trouble = trouble{err, x.Revision, s.now()}
	}
	return err
}

func (s *Source) apply(ctx context.Context, x *index) error {
	for range attempts {
		if err := s.checkExists(x); err != nil {
			return err
		}
		hand := s.update
		if !s.loaded {
			hand = s.replace
		}
		err := hand(ctx, x)
		if !errors.Is(err, errReplaced) {
			return err
		}
		if x, err = s.objects.readIndex(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: stored clients change faster than they can be read", clients.ErrUnavailable)
}

// checkExists returns an error if there is nothing in storage, but there has been, also
// for the running configuration: a folder that is not mounted does not mean that all
// clients have been removed.
func (s *Source) checkExists(x *index) error {
	if x.Revision > 0 || s.revision == 0 && !s.running {
		return nil
	}
	return fmt.Errorf("%w: '%s' and all shards have vanished; bring them back, or restart Caddy to go on without them", errDamaged, s.objects.key(indexName))
}

// noteRevision remembers the revision of an index, and reports one that is older than
// one before.
func (s *Source) noteRevision(x *index) {
	if x.Revision < s.revision {
		s.logger.Warn("stored clients went back to an older revision", zap.String("index", s.objects.key(indexName)),
			zap.Uint64("revision", x.Revision), zap.Uint64("previous", s.revision))
	}
	s.revision = x.Revision
}
