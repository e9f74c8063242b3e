// Package testenv provides a clock that tests control, and a storage that fails or
// waits on demand.
package testenv

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// Now is the initial time of [NewClock].
var Now = time.Date(2030, 1, 2, 3, 4, 5, 678, time.UTC)

// Clock is a clock that moves only when the test advances it.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that is set to [Now].
func NewClock() *Clock { return NewClockAt(Now) }

// NewClockAt returns a clock that is set to the given time.
func NewClockAt(now time.Time) *Clock { return &Clock{now: now} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Storage is a real storage whose operations tests can make fail or wait. A hook
// runs before its operation; if it returns an error, the operation is not run.
type Storage struct {
	certmagic.Storage
	OnLock, OnUnlock, OnList, OnLoad, OnStore, OnDelete func(ctx context.Context, key string) error

	mu    sync.Mutex
	calls []string
}

// NewStorage returns a file storage in a folder.
func NewStorage(folder string) *Storage {
	return &Storage{Storage: &certmagic.FileStorage{Path: folder}}
}

func (s *Storage) before(ctx context.Context, operation, key string, hook func(context.Context, string) error) error {
	s.mu.Lock()
	s.calls = append(s.calls, operation)
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, key)
}

// Calls returns the operations so far: lock, unlock, list, load, store or delete.
func (s *Storage) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...)
}

// Forget clears the list of operations.
func (s *Storage) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

// Count returns how often an operation was called.
func (s *Storage) Count(operation string) int {
	n := 0
	for _, call := range s.Calls() {
		if call == operation {
			n++
		}
	}
	return n
}

// Lock implements certmagic.Locker.
func (s *Storage) Lock(ctx context.Context, name string) error {
	if err := s.before(ctx, "lock", name, s.OnLock); err != nil {
		return err
	}
	return s.Storage.Lock(ctx, name)
}

// Unlock implements certmagic.Locker.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	if err := s.before(ctx, "unlock", name, s.OnUnlock); err != nil {
		return err
	}
	return s.Storage.Unlock(ctx, name)
}

// List implements certmagic.Storage.
func (s *Storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	if err := s.before(ctx, "list", path, s.OnList); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, path, recursive)
}

// Load implements certmagic.Storage.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.before(ctx, "load", key, s.OnLoad); err != nil {
		return nil, err
	}
	return s.Storage.Load(ctx, key)
}

// Store implements certmagic.Storage.
func (s *Storage) Store(ctx context.Context, key string, value []byte) error {
	if err := s.before(ctx, "store", key, s.OnStore); err != nil {
		return err
	}
	return s.Storage.Store(ctx, key, value)
}

// Delete implements certmagic.Storage.
func (s *Storage) Delete(ctx context.Context, key string) error {
	if err := s.before(ctx, "delete", key, s.OnDelete); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}
