package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

// ownError is a storage that has an error of its own for a lock that was waited for in
// vain.
type ownError struct {
	certmagic.Storage
	attempts int
}

func (s *ownError) Lock(ctx context.Context, _ string) error {
	if s.attempts++; s.attempts == 3 {
		return nil
	}
	<-ctx.Done()
	return errors.New("not obtained")
}

// TestLockWaitsWhateverTheError checks that a lock is waited for as long as ctx allows,
// and not as long as one attempt.
func TestLockWaitsWhateverTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &ownError{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
		if err := (&Lock{Storage: s, Name: "clients", Longest: time.Minute}).Lock(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestLockOfADeadNode checks that a lock whose file goes on being refreshed after its
// holder has died is taken over, but not one that changes hands.
func TestLockOfADeadNode(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		files := &certmagic.FileStorage{Path: folder}
		hold := func(created int) {
			text := fmt.Appendf(nil, `{"created":"2026-01-01T00:00:%02dZ","updated":%q}`, created, time.Now().Add(time.Hour).Format(time.RFC3339))
			if err := os.MkdirAll(filepath.Join(folder, "locks"), 0o700); err != nil {
				t.Fatal(err)
			}
			fresh := filepath.Join(folder, "fresh")
			if err := os.WriteFile(fresh, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(fresh, filepath.Join(folder, "locks", "clients.lock")); err != nil {
				t.Fatal(err)
			}
		}
		lock := &Lock{Storage: files, Name: "clients", Longest: 100 * time.Millisecond}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hold(0)
		var others sync.WaitGroup
		others.Go(func() {
			for created := 0; ctx.Err() == nil; created++ {
				hold(created % 60)
				time.Sleep(10 * time.Millisecond)
			}
		})
		if err := lock.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a lock that others have, one after the other: %v", err)
		}
		others.Wait()

		hold(7)
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := lock.Lock(ctx); err != nil {
			t.Fatalf("the lock of a dead node: %v", err)
		}
		if err := files.Unlock(ctx, "clients"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // until nobody refreshes the lock's file any more
	})
}
