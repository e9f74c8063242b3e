package storagesource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

const (
	// changeTimeout bounds a change, including the wait for the storage lock. File
	// storage takes up to 11 s to release the lock of a process that was killed.
	changeTimeout = 15 * time.Second
	// maxRest bounds how long the storage lock is left to other nodes after a change.
	maxRest = time.Second
)

// errEnded means that the configuration of the source has ended.
var errEnded = fmt.Errorf("%w: the configuration has been replaced; try again", clients.ErrUnavailable)

// change is a change under way. It goes on until storage has answered, because nobody
// else may write before that, but its caller does not wait that long.
type change struct {
	id     string
	decide func(current []byte) (next []byte, err error)
	done   chan error

	mu        sync.Mutex
	left      bool // the caller no longer waits
	committed bool // the index is being stored
}

// Change implements [clients.Writer]. Storage that fails, or does not answer in time, is
// [clients.ErrUnavailable].
func (s *Source) Change(ctx context.Context, id string, decide func(current []byte) (next []byte, err error)) error {
	if err := clients.CheckID(id); err != nil {
		return err
	}
	if s.ended() {
		return errEnded
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := s.writing.lock(ctx); err != nil {
		return fmt.Errorf("%w: another change has not ended: %w", clients.ErrUnavailable, err)
	}
	c := &change{id: id, decide: decide, done: make(chan error, 1)}
	go func() {
		defer s.writing.unlock()
		s.run(context.WithoutCancel(ctx), c)
	}()
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return c.leave(ctx.Err())
	}
}

// leave has the change end before it has changed anything, if possible.
func (c *change) leave(cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	if c.committed {
		return &clients.StoredError{Err: fmt.Errorf("%w: storage has not answered yet; the client may have been changed, so read it again: %w", clients.ErrUnavailable, cause)}
	}
	return fmt.Errorf("%w: storage has not answered: %w", clients.ErrUnavailable, cause)
}

// errLeft means that the caller no longer waits.
var errLeft = errors.New("the caller has left")

// next calls decide, unless the caller has left.
func (c *change) next(current []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return nil, errLeft
	}
	return c.decide(current)
}

// commit has the caller learn that the change can no longer be stopped. It fails if the
// caller has left.
func (c *change) commit() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return errLeft
	}
	c.committed = true
	return nil
}

// run carries out a change under the storage lock.
func (s *Source) run(ctx context.Context, c *change) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := s.objects.lock(ctx); err != nil {
		c.done <- err
		return
	}
	locked := time.Now()
	stored, err := s.carryOut(ctx, c)
	c.done <- err
	if stored != nil {
		s.clean(ctx, stored)
	}
	if err := s.objects.unlock(ctx); err != nil {
		s.logger.Error("releasing the lock of the stored clients failed", zap.String("lock", s.objects.folder), zap.Error(err))
	}
	// Storage may look only once a second whether the lock is free. A node that makes
	// one change after the other would leave the others no chance.
	time.Sleep(min(time.Since(locked), maxRest))
}

// stored is a change of a shard that has been stored.
type stored struct {
	shard         string
	before, after *index
}

// carryOut changes the record, and returns what has been stored, if anything.
func (s *Source) carryOut(ctx context.Context, c *change) (*stored, error) {
	if s.ended() {
		return nil, errEnded
	}
	x, err := s.catchUp(ctx)
	if err != nil {
		return nil, err
	}
	name := shardOf(c.id)
	entry, exists := x.Shards[name]
	var lines []line
	if exists {
		if lines, err = s.objects.readShard(ctx, entry.Object); err != nil {
			return nil, fmt.Errorf("the shard of client '%s' cannot be read: %w", c.id, err)
		}
	}
	i, found := slices.BinarySearchFunc(lines, c.id, compareID)
	var current []byte
	if found {
		current = lines[i].text
	}
	next, err := c.next(slices.Clone(current))
	if err != nil {
		return nil, err
	}
	if next != nil {
		if next, err = oneLine(c.id, next); err != nil {
			return nil, err
		}
	}
	if string(next) == string(current) {
		return nil, nil
	}
	if found {
		lines = slices.Delete(lines, i, i+1)
	}
	if next != nil {
		lines = slices.Insert(lines, i, line{c.id, next})
	}
	after, err := s.store(ctx, c, x, name, lines)
	if err != nil {
		return nil, err
	}
	done := &stored{name, x, after}
	return done, s.putInForce(ctx, done, line{c.id, next})
}

// catchUp reads the index, and hands over what other nodes have changed, so that decide
// knows of it. What is not in force because it is wrong does not stop other changes.
func (s *Source) catchUp(ctx context.Context) (*index, error) {
	if err := s.applying.lock(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", clients.ErrUnavailable, err)
	}
	defer s.applying.unlock()
	x, err := s.objects.readIndex(ctx)
	if err == nil {
		err = s.checkExists(x)
	}
	if err != nil {
		return nil, err
	}
	if s.sink == nil {
		return nil, fmt.Errorf("%w: stored clients have not been read yet", clients.ErrUnavailable)
	}
	if err := s.follow(ctx, x); errors.Is(err, clients.ErrUnavailable) || !s.loaded {
		return nil, err
	}
	return x, nil
}

// store stores the lines of a shard, and then the index, which it returns.
func (s *Source) store(ctx context.Context, c *change, x *index, name string, lines []line) (*index, error) {
	if x.Revision == 0 { // so that shards without an index mean that it has been lost
		if err := s.objects.store(ctx, indexName, x.encode()); err != nil {
			return nil, err
		}
	}
	entry := shardEntry{Records: len(lines)}
	if len(lines) > 0 {
		text := encodeShard(lines)
		entry.Object, entry.Bytes = newObjectName(name, x.Revision+1, text), len(text)
		if err := s.objects.store(ctx, entry.Object, text); err != nil {
			return nil, err
		}
	}
	// The lock may have been taken over from a node that was stopped for a while.
	current, err := s.objects.readIndex(ctx)
	switch {
	case err != nil:
		return nil, err
	case current.Revision != x.Revision || current.Shards[name] != x.Shards[name]:
		return nil, fmt.Errorf("%w: another node has taken over the storage lock", clients.ErrUnavailable)
	case s.ended():
		return nil, errEnded
	}
	if err := c.commit(); err != nil {
		return nil, err
	}
	latest := x.with(name, entry)
	if err := s.objects.store(ctx, indexName, latest.encode()); err != nil {
		return nil, &clients.StoredError{Err: fmt.Errorf("%w; the client may have been changed, so read it again", err)}
	}
	return latest, nil
}

// putInForce hands over a record that has been stored, without text if it has been
// removed. It does not depend on other records that are not in force.
func (s *Source) putInForce(ctx context.Context, done *stored, l line) error {
	if err := s.applying.lock(ctx); err != nil {
		return &clients.StoredError{Err: fmt.Errorf("the record has been stored, and will be in force soon: %w", err)}
	}
	defer s.applying.unlock()
	e := clients.Entry{ID: l.id, Record: l.text, Place: s.objects.key(indexName)}
	if err := s.sink.Update(ctx, []clients.Entry{e}); err != nil {
		return &clients.StoredError{Err: fmt.Errorf("the record has been stored, but is not in force: %w", err)}
	}
	s.applied.set(done.shard, l)
	if known := s.applied.shards[done.shard]; known.object == done.before.Shards[done.shard].Object {
		known.object = done.after.Shards[done.shard].Object
	}
	return nil
}

// clean deletes the object that a change has replaced. When the source has changed
// something for the first time, it also deletes what other writers have left behind.
// What it cannot delete does no harm.
func (s *Source) clean(ctx context.Context, done *stored) {
	if replaced := done.before.Shards[done.shard].Object; replaced != "" {
		_ = s.objects.remove(ctx, replaced)
	}
	if s.cleaned {
		return
	}
	names, err := s.objects.list(ctx)
	s.cleaned = err == nil
	for _, name := range names {
		if done.after.superseded(name) {
			_ = s.objects.remove(ctx, name)
		}
	}
}
