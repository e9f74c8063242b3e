package storagesource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/storage"
)

const (
	// readTimeout bounds the reading of one object.
	readTimeout = 10 * time.Second
	// parallelReads bounds the objects that are read at the same time, those that
	// storage never answered for included.
	parallelReads = 16
	unlockTimeout = 5 * time.Second
	// longestLock is longer than any change holds the lock.
	longestLock = changeTimeout + unlockTimeout + 5*time.Second

	indexName = "index.json"
)

// objects are the objects of a realm's clients in storage. Its errors wrap
// [clients.ErrUnavailable] unless they say that an object does not exist. A panic of
// the storage module is an error.
type objects struct {
	storage certmagic.Storage
	folder  string
	reading chan struct{} // has an element for each read under way
	locking *storage.Lock
}

func newObjects(s certmagic.Storage, realm string) *objects {
	folder := path.Join("mtls", certmagic.StorageKeys.Safe(realm), "clients")
	return &objects{s, folder, make(chan struct{}, parallelReads), &storage.Lock{Storage: s, Name: folder, Longest: longestLock}}
}

func (o *objects) key(name string) string { return path.Join(o.folder, name) }

// failed returns the error of an operation.
func (o *objects) failed(operation, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s '%s' in storage: %w", clients.ErrUnavailable, operation, o.key(name), err)
}

// load returns the text of an object, or [fs.ErrNotExist].
func (o *objects) load(ctx context.Context, name string) ([]byte, error) {
	text, err := read(ctx, o, func(ctx context.Context) ([]byte, error) { return o.storage.Load(ctx, o.key(name)) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	return text, o.failed("reading", name, err)
}

// list returns the names of all objects.
func (o *objects) list(ctx context.Context) ([]string, error) {
	keys, err := read(ctx, o, func(ctx context.Context) ([]string, error) { return storage.List(ctx, o.storage, o.folder) })
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = path.Base(key)
	}
	return names, o.failed("listing", "", err)
}

// read returns what an operation that changes nothing returns. It returns when ctx is
// done, whether or not storage answers.
func read[T any](ctx context.Context, o *objects, operation func(context.Context) (T, error)) (result T, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	select {
	case o.reading <- struct{}{}:
	case <-ctx.Done():
		return result, fmt.Errorf("storage does not answer: %w", ctx.Err())
	}
	return storage.Within(ctx, func(ctx context.Context) (T, error) {
		defer func() { <-o.reading }()
		return operation(ctx)
	})
}

// The other operations change something, so that nothing may follow them before they
// have ended. They take as long as storage takes.

func (o *objects) store(ctx context.Context, name string, text []byte) (err error) {
	defer func() { err = o.failed("writing", name, err) }()
	defer source.Recover("storage", &err)
	return o.storage.Store(ctx, o.key(name), text)
}

func (o *objects) remove(ctx context.Context, name string) (err error) {
	defer func() { err = o.failed("deleting", name, err) }()
	defer source.Recover("storage", &err)
	return o.storage.Delete(ctx, o.key(name))
}

func (o *objects) lock(ctx context.Context) (err error) {
	defer func() { err = o.failed("locking", "", err) }()
	defer source.Recover("storage", &err)
	return o.locking.Lock(ctx)
}

// unlock releases the lock even if ctx is done, because a lock that is left behind
// stops every other node.
func (o *objects) unlock(ctx context.Context) (err error) {
	defer source.Recover("storage", &err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	return o.storage.Unlock(ctx, o.folder)
}

// readIndex returns the index. If there is none, it returns an empty one, unless there
// are shards.
func (o *objects) readIndex(ctx context.Context) (*index, error) {
	text, err := o.load(ctx, indexName)
	if errors.Is(err, fs.ErrNotExist) {
		shard, listErr := o.anyShard(ctx)
		if listErr != nil {
			return nil, listErr
		}
		if shard == "" {
			return &index{Format: formatVersion, Shards: make(map[string]shardEntry)}, nil
		}
		// the first client may have been stored meanwhile
		if text, err = o.load(ctx, indexName); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: '%s' is missing, but there are shards, such as '%s'; restore it from a backup", errDamaged, o.key(indexName), shard)
		}
	}
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("%w: '%s': %w", errDamaged, o.key(indexName), err)
	}
	return x, nil
}

// anyShard returns the name of one of the shards, "" if there are none.
func (o *objects) anyShard(ctx context.Context) (string, error) {
	names, err := o.list(ctx)
	if i := slices.IndexFunc(names, objectName.MatchString); i >= 0 {
		return names[i], err
	}
	return "", err
}

// readShard returns the records in an object. Its error wraps [fs.ErrNotExist] if the
// object does not exist, as happens when it has been replaced.
func (o *objects) readShard(ctx context.Context, name string) ([]line, error) {
	text, err := o.load(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: '%s' is missing; restore it from a backup of the same time as '%s': %w", errDamaged, o.key(name), indexName, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	lines, err := parseShard(name, text)
	if err != nil {
		return nil, fmt.Errorf("in '%s': %w", o.folder, err)
	}
	return lines, nil
}

// shardRead is a shard that has been read.
type shardRead struct {
	name  string
	entry shardEntry
	place string
	lines []line
	err   error
}

// record returns the entry of a record.
func (s *shardRead) record(i int) clients.Entry {
	l := s.lines[i]
	return clients.Entry{ID: l.id, Record: l.text, Place: s.place + " line " + strconv.Itoa(i+1)}
}

// readShards reads shards of an index in parallel, and returns them in order. Of those that
// the caller has not taken, only a few are in memory.
func (o *objects) readShards(ctx context.Context, x *index, names []string) iter.Seq[shardRead] {
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
					lines, err := o.readShard(ctx, entry.Object)
					shard <- shardRead{name, entry, o.key(entry.Object), lines, err}
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

// isReplaced reports whether a shard could not be read because the index has changed
// since it was read.
func (o *objects) isReplaced(ctx context.Context, shard shardRead) bool {
	if !errors.Is(shard.err, fs.ErrNotExist) {
		return false
	}
	latest, err := o.readIndex(ctx)
	return err == nil && latest.Shards[shard.name] != shard.entry
}
