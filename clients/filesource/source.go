// Package filesource reads clients from files: JSON arrays, JSON Lines, YAML, and
// folders of them.
package filesource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"iter"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// loadTimeout bounds the start. A file of millions of clients takes longer than the
	// answer of a server.
	loadTimeout = 5 * time.Minute
	// retryPause is the pause after which files are read again though they have not
	// changed: what they did not go together with may have.
	retryPause = 5 * time.Second
	// restFactor times as long as a look or a read has taken, the next one waits, but the
	// next look at most longestRest: who disables a client in a file of a million waits
	// that long.
	restFactor  = 20
	longestRest = 10 * time.Second
)

// Config configures a [Source].
type Config struct {
	// Path is a file or a folder.
	Path string
	// SkipBad has records that are wrong skipped.
	SkipBad bool
	// Logger gets what an operator should know. Default: none.
	Logger *zap.Logger
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

// Source is a watched file of clients, or a watched folder of such files.
type Source struct {
	config Config
	seed   maphash.Seed

	// seen is what there was at the last look, since when, and for how many looks
	seen  []member
	since time.Time
	looks int
	// health is that of looks
	health source.Health
	folder folder

	// read is what was read last, and sum its content; failed is set if it could not be
	// put in force, unlike inForce
	read    []member
	sum     uint64
	failed  bool
	inForce []member
	// settled is set once nothing can have changed without a change of seen
	settled bool
	// retry is when to read again after a failure, as measured by the clock of work
	retry time.Time
}

// New returns the source of a file or folder, which has not been read yet.
func New(config Config) *Source {
	config.Logger = cmp.Or(config.Logger, zap.NewNop())
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Source{config: config, seed: maphash.MakeSeed()}
}

// Info implements [clients.Source].
func (s *Source) Info() clients.SourceInfo {
	return clients.SourceInfo{Name: "file:" + s.config.Path, SkipBad: s.config.SkipBad, NamesFiles: true, LoadTimeout: loadTimeout, Refresh: source.LookInterval}
}

// Load implements [clients.Source]. It reads what is there, complete or not.
func (s *Source) Load(ctx context.Context, sink clients.Sink) error {
	members, err := s.list()
	if err != nil {
		return err
	}
	s.seen, s.since, s.looks = members, s.config.Now(), 1
	return s.replace(ctx, sink)
}

// Watch implements [clients.Source].
func (s *Source) Watch(ctx context.Context, sink clients.Sink) {
	wait := source.LookInterval
	for timer := time.NewTimer(wait); ; timer.Reset(wait) {
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		// this is about work, which the configured clock does not measure
		began := time.Now()
		s.look(ctx, sink)
		wait = restAfter(time.Since(began))
	}
}

// restAfter returns how long to wait after a look that has taken that long.
func restAfter(took time.Duration) time.Duration {
	return min(max(source.LookInterval, restFactor*took), longestRest)
}

// look looks at the files, and reads them if they have changed. It costs one system call
// for each unchanged file, and one for the folder.
func (s *Source) look(ctx context.Context, sink clients.Sink) {
	now := s.config.Now()
	members, err := s.list()
	changed := err == nil && !sameMembers(members, s.seen)
	if s.health.Note(now, changed, err) && err != nil {
		sink.Note(err)
	}
	switch {
	case err != nil:
		s.looks = 0
		return
	case changed || s.looks == 0:
		s.seen, s.since, s.looks = members, now, 1
	default:
		s.looks++
	}
	switch {
	case !sameMembers(s.seen, s.read):
		if s.complete(now) {
			s.replaceInForce(ctx, sink)
		}
	case s.failed:
		if !time.Now().Before(s.retry) {
			s.replaceInForce(ctx, sink)
		}
	case !s.settled && s.quiet(now) && s.hasChanged():
		s.replaceInForce(ctx, sink)
	default:
		sink.Note(nil)
	}
}

// quiet reports whether nothing has changed for some time.
func (s *Source) quiet(now time.Time) bool { return now.Sub(s.since) >= source.QuietTime }

// complete reports whether the files that have changed do not look as if they were being
// written. A file, or a client, that is gone may be about to come back.
func (s *Source) complete(now time.Time) bool {
	if s.looks < 2 {
		return false
	}
	if s.quiet(now) {
		return true
	}
	for _, was := range s.inForce {
		if _, found := find(s.seen, was.name); !found {
			return false
		}
	}
	for _, m := range s.seen {
		was, known := find(s.inForce, m.name)
		if known && sameFile(was.info, m.info) {
			continue
		}
		format, _ := formatOf(s.pathOf(m))
		shorter := known && m.info.Size() < was.info.Size()
		if format.endless && shorter || !looksComplete(s.pathOf(m)) {
			return false
		}
	}
	return true
}

// hasChanged reports whether the files have other content than what was read, though
// their sizes and times are the same.
func (s *Source) hasChanged() bool {
	s.settled = true
	sum := s.newSum()
	for _, m := range s.seen {
		addName(sum, m.name)
		if err := sumFile(s.pathOf(m), sum); err != nil {
			return true // reading it again says why
		}
	}
	return sum.Sum64() != s.sum
}

func (s *Source) newSum() *maphash.Hash {
	sum := new(maphash.Hash)
	sum.SetSeed(s.seed)
	return sum
}

func addName(sum hash.Hash64, name string) { _, _ = sum.Write([]byte(name + "\x00")) }

// replaceInForce reads the files. Its error has been reported.
func (s *Source) replaceInForce(ctx context.Context, sink clients.Sink) {
	began := time.Now()
	err := s.replace(ctx, sink)
	s.retry = time.Now().Add(max(retryPause, restFactor*time.Since(began)))
	if errors.Is(err, errChanged) {
		s.read = nil
	}
}

// replace hands over what the files have.
func (s *Source) replace(ctx context.Context, sink clients.Sink) error {
	s.read, s.settled = s.seen, s.quiet(s.config.Now())
	sum := s.newSum()
	err := sink.Replace(ctx, s.records(ctx, sum))
	s.sum, s.failed = sum.Sum64(), err != nil
	if err == nil {
		s.inForce = s.read
	}
	return err
}

// records returns the records of all files.
func (s *Source) records(ctx context.Context, sum hash.Hash64) iter.Seq2[clients.Entry, error] {
	return func(yield func(clients.Entry, error) bool) {
		for _, m := range s.seen {
			addName(sum, m.name)
			for e, err := range readFile(ctx, s.pathOf(m), sum) {
				if m.name != "" {
					e.Place = placeIn(m.name, e.Place)
				}
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// placeIn returns the place of a record in a file of a folder.
func placeIn(name, place string) string {
	if name = source.Text(name, 200); place == "" {
		return name
	}
	return name + ", " + place
}

func (s *Source) pathOf(m member) string {
	if m.name == "" {
		return s.config.Path
	}
	return filepath.Join(s.config.Path, m.name)
}

// list returns the file, or the files of the folder.
func (s *Source) list() ([]member, error) {
	info, err := statFile(s.config.Path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []member{{info: info}}, nil
	}
	return s.listFolder(info)
}

// listFolder returns the files of the folder, sorted by name.
func (s *Source) listFolder(info os.FileInfo) ([]member, error) {
	names, err := s.folder.list(s.config.Path, info, s.config.Now(), s.config.Logger)
	if err != nil {
		return nil, err
	}
	members := make([]member, 0, len(names))
	for _, name := range names {
		info, err := statFile(filepath.Join(s.config.Path, name))
		if err != nil {
			s.folder.seen = nil // it may have gone in this moment
			return nil, err
		}
		if !info.IsDir() {
			members = append(members, member{name, info})
		}
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("folder %s has no clients file (*.json, *.jsonl, *.ndjson, *.yaml or *.yml); write [] into one if there are no clients", s.config.Path)
	}
	return members, nil
}

// Interface guard
var _ clients.Source = (*Source)(nil)
