package storage

import (
	"context"
	"encoding/json"
	"path"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// lockAttempt is how often a [Lock] that waits looks who has the lock.
const lockAttempt = 2 * time.Second

// Lock is a lock in storage that nobody holds for long.
//
// File storage has each holder of a lock refresh the lock's file every few seconds, and
// takes a file that is no longer refreshed for that of a process that has died. But a
// holder stops refreshing only when it finds no file. If it has released the lock, and
// another process has taken it meanwhile, it goes on with that one's file, even after
// that process has died. Nobody would ever get the lock again. So a Lock that has seen
// the same holder for too long releases the lock itself.
type Lock struct {
	Storage certmagic.Storage
	Name    string
	// Longest is how long the lock is held at most.
	Longest time.Duration

	mu     sync.Mutex
	holder string // that was seen last
	since  time.Time
}

// Lock takes the lock. It waits until ctx is done.
func (l *Lock) Lock(ctx context.Context) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, min(lockAttempt, l.Longest))
		err := l.Storage.Lock(attempt, l.Name)
		waited := attempt.Err() != nil // whatever error the storage has for that
		cancel()
		if err == nil || ctx.Err() != nil || !waited {
			return err
		}
		if l.abandoned(ctx) {
			if err := l.Storage.Unlock(ctx, l.Name); err != nil {
				return err
			}
		}
	}
}

// abandoned reports whether the same holder has had the lock for too long, by the clock
// of this node. Only the file of a file storage tells who has it.
func (l *Lock) abandoned(ctx context.Context) bool {
	text, err := l.Storage.Load(ctx, path.Join("locks", certmagic.StorageKeys.Safe(l.Name)+".lock"))
	var file struct {
		Created string `json:"created"`
	}
	if err != nil || json.Unmarshal(text, &file) != nil || file.Created == "" {
		return false // it is being written, or the storage has no such files
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if file.Created != l.holder {
		l.holder, l.since = file.Created, time.Now()
	}
	return time.Since(l.since) > l.Longest
}
