// Package storagetest checks that a storage does what the realms of caddy-mtls-auth need
// of it: that nodes which share it see each other's changes, that no change is seen half
// made, and that a lock is held by one node at a time. Storages that do not cannot keep
// signing keys, revoked tokens or clients.
package storagetest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/storage"
)

const (
	// patience is how long the storage may take for something that has nothing to wait
	// for.
	patience = time.Minute
	// takeover is how long the lock of a process that was killed may be held.
	takeover = 5 * time.Minute
)

// Test checks a storage, in folders of its own below mtls/, which it deletes. Each call
// of open must return another handle on the same storage, as another node has it. It is
// also called in a second process, which has the environment of this one; there,
// t.TempDir is another folder.
//
// Test takes about half a minute, and longer if the storage is slow to take over the
// lock of a process that was killed.
func Test(t *testing.T, open func(t *testing.T) certmagic.Storage) {
	holdLock(t, open)
	n := &nodes{one: open(t), two: open(t), test: t.Name(), patience: patience, takeover: takeover}
	results := make([]chan error, len(checks))
	for i, c := range checks {
		results[i] = make(chan error, 1)
		go func() { results[i] <- c.try(n) }()
	}
	for i, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if err := <-results[i]; err != nil {
				t.Errorf("%v\n%s", err, c.why)
			}
		})
	}
}

// Module returns a function for [Test] that opens a storage module of Caddy. The
// configuration is that of `storage` in Caddy's JSON, with the name in `module`. The
// module must have been imported.
func Module(config string) func(t *testing.T) certmagic.Storage {
	return func(t *testing.T) certmagic.Storage {
		t.Helper()
		var named struct {
			Module string `json:"module"`
		}
		var members map[string]json.RawMessage
		for _, into := range []any{&named, &members} {
			if err := json.Unmarshal([]byte(config), into); err != nil {
				t.Fatalf("the configuration %q is not a JSON object: %v", config, err)
			}
		}
		delete(members, "module")
		own, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		t.Cleanup(cancel)
		module, err := ctx.LoadModuleByID("caddy.storage."+named.Module, own)
		if err != nil {
			t.Fatal(err)
		}
		converter, ok := module.(caddy.StorageConverter)
		if !ok {
			t.Fatalf("module caddy.storage.%s is not a storage", named.Module)
		}
		opened, err := converter.CertMagicStorage()
		if err != nil {
			t.Fatal(err)
		}
		return opened
	}
}

// check is something that realms need of a storage.
type check struct {
	name string
	// why says what goes wrong without it.
	why string
	run func(ctx context.Context, n *nodes) error
}

// nodes are two nodes that share the storage.
type nodes struct {
	one, two certmagic.Storage
	// test is the name of the test.
	test string
	// folder is where the check may have objects, and the beginning of the names of its
	// locks.
	folder             string
	patience, takeover time.Duration
}

func (n *nodes) key(name string) string { return path.Join(n.folder, name) }

// try runs the check in a folder of its own, which is deleted.
func (c *check) try(n *nodes) error {
	own := *n
	own.folder = "mtls/storagetest-" + strings.ToLower(rand.Text())
	ctx, cancel := context.WithTimeout(context.Background(), n.takeover+2*n.patience)
	defer cancel()
	_, err := storage.Within(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, c.run(ctx, &own) })
	ctx, cancel = context.WithTimeout(context.Background(), n.patience)
	defer cancel()
	_, _ = storage.Within(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, own.one.Delete(ctx, own.folder) })
	return err
}

// lockName is the environment variable of a process that is to hold a lock, and held is
// what it prints when it does.
const (
	lockName = "MTLS_STORAGETEST_LOCK"
	held     = "storagetest: the lock is held"
)

// holdLock holds a lock until the process is killed, if that is what it was started for.
func holdLock(t *testing.T, open func(t *testing.T) certmagic.Storage) {
	lock := os.Getenv(lockName)
	if lock == "" {
		return
	}
	if err := open(t).Lock(context.Background(), lock); err != nil {
		t.Fatal(err)
	}
	fmt.Println(held)
	time.Sleep(time.Hour)
}

// hold starts a process that runs the same test and holds a lock, and returns what kills
// it.
func (n *nodes) hold(lock string) (kill func() error, err error) {
	parts := strings.Split(n.test, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	command := exec.CommandContext(context.Background(), os.Args[0], "-test.run="+strings.Join(parts, "/"), "-test.timeout=1h") //nolint:gosec // this binary, and the name of the test
	command.Env = append(os.Environ(), lockName+"="+lock)
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	kill = func() error {
		err := command.Process.Kill()
		_ = command.Wait()
		return err
	}
	if err := awaitLine(output, held, n.patience); err != nil {
		_ = kill()
		return nil, fmt.Errorf("a second process could not lock '%s': %w", lock, err)
	}
	return kill, nil
}

// awaitLine waits for a line of the output of a process.
func awaitLine(output io.Reader, line string, limit time.Duration) error {
	found := make(chan error, 1)
	go func() {
		var all strings.Builder
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if strings.Contains(lines.Text(), line) {
				found <- nil
				return
			}
			fmt.Fprintln(&all, lines.Text())
		}
		found <- fmt.Errorf("it prints %q", all.String())
	}()
	select {
	case err := <-found:
		return err
	case <-time.After(limit):
		return errors.New("it has not got the lock")
	}
}
