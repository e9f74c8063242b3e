package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// broken is a file storage of which one thing can be broken.
type broken struct {
	certmagic.FileStorage
	store  func(ctx context.Context, key string, value []byte) error
	load   func(ctx context.Context, key string) ([]byte, error)
	remove func(ctx context.Context, key string) error
	exists func(ctx context.Context, key string) bool
	list   func(ctx context.Context, folder string, recursive bool) ([]string, error)
	lock   func(ctx context.Context, name string) error
	unlock func(ctx context.Context, name string) error
}

func newBroken(root string, damage func(*broken)) *broken {
	b := &broken{FileStorage: certmagic.FileStorage{Path: root}}
	b.store, b.load, b.remove = b.FileStorage.Store, b.FileStorage.Load, b.FileStorage.Delete
	b.exists, b.list, b.lock, b.unlock = b.FileStorage.Exists, b.FileStorage.List, b.FileStorage.Lock, b.FileStorage.Unlock
	damage(b)
	return b
}

func (b *broken) Store(ctx context.Context, key string, value []byte) error {
	return b.store(ctx, key, value)
}
func (b *broken) Load(ctx context.Context, key string) ([]byte, error) { return b.load(ctx, key) }
func (b *broken) Delete(ctx context.Context, key string) error         { return b.remove(ctx, key) }
func (b *broken) Exists(ctx context.Context, key string) bool          { return b.exists(ctx, key) }
func (b *broken) Lock(ctx context.Context, name string) error          { return b.lock(ctx, name) }
func (b *broken) Unlock(ctx context.Context, name string) error        { return b.unlock(ctx, name) }
func (b *broken) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	return b.list(ctx, folder, recursive)
}

// listed has the keys of a list changed.
func (b *broken) listed(change func(keys []string) []string) {
	b.list = func(ctx context.Context, folder string, recursive bool) ([]string, error) {
		keys, err := b.FileStorage.List(ctx, folder, recursive)
		return change(keys), err
	}
}

// keyed has other keys used.
func (b *broken) keyed(other func(string) string) {
	b.store = func(ctx context.Context, key string, value []byte) error {
		return b.FileStorage.Store(ctx, other(key), value)
	}
	b.load = func(ctx context.Context, key string) ([]byte, error) { return b.FileStorage.Load(ctx, other(key)) }
}

var errBroken = errors.New("broken")

// breaks are ways to break a storage, by the check that finds them.
var breaks = map[string]map[string]func(*broken){
	"values": {
		"trims": func(b *broken) {
			b.store = func(ctx context.Context, key string, value []byte) error {
				return b.FileStorage.Store(ctx, key, bytes.TrimSpace(value))
			}
		},
		"keeps text only": func(b *broken) {
			b.load = func(ctx context.Context, key string) ([]byte, error) {
				value, err := b.FileStorage.Load(ctx, key)
				return bytes.ToValidUTF8(value, []byte("?")), err
			}
		},
		"does not truncate": func(b *broken) {
			b.store = func(ctx context.Context, key string, value []byte) error {
				before, _ := b.FileStorage.Load(ctx, key)
				return b.FileStorage.Store(ctx, key, append(value, before[min(len(before), len(value)):]...))
			}
		},
	},
	"large values": {
		"has a limit": func(b *broken) {
			b.store = func(ctx context.Context, key string, value []byte) error {
				if len(value) > 512<<10 {
					return errBroken
				}
				return b.FileStorage.Store(ctx, key, value)
			}
		},
	},
	"replacing is atomic": {
		"stores in two steps": func(b *broken) {
			b.store = func(ctx context.Context, key string, value []byte) error {
				if err := b.FileStorage.Store(ctx, key, value[:len(value)/2]); err != nil {
					return err
				}
				time.Sleep(10 * time.Millisecond)
				return b.FileStorage.Store(ctx, key, value)
			}
		},
		"deletes first": func(b *broken) {
			b.store = func(ctx context.Context, key string, value []byte) error {
				if err := b.FileStorage.Delete(ctx, key); err != nil {
					return err
				}
				time.Sleep(10 * time.Millisecond)
				return b.FileStorage.Store(ctx, key, value)
			}
		},
	},
	"a change is seen by other nodes at once": {
		"remembers": func(b *broken) {
			var mu sync.Mutex
			known := make(map[string][]byte)
			b.load = func(ctx context.Context, key string) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				if value, ok := known[key]; ok {
					return value, nil
				}
				value, err := b.FileStorage.Load(ctx, key)
				if err == nil {
					known[key] = value
				}
				return value, err
			}
		},
		"stores later": func(b *broken) {
			b.store = func(ctx context.Context, key string, value []byte) error {
				time.AfterFunc(50*time.Millisecond, func() { _ = b.FileStorage.Store(ctx, key, value) })
				return nil
			}
		},
	},
	"missing objects": {
		"loads nothing": func(b *broken) {
			b.load = func(ctx context.Context, key string) ([]byte, error) {
				value, _ := b.FileStorage.Load(ctx, key)
				return value, nil
			}
		},
		"has another error": func(b *broken) {
			b.load = func(ctx context.Context, key string) ([]byte, error) {
				value, err := b.FileStorage.Load(ctx, key)
				if err != nil {
					err = errBroken
				}
				return value, err
			}
		},
		"says that all exist": func(b *broken) { b.exists = func(context.Context, string) bool { return true } },
		"says that none exist": func(b *broken) {
			b.exists = func(context.Context, string) bool { return false }
		},
		"cannot delete them": func(b *broken) {
			b.remove = func(ctx context.Context, key string) error {
				if !b.FileStorage.Exists(ctx, key) {
					return errBroken
				}
				return b.FileStorage.Delete(ctx, key)
			}
		},
		"cannot list their folder": func(b *broken) {
			b.list = func(ctx context.Context, folder string, recursive bool) ([]string, error) {
				keys, err := b.FileStorage.List(ctx, folder, recursive)
				if err != nil {
					err = errBroken
				}
				return keys, err
			}
		},
	},
	"deleting": {
		"does not": func(b *broken) { b.remove = func(context.Context, string) error { return nil } },
		"goes by the beginning": func(b *broken) {
			b.remove = func(ctx context.Context, key string) error {
				files, err := filepath.Glob(b.Filename(key) + "*")
				for _, file := range files {
					err = errors.Join(err, os.Remove(file))
				}
				return err
			}
		},
	},
	"listing": {
		"has names instead of keys": func(b *broken) {
			b.listed(func(keys []string) []string {
				for i := range keys {
					keys[i] = path.Base(keys[i])
				}
				return keys
			})
		},
		"lacks some": func(b *broken) { b.listed(func(keys []string) []string { return keys[min(1, len(keys)):] }) },
		"is empty":   func(b *broken) { b.listed(func([]string) []string { return nil }) },
		"has what was deleted": func(b *broken) {
			b.list = func(ctx context.Context, folder string, recursive bool) ([]string, error) {
				keys, err := b.FileStorage.List(ctx, folder, recursive)
				return append(keys, folder+"/gone.json"), err
			}
		},
	},
	"listing many objects": {
		"is one page": func(b *broken) {
			b.listed(func(keys []string) []string { return keys[:min(len(keys), 1000)] })
		},
	},
	"names": {
		"dots and hyphens are one": func(b *broken) { b.keyed(strings.NewReplacer("-", ".", "_", ".").Replace) },
		"slashes are hyphens":      func(b *broken) { b.keyed(func(key string) string { return strings.ReplaceAll(key, "/", "-") }) },
		"names are cut": func(b *broken) {
			b.keyed(func(key string) string {
				return path.Join(path.Dir(key), path.Base(key)[:min(50, len(path.Base(key)))])
			})
		},
	},
	"a lock excludes other nodes": {
		"is none": noLock,
		"excludes one node only": func(b *broken) { // as a mutex does
			held := make(chan struct{}, 1)
			b.lock = func(ctx context.Context, _ string) error {
				select {
				case held <- struct{}{}:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			b.unlock = func(context.Context, string) error { <-held; return nil }
		},
	},
	"a lock excludes the node that has it": {
		"is re-entrant": func(b *broken) {
			var mu sync.Mutex
			has := 0
			b.lock = func(ctx context.Context, name string) error {
				mu.Lock()
				defer mu.Unlock()
				if has++; has > 1 {
					return nil
				}
				return b.FileStorage.Lock(ctx, name)
			}
			b.unlock = func(ctx context.Context, name string) error {
				mu.Lock()
				defer mu.Unlock()
				if has--; has > 0 {
					return nil
				}
				return b.FileStorage.Unlock(ctx, name)
			}
		},
	},
	"a lock is waited for": {
		"fails": func(b *broken) {
			b.lock = func(ctx context.Context, name string) error {
				ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
				return b.FileStorage.Lock(ctx, name)
			}
		},
		"is not released": func(b *broken) { b.unlock = func(context.Context, string) error { return nil } },
	},
	"waiting for a lock ends with its context": {
		"does not": func(b *broken) {
			b.lock = func(_ context.Context, name string) error {
				return b.FileStorage.Lock(context.Background(), name)
			}
		},
		"gets it later": func(b *broken) {
			b.lock = func(ctx context.Context, name string) error {
				got := make(chan error, 1)
				go func() { got <- b.FileStorage.Lock(context.Background(), name) }()
				select {
				case err := <-got:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
	},
	"a lock is kept while it is needed": {
		"expires": func(b *broken) {
			b.lock = func(ctx context.Context, name string) error {
				if err := b.FileStorage.Lock(ctx, name); err != nil {
					return err
				}
				time.AfterFunc(5*time.Second, func() { _ = b.FileStorage.Unlock(ctx, name) })
				return nil
			}
		},
	},
	"locks have names": {
		"are one": func(b *broken) {
			b.lock = func(ctx context.Context, _ string) error { return b.FileStorage.Lock(ctx, "one") }
			b.unlock = func(ctx context.Context, _ string) error { return b.FileStorage.Unlock(ctx, "one") }
		},
	},
	"nothing is lost under locks": {
		"are none": func(b *broken) {
			noLock(b)
			b.store = func(ctx context.Context, key string, value []byte) error {
				time.Sleep(10 * time.Millisecond)
				return b.FileStorage.Store(ctx, key, value)
			}
		},
	},
	"the lock of a dead process is taken over": {
		"is not": func(b *broken) {
			b.lock = func(ctx context.Context, name string) error {
				for {
					folder := b.Filename("held-" + strings.ReplaceAll(name, "/", "-"))
					if err := os.Mkdir(folder, 0o700); !errors.Is(err, fs.ErrExist) {
						return err
					}
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(10 * time.Millisecond):
					}
				}
			}
		},
		"is in the process": noLock,
	},
}

func noLock(b *broken) {
	b.lock = func(context.Context, string) error { return nil }
	b.unlock = b.lock
}

// TestBrokenStorageIsFound: each check finds what it is for.
func TestBrokenStorageIsFound(t *testing.T) {
	t.Parallel()
	for _, c := range checks {
		if len(breaks[c.name]) == 0 {
			t.Errorf("no storage is broken for '%s'", c.name)
		}
	}
	results := make(map[string]chan error)
	for name, ways := range breaks {
		i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
		if i < 0 {
			t.Errorf("there is no check '%s'", name)
			continue
		}
		for way, damage := range ways {
			found := make(chan error, 1)
			results[name+" "+way] = found
			t.Run(name+" "+way, func(t *testing.T) {
				root := folder(t)
				if err := os.MkdirAll(root, 0o700); err != nil {
					t.Fatal(err)
				}
				open := func(*testing.T) certmagic.Storage { return newBroken(root, damage) }
				holdLock(t, open)
				n := &nodes{one: open(t), two: open(t), test: t.Name(), patience: 8 * time.Second, takeover: 15 * time.Second}
				go func() { found <- checks[i].try(n) }() // they all wait most of the time
			})
		}
	}
	for name, found := range results {
		err := <-found
		t.Logf("%s: %v", name, err)
		if err == nil {
			t.Errorf("'%s' is not found", name)
		}
	}
}
