package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

const (
	// largeValue is more than a shard of a million clients has.
	largeValue = 1 << 20
	// manyObjects is more than a page of the lists of object stores.
	manyObjects   = 1100
	parallelCalls = 16
	// raceTime is how long readers look whether they see a change half made, and raceChanges
	// how many changes there are at least: storage may be slow.
	raceTime    = 3 * time.Second
	raceChanges = 20
)

// checks are what realms need of a storage.
var checks = []check{
	{"values", "Signing keys, revoked tokens and clients would be damaged.", checkValues},
	{"large values", "With clients_from storage, an object has about 400 bytes for each thousand clients and byte of a client: 400 KB with a million clients. A smaller limit of the storage limits the clients.", checkLargeValues},
	{"replacing is atomic", "A node would read half a change. It would report damaged clients, and keep those it had.", checkReplace},
	{"a change is seen by other nodes at once", "A node would decide about a change by what was in storage before the one of another node, and undo that.", checkReadAfterWrite},
	{"missing objects", "A realm would not start with a new storage, or take one that fails for an empty one and create new signing keys.", checkMissing},
	{"deleting", "Old objects would stay for ever, or current ones would be deleted.", checkDelete},
	{"listing", "Signing keys or revoked tokens would be overlooked.", checkList},
	{"listing many objects", "Revoked tokens would be overlooked, and would be accepted again after a restart.", checkListMany},
	{"names", "Objects would replace one another.", checkNames},
	{"a lock excludes other nodes", "Two nodes would change clients or keys at the same time, and one change would be lost.", checkLockExcludes},
	{"a lock excludes the node that has it", "Two changes at the same node would be made at the same time, and one would be lost.", checkLockExcludesItself},
	{"a lock is waited for", "A change would fail because another one is under way.", checkLockWaits},
	{"waiting for a lock ends with its context", "A node would hang, or leave a lock behind that nobody releases.", checkLockEnds},
	{"a lock is kept while it is needed", "A slow change would lose its lock, and undo another one.", checkLockKept},
	{"locks have names", "A change of clients would wait for Caddy to get a certificate.", checkLockNames},
	{"nothing is lost under locks", "A change would be lost.", checkLockedChanges},
	{"the lock of a dead process is taken over", "After a crash, nobody could change clients or keys any more.", checkTakeover},
}

// loads checks that a node reads a value.
func loads(ctx context.Context, s certmagic.Storage, key string, want []byte) error {
	got, err := s.Load(ctx, key)
	if err != nil {
		return fmt.Errorf("Load('%s'): %w", key, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("Load('%s') returns %d bytes beginning with %.20q; %d bytes beginning with %.20q were stored", key, len(got), got, len(want), want)
	}
	return nil
}

func stores(ctx context.Context, s certmagic.Storage, key string, value []byte) error {
	if err := s.Store(ctx, key, value); err != nil {
		return fmt.Errorf("Store('%s') of %d bytes: %w", key, len(value), err)
	}
	return nil
}

// roundTrip stores a value with one node, and reads it with both.
func (n *nodes) roundTrip(ctx context.Context, key string, value []byte) error {
	if err := stores(ctx, n.one, key, value); err != nil {
		return err
	}
	return errors.Join(loads(ctx, n.one, key, value), loads(ctx, n.two, key, value))
}

func checkValues(ctx context.Context, n *nodes) error {
	octets := make([]byte, 256)
	for i := range octets {
		octets[i] = byte(i)
	}
	for _, value := range []string{"{}\n", " \r\n spaces \r\n", string(octets), "\x00", "\xff\xfe", "short", "a longer one", "short"} {
		if err := n.roundTrip(ctx, n.key("value.json"), []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

func checkLargeValues(ctx context.Context, n *nodes) error {
	value := make([]byte, largeValue)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(value)
	return n.roundTrip(ctx, n.key("large"), value)
}

// checkReplace has readers look at a value that is replaced all the time.
func checkReplace(ctx context.Context, n *nodes) error {
	key := n.key("index.json")
	values := [2][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 60_000)}
	if err := stores(ctx, n.one, key, values[0]); err != nil {
		return err
	}
	var working sync.WaitGroup
	var changes atomic.Int64
	failed := make(chan error, 4)
	began := time.Now()
	goesOn := func() bool {
		return time.Since(began) < raceTime || changes.Load() < raceChanges && len(failed) == 0 && ctx.Err() == nil
	}
	work := func(do func(round int) error) {
		working.Go(func() {
			for round := 0; goesOn(); round++ {
				if err := do(round); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	for i, node := range []certmagic.Storage{n.one, n.two} {
		work(func(round int) error {
			defer changes.Add(1)
			return stores(ctx, node, key, values[(round+i)%2])
		})
		work(func(int) error {
			got, err := node.Load(ctx, key)
			if err != nil {
				return fmt.Errorf("Load('%s') while it is replaced: %w", key, err)
			}
			if !bytes.Equal(got, values[0]) && !bytes.Equal(got, values[1]) {
				return fmt.Errorf("Load('%s') returns %d bytes beginning with %.20q, which were never stored", key, len(got), got)
			}
			return nil
		})
	}
	working.Wait()
	close(failed)
	return <-failed
}

func checkReadAfterWrite(ctx context.Context, n *nodes) error {
	key := n.key("index.json")
	writer, reader := n.one, n.two
	for round := range 20 {
		value := fmt.Appendf(nil, "revision %d", round)
		if err := stores(ctx, writer, key, value); err != nil {
			return err
		}
		if err := loads(ctx, reader, key, value); err != nil {
			return fmt.Errorf("on another node: %w", err)
		}
		writer, reader = reader, writer
	}
	if err := writer.Delete(ctx, key); err != nil {
		return fmt.Errorf("Delete('%s'): %w", key, err)
	}
	if _, err := reader.Load(ctx, key); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("on another node, Load('%s') returns the error '%v' after Delete; it must be fs.ErrNotExist", key, err)
	}
	return nil
}

func checkMissing(ctx context.Context, n *nodes) error {
	for _, key := range []string{n.key("nothing.json"), n.key("no/such/folder/nothing.json")} {
		if value, err := n.one.Load(ctx, key); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("Load('%s') of a missing object returns %q and the error '%v'; it must be fs.ErrNotExist", key, value, err)
		}
		if n.one.Exists(ctx, key) {
			return fmt.Errorf("Exists('%s') is true for a missing object", key)
		}
		if err := n.one.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("Delete('%s') of a missing object: %w", key, err)
		}
		if names, err := n.one.List(ctx, path.Dir(key), false); len(names) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("List('%s') of a missing folder returns %q and the error '%v'; it must be nothing, or fs.ErrNotExist", path.Dir(key), names, err)
		}
	}
	key := n.key("something.json")
	if err := stores(ctx, n.one, key, []byte("x")); err != nil {
		return err
	}
	if !n.two.Exists(ctx, key) {
		return fmt.Errorf("Exists('%s') is false although the object exists", key)
	}
	return nil
}

func checkDelete(ctx context.Context, n *nodes) error {
	gone, stays := n.key("a.json"), []string{n.key("a.json2"), n.key("a"), n.key("b.json")}
	for _, key := range append(stays, gone) {
		if err := stores(ctx, n.one, key, []byte(key)); err != nil {
			return err
		}
	}
	if err := n.one.Delete(ctx, gone); err != nil {
		return fmt.Errorf("Delete('%s'): %w", gone, err)
	}
	if _, err := n.one.Load(ctx, gone); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("Load('%s') returns the error '%v' after Delete; it must be fs.ErrNotExist", gone, err)
	}
	for _, key := range stays {
		if err := loads(ctx, n.one, key, []byte(key)); err != nil {
			return fmt.Errorf("after Delete('%s'): %w", gone, err)
		}
	}
	return nil
}

// checkList looks for the keys in a folder. That a list has keys of other folders too
// does no harm.
func checkList(ctx context.Context, n *nodes) error {
	folder := n.key("keys")
	want := []string{path.Join(folder, "a.json"), path.Join(folder, "b-1.retired")}
	gone := path.Join(folder, "gone.json")
	for _, key := range append(want, gone) {
		if err := stores(ctx, n.one, key, []byte("x")); err != nil {
			return err
		}
	}
	if err := n.one.Delete(ctx, gone); err != nil {
		return fmt.Errorf("Delete('%s'): %w", gone, err)
	}
	for _, node := range []certmagic.Storage{n.one, n.two} {
		got, err := node.List(ctx, folder, false)
		if err != nil {
			return fmt.Errorf("List('%s'): %w", folder, err)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("List('%s') returns %q; it must be the keys %q", folder, got, want)
		}
	}
	return nil
}

func checkListMany(ctx context.Context, n *nodes) error {
	folder := n.key("revocations")
	queue, failed := make(chan string), make(chan error, parallelCalls)
	var storing sync.WaitGroup
	for range parallelCalls {
		storing.Go(func() {
			for key := range queue {
				if err := stores(ctx, n.one, key, []byte("{}")); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	for i := range manyObjects {
		select {
		case queue <- path.Join(folder, fmt.Sprintf("%d.json", i)):
		case err := <-failed:
			return err
		}
	}
	close(queue)
	storing.Wait()
	got, err := n.two.List(ctx, folder, false)
	if err != nil {
		return fmt.Errorf("List('%s'): %w", folder, err)
	}
	slices.Sort(got)
	if got := len(slices.Compact(got)); got != manyObjects {
		return fmt.Errorf("List('%s') returns %d of %d keys", folder, got, manyObjects)
	}
	return nil
}

// checkNames stores objects with names of all kinds that realms use, some of which
// differ in one character.
func checkNames(ctx context.Context, n *nodes) error {
	realm := strings.Repeat("a-1", 21) // as long as a realm's name may be
	hash := strings.Repeat("0123456789abcdef", 4)
	names := []string{
		realm + "/clients/index.json", realm + "/clients/3ff-18446744073709551615-" + hash[:32] + ".jsonl",
		realm + "/keys/" + hash[:43] + ".json", realm + "/keys/" + hash[:43] + ".retired", realm + "/jwks.json",
		realm + "/revocations/4102444800-" + hash + "-" + hash + ".json", realm + "/revocations/4102444800-" + hash + "-until-4102444800.json",
		"a-b/jwks.json", "a/b/jwks.json", "ab/jwks.json", "a-b.json", "a_b.json", "a.b.json", "ab.json",
	}
	for _, name := range names {
		if err := stores(ctx, n.one, n.key(name), []byte(name)); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := loads(ctx, n.two, n.key(name), []byte(name)); err != nil {
			return err
		}
	}
	return nil
}
