package storagesource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// errReplaced means that objects vanished because the index has changed.
var errReplaced = errors.New("the index has changed")

// replace hands over all records.
func (s *Source) replace(ctx context.Context, x *index) error {
	var (
		applied map[string]*appliedShard
		failed  error // the shard that ended the update
		damaged []error
	)
	all := func(yield func(clients.Entry, error) bool) {
		applied, failed, damaged = make(map[string]*appliedShard, len(x.Shards)), nil, nil
		for shard := range s.objects.readShards(ctx, x, slices.Sorted(maps.Keys(x.Shards))) {
			switch {
			case shard.err == nil:
			case s.objects.isReplaced(ctx, shard):
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
			applied[shard.name] = s.applied.summary(shard)
			for i := range shard.lines {
				if !yield(shard.record(i), nil) {
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
		return &refusal{err}
	}
	s.applied.shards, s.loaded = applied, true
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
		if known := s.applied.shards[name]; known == nil || known.object != shard.Object {
			changed = append(changed, name)
		}
	}
	for name := range s.applied.shards {
		if _, exists := x.Shards[name]; !exists {
			entries = append(entries, s.applied.differences(shardRead{name: name})...)
			applied[name] = nil
		}
	}
	slices.Sort(changed)
	for shard := range s.objects.readShards(ctx, x, changed) {
		switch {
		case shard.err == nil:
			entries = append(entries, s.applied.differences(shard)...)
			applied[shard.name] = s.applied.summary(shard)
		case s.objects.isReplaced(ctx, shard):
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
		switch err := s.sink.Update(ctx, entries); {
		case err != nil && ctx.Err() != nil: // which is not a matter of the records
			return fmt.Errorf("%w: %w", clients.ErrUnavailable, context.Cause(ctx))
		case err != nil:
			return &refusal{err}
		}
	}
	for name, shard := range applied {
		if shard == nil {
			delete(s.applied.shards, name)
		} else {
			s.applied.shards[name] = shard
		}
	}
	s.noteRevision(x)
	return joined(damaged)
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
