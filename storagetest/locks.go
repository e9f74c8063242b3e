package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

const (
	// waitTime is how long a check looks whether a lock excludes.
	waitTime = 3 * time.Second
	// keepTime is how long a node may need a lock.
	keepTime = 20 * time.Second
)

// lock locks a name within a limit.
func lock(ctx context.Context, s certmagic.Storage, name string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	if err := s.Lock(ctx, name); err != nil {
		return fmt.Errorf("Lock('%s') fails after %s: %w", name, time.Since(began).Round(time.Millisecond), err)
	}
	return nil
}

func unlock(ctx context.Context, s certmagic.Storage, name string) error {
	if err := s.Unlock(ctx, name); err != nil {
		return fmt.Errorf("Unlock('%s'): %w", name, err)
	}
	return nil
}

// excludes checks that a node does not get a lock that is held within a limit. If it
// gets it after that, it took no notice of its context, or nothing ran for so long that
// nobody kept the lock.
func excludes(ctx context.Context, s certmagic.Storage, name string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	if s.Lock(ctx, name) == nil && ctx.Err() == nil {
		return fmt.Errorf("Lock('%s') succeeds after %s although the lock is held", name, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// locked runs do while a node has a lock.
func (n *nodes) locked(ctx context.Context, s certmagic.Storage, name string, do func() error) error {
	if err := lock(ctx, s, name, n.patience); err != nil {
		return err
	}
	return errors.Join(do(), unlock(ctx, s, name))
}

func checkLockExcludes(ctx context.Context, n *nodes) error {
	name := n.key("clients")
	err := n.locked(ctx, n.one, name, func() error { return excludes(ctx, n.two, name, waitTime) })
	if err != nil {
		return err
	}
	return n.locked(ctx, n.two, name, func() error { return excludes(ctx, n.one, name, waitTime) })
}

func checkLockExcludesItself(ctx context.Context, n *nodes) error {
	name := n.key("clients")
	return n.locked(ctx, n.one, name, func() error { return excludes(ctx, n.one, name, waitTime) })
}

func checkLockWaits(ctx context.Context, n *nodes) error {
	name := n.key("clients")
	got := make(chan error, 1)
	err := n.locked(ctx, n.one, name, func() error {
		go func() { got <- lock(ctx, n.two, name, n.patience) }()
		select {
		case err := <-got:
			return fmt.Errorf("Lock('%s') does not wait until the lock is released: %w", name, err)
		case <-time.After(waitTime):
			return nil
		}
	})
	if err != nil {
		return err
	}
	if err := <-got; err != nil {
		return fmt.Errorf("after Unlock('%s'): %w", name, err)
	}
	return unlock(ctx, n.two, name)
}

func checkLockEnds(ctx context.Context, n *nodes) error {
	name := n.key("clients")
	err := n.locked(ctx, n.one, name, func() error {
		ended := make(chan error, 1)
		go func() { ended <- excludes(ctx, n.two, name, waitTime) }()
		select {
		case err := <-ended:
			return err
		case <-time.After(waitTime + n.patience/4):
			return fmt.Errorf("Lock('%s') has not returned %s after the end of its context", name, n.patience/4)
		}
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(waitTime): // in which nobody may take the lock
	}
	if err := n.locked(ctx, n.one, name, func() error { return nil }); err != nil {
		return fmt.Errorf("after a Lock that ended with its context: %w", err)
	}
	return nil
}

func checkLockKept(ctx context.Context, n *nodes) error {
	name := n.key("clients")
	return n.locked(ctx, n.one, name, func() error { return excludes(ctx, n.two, name, keepTime) })
}

func checkLockNames(ctx context.Context, n *nodes) error {
	return n.locked(ctx, n.one, n.key("clients"), func() error {
		return n.locked(ctx, n.two, n.key("keys"), func() error { return nil })
	})
}

// checkLockedChanges has both nodes add to a number.
func checkLockedChanges(ctx context.Context, n *nodes) error {
	const workers, rounds = 2, 3
	name, key := n.key("clients"), n.key("number")
	add := func(s certmagic.Storage) error {
		text, err := s.Load(ctx, key)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("Load('%s'): %w", key, err)
		}
		number, _ := strconv.Atoi(string(text))
		return stores(ctx, s, key, []byte(strconv.Itoa(number+1)))
	}
	failed := make(chan error, 2*workers)
	var adding sync.WaitGroup
	for _, node := range []certmagic.Storage{n.one, n.two} {
		for range workers {
			adding.Go(func() {
				for range rounds {
					if err := n.locked(ctx, node, name, func() error { return add(node) }); err != nil {
						failed <- err
						return
					}
				}
			})
		}
	}
	adding.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	if err := loads(ctx, n.one, key, []byte(strconv.Itoa(2*workers*rounds))); err != nil {
		return fmt.Errorf("after %d additions under a lock: %w", 2*workers*rounds, err)
	}
	return nil
}

func checkTakeover(ctx context.Context, n *nodes) error {
	name := n.key("clients")
	kill, err := n.hold(name)
	if err != nil {
		return err
	}
	excluded := excludes(ctx, n.one, name, waitTime)
	if err := kill(); err != nil {
		return fmt.Errorf("killing the process that has the lock: %w", err)
	}
	if excluded != nil {
		return fmt.Errorf("in another process; does 'open' open the same storage there? %w", excluded)
	}
	if err := lock(ctx, n.one, name, n.takeover); err != nil {
		return fmt.Errorf("after the process that had it was killed: %w", err)
	}
	return unlock(ctx, n.one, name)
}
