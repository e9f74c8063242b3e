package clients

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// defaultLoadTimeout is how long a source may take to load, unless it says otherwise.
const defaultLoadTimeout = 30 * time.Second

// maxSourceRecord is the size of the largest record of a source, in bytes.
const maxSourceRecord = 64 << 10

// sink takes what a source hands over.
type sink struct {
	directory *Directory
	source    *recordSource
	// loaded is set after Load. Until then, records are only kept.
	loaded bool
}

// loadSource has a source hand over all of its records.
func (d *Directory) loadSource(ctx context.Context, s *recordSource) (err error) {
	defer source.Recover(s.name, &err)
	timeout := cmp.Or(s.from.Info().LoadTimeout, defaultLoadTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("loading took longer than %s", timeout))
	defer cancel()
	s.sink = &sink{directory: d, source: s}
	err = s.from.Load(ctx, s.sink)
	s.sink.loaded = true
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// Watch has the sources hand over changes until ctx is done.
func (d *Directory) Watch(ctx context.Context) {
	for _, s := range d.sources {
		if s.from != nil {
			go d.watchSource(ctx, s)
		}
	}
}

// watchSource watches a source, which may be a guest module. A panic ends it, and not
// the process.
func (d *Directory) watchSource(ctx context.Context, s *recordSource) {
	watch := func() (err error) {
		defer source.Recover(s.name, &err)
		s.from.Watch(ctx, s.sink)
		return nil
	}
	if err := watch(); err != nil {
		s.sink.Note(err)
	}
}

// Replace implements [Sink].
func (k *sink) Replace(ctx context.Context, records iter.Seq2[Entry, error]) error {
	list := []Record{}
	for e, err := range records {
		var record *Record
		if err == nil {
			record, err = e.parse()
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return k.fail(e.wrap(err))
		}
		list = append(list, *record)
	}
	return k.put(list)
}

// Update implements [Sink].
func (k *sink) Update(_ context.Context, records []Entry) error {
	list := slices.Clone(k.source.records)
	for _, e := range records {
		record, err := e.parse()
		if err != nil {
			return k.fail(e.wrap(err))
		}
		id := e.ID
		if record != nil {
			id = record.ClientID
		}
		list = slices.DeleteFunc(list, func(r Record) bool { return r.ClientID == id })
		if record != nil {
			list = append(list, *record)
		}
	}
	return k.put(list)
}

// Note implements [Sink].
func (k *sink) Note(err error) {
	d, s := k.directory, k.source
	d.mu.Lock()
	reported := err == nil && s.reading == nil || err != nil && s.reading != nil && s.reading.Error() == err.Error()
	s.noteReading(d.config.Now(), err)
	d.mu.Unlock()
	if !reported {
		d.config.report(change{source: s}, err)
	}
}

// put puts the records of the source in force.
func (k *sink) put(list []Record) error {
	if !k.loaded {
		k.source.records = list
		return nil
	}
	d := k.directory
	d.polling.Lock()
	defer d.polling.Unlock()
	now := d.config.Now()
	c := change{source: k.source, records: list}
	p, err := d.use(changes{c})
	if err != nil {
		c.failure = err
		d.noteFailedChange(c)
		return err
	}
	k.source.records = list
	d.commit(p, now)
	d.config.report(c, nil)
	d.apply(nil, now)
	return nil
}

func (k *sink) fail(err error) error {
	if k.loaded {
		k.directory.noteFailedChange(change{source: k.source, failure: err})
	}
	return err
}

// parse parses the record of an entry, which is nil if it has been removed.
func (e *Entry) parse() (*Record, error) {
	if e.Wrong != nil {
		return nil, e.Wrong
	}
	if e.Record == nil {
		if e.ID == "" {
			return nil, errors.New("neither a record nor the client_id of one that has been removed")
		}
		return nil, nil
	}
	if len(e.Record) > maxSourceRecord {
		return nil, fmt.Errorf("it has %d bytes; at most %d are allowed", len(e.Record), maxSourceRecord)
	}
	var record Record
	if err := json.Unmarshal(e.Record, &record); err != nil {
		return nil, err
	}
	if e.ID != "" && e.ID != record.ClientID {
		return nil, fmt.Errorf("its client_id is '%s'", source.Text(record.ClientID, maxClientIDLength))
	}
	return &record, nil
}

// wrap adds where the record is to an error.
func (e *Entry) wrap(err error) error {
	if e.ID != "" {
		err = fmt.Errorf("record '%s': %w", source.Text(e.ID, maxClientIDLength), err)
	}
	if e.Place != "" {
		err = fmt.Errorf("%s: %w", e.Place, err)
	}
	return err
}

// noteUnavailable reports that a source cannot be reached, and that the clients which
// the running configuration has from it are taken over.
func (d *Directory) noteUnavailable(s *recordSource, err error) {
	s.reading = err
	d.config.Logger.Error("client source unavailable; keeping clients of the running configuration",
		zap.String("source", s.label()), zap.String("place", s.name), zap.Error(err))
}

// recordsOf returns the records that the directory has from a source.
func (d *Directory) recordsOf(name string) (records []Record, known bool) {
	if d == nil {
		return nil, false
	}
	d.polling.Lock()
	defer d.polling.Unlock()
	for _, s := range d.sources {
		if s.name == name && s.from != nil {
			return s.records, true
		}
	}
	return nil, false
}
