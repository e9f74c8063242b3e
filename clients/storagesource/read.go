package storagesource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strconv"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// errReplaced means that objects vanished because the index has changed.
var errReplaced = errors.New("the index has changed")

// shardRead is a shard that has been read.
type shardRead struct {
	name  string
	entry shardEntry
	lines []line
	err   error
}

// read reads shards of an index in parallel, and returns them in order. Of those that
// the caller has not taken, only a few are in memory.
func (s *Source) read(ctx context.Context, x *index, names []string) iter.Seq[shardRead] {
	return func(yield func(shardRead) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		queue := make(chan chan shardRead, parallelReads-2)
		go func() {
			defer close(queue)
			for _, name := range names {
				shard := make(chan shardRead, 1)
				select {
				case queue <- shard:
				case <-ctx.Done():
					return
				}
				go func() {
					entry := x.Shards[name]
					lines, err := s.objects.readShard(ctx, entry.Object)
					shard <- shardRead{name, entry, lines, err}
				}()
			}
		}()
		for shard := range queue {
			if !yield(<-shard) {
				return
			}
		}
	}
}

// replace hands over all records.
func (s *Source) replace(ctx context.Context, x *index) error {
	var (
		applied map[string]*appliedShard
		failed  error // the shard that ended the update
		damaged []error
	)
	all := func(yield func(clients.Entry, error) bool) {
		applied, failed, damaged = make(map[string]*appliedShard, len(x.Shards)), nil, nil
		for shard := range s.read(ctx, x, slices.Sorted(maps.Keys(x.Shards))) {
			switch {
			case shard.err == nil:
			case s.isReplaced(ctx, shard):
				failed = errReplaced
			case s.skipBad && errors.Is(shard.err, errDamaged):
				damaged = append(damaged, shard.err)
				continue
			default:
				failed = shard.err
			}
			if failed != nil {
				yield(clients.Entry{}, failed)
				return
			}
			applied[shard.name] = s.summary(shard)
			for i := range shard.lines {
				if !yield(s.entry(shard, i), nil) {
					return
				}
			}
		}
	}
	err := s.sink.Replace(ctx, all)
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return fmt.Errorf("%w: reading stored clients: %w", clients.ErrUnavailable, context.Cause(ctx))
	case err != nil:
		return &refusedError{err}
	}
	s.applied, s.loaded = applied, true
	s.noteRevision(x)
	return joined(damaged)
}

// update hands over the records that have changed.
func (s *Source) update(ctx context.Context, x *index) error {
	var (
		entries []clients.Entry
		damaged []error
		applied = make(map[string]*appliedShard)
		changed []string
	)
	for name, shard := range x.Shards {
		if known := s.applied[name]; known == nil || known.object != shard.Object {
			changed = append(changed, name)
		}
	}
	for name, known := range s.applied {
		if _, exists := x.Shards[name]; !exists {
			entries = append(entries, s.differences(known, shardRead{name: name})...)
			applied[name] = nil
		}
	}
	slices.Sort(changed)
	for shard := range s.read(ctx, x, changed) {
		switch {
		case shard.err == nil:
			entries = append(entries, s.differences(s.applied[shard.name], shard)...)
			applied[shard.name] = s.summary(shard)
		case s.isReplaced(ctx, shard):
			return errReplaced
		case errors.Is(shard.err, errDamaged):
			damaged = append(damaged, shard.err)
		default:
			return shard.err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(entries) > 0 {
		if err := s.sink.Update(ctx, entries); err != nil {
			return &refusedError{err}
		}
	}
	for name, shard := range applied {
		if shard == nil {
			delete(s.applied, name)
		} else {
			s.applied[name] = shard
		}
	}
	s.noteRevision(x)
	return joined(damaged)
}

// isReplaced reports whether a shard could not be read because the index has changed
// since it was read.
func (s *Source) isReplaced(ctx context.Context, shard shardRead) bool {
	if !errors.Is(shard.err, fs.ErrNotExist) {
		return false
	}
	latest, err := s.objects.readIndex(ctx)
	return err == nil && latest.Shards[shard.name] != shard.entry
}

// joined returns the damages as one error, which names a few of them.
func joined(damaged []error) error {
	const most = 3
	if len(damaged) == 0 {
		return nil
	}
	err := errors.Join(damaged[:min(len(damaged), most)]...)
	if more := len(damaged) - most; more > 0 {
		return fmt.Errorf("%w\nand %d more", err, more)
	}
	return err
}

func (s *Source) sum(text []byte) uint64 { return maphash.Bytes(s.seed, text) }

// summary returns what is kept of a shard.
func (s *Source) summary(shard shardRead) *appliedShard {
	a := &appliedShard{object: shard.entry.Object, ids: make([]string, len(shard.lines)), sums: make([]uint64, len(shard.lines))}
	for i, l := range shard.lines {
		a.ids[i], a.sums[i] = l.id, s.sum(l.text)
	}
	return a
}

// entry returns the entry of a record.
func (s *Source) entry(shard shardRead, i int) clients.Entry {
	l := shard.lines[i]
	return clients.Entry{ID: l.id, Record: l.text, Place: s.objects.key(shard.entry.Object) + " line " + strconv.Itoa(i+1)}
}

// differences returns the records of a shard that the sink does not have, or has and
// must not.
func (s *Source) differences(known *appliedShard, shard shardRead) (entries []clients.Entry) {
	if known == nil {
		known = new(appliedShard)
	}
	removed := func(id string) { entries = append(entries, clients.Entry{ID: id, Place: s.objects.key(indexName)}) }
	k := 0
	for i, l := range shard.lines {
		for k < len(known.ids) && known.ids[k] < l.id {
			removed(known.ids[k])
			k++
		}
		if k < len(known.ids) && known.ids[k] == l.id {
			k++
			if known.sums[k-1] == s.sum(l.text) {
				continue
			}
		}
		e := s.entry(shard, i)
		e.Record = bytes.Clone(e.Record) // the rest of the shard is not kept
		entries = append(entries, e)
	}
	for ; k < len(known.ids); k++ {
		removed(known.ids[k])
	}
	return entries
}

// set notes that the sink has got a record, without text if it was removed.
func (s *Source) set(shard string, l line) {
	known := s.applied[shard]
	if known == nil {
		known = new(appliedShard)
		s.applied[shard] = known
	}
	i, found := slices.BinarySearch(known.ids, l.id)
	switch {
	case l.text == nil && found:
		known.ids, known.sums = slices.Delete(known.ids, i, i+1), slices.Delete(known.sums, i, i+1)
	case l.text != nil && found:
		known.sums[i] = s.sum(l.text)
	case l.text != nil:
		known.ids, known.sums = slices.Insert(known.ids, i, l.id), slices.Insert(known.sums, i, s.sum(l.text))
	}
}
