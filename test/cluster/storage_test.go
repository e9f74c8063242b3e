package cluster_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"

	mtlsauth "github.com/caddymtls/caddy-mtls-auth"
)

func init() { caddy.RegisterModule(new(faulty)) }

// faulty is Caddy's file storage with what a test makes go wrong. A file says what
// that is at the moment: "read-only", "slow" and how long each operation takes, or
// "hangs" as long as it says so. It also sets the clock of the realm that it is the
// storage of.
type faulty struct {
	certmagic.FileStorage
	Folder string         `json:"folder"`
	Fault  string         `json:"fault"`
	Clock  caddy.Duration `json:"clock"`
}

var errReadOnly = &fs.PathError{Op: "open", Path: "storage", Err: errors.New("read-only file system")}

// CaddyModule returns the module's ID.
func (*faulty) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.faulty", New: func() caddy.Module { return new(faulty) }}
}

// UnmarshalCaddyfile reads `faulty <folder> <fault-file> <clock-offset>`.
func (f *faulty) UnmarshalCaddyfile(d *caddyfile.Dispenser) (err error) {
	d.Next()
	var clock string
	if !d.Args(&f.Folder, &f.Fault, &clock) {
		return d.ArgErr()
	}
	offset, err := time.ParseDuration(clock)
	f.Clock = caddy.Duration(offset)
	return err
}

// Provision sets the clock. Nothing has read it by then.
func (f *faulty) Provision(ctx caddy.Context) error {
	f.FileStorage.Path = f.Folder
	app, err := ctx.AppIfConfigured("mtls")
	if err != nil {
		return err
	}
	app.(*mtlsauth.App).Now = func() time.Time { return time.Now().Add(time.Duration(f.Clock)) }
	return nil
}

// CertMagicStorage implements caddy.StorageConverter.
func (f *faulty) CertMagicStorage() (certmagic.Storage, error) { return f, nil }

// suffer does what the fault demands of an operation.
func (f *faulty) suffer(ctx context.Context, writes bool) error {
	for {
		text, _ := os.ReadFile(f.Fault)
		fault, how, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		var takes time.Duration
		var err error
		switch {
		case fault == "read-only" && writes:
			return errReadOnly
		case fault == "slow":
			takes, err = time.ParseDuration(how)
		case fault == "hangs":
			takes = 20 * time.Millisecond
		}
		if err != nil || takes == 0 {
			return err
		}
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return ctx.Err()
		}
		if fault != "hangs" {
			return nil
		}
	}
}

// Lock implements certmagic.Locker.
func (f *faulty) Lock(ctx context.Context, name string) error {
	if err := f.suffer(ctx, true); err != nil {
		return err
	}
	return f.FileStorage.Lock(ctx, name)
}

// TryLock implements certmagic.TryLocker.
func (f *faulty) TryLock(ctx context.Context, name string) (bool, error) {
	if err := f.suffer(ctx, true); err != nil {
		return false, err
	}
	return f.FileStorage.TryLock(ctx, name)
}

// Store implements certmagic.Storage.
func (f *faulty) Store(ctx context.Context, key string, value []byte) error {
	if err := f.suffer(ctx, true); err != nil {
		return err
	}
	return f.FileStorage.Store(ctx, key, value)
}

// Delete implements certmagic.Storage.
func (f *faulty) Delete(ctx context.Context, key string) error {
	if err := f.suffer(ctx, true); err != nil {
		return err
	}
	return f.FileStorage.Delete(ctx, key)
}

// Load implements certmagic.Storage.
func (f *faulty) Load(ctx context.Context, key string) ([]byte, error) {
	if err := f.suffer(ctx, false); err != nil {
		return nil, err
	}
	return f.FileStorage.Load(ctx, key)
}

// List implements certmagic.Storage.
func (f *faulty) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	if err := f.suffer(ctx, false); err != nil {
		return nil, err
	}
	return f.FileStorage.List(ctx, path, recursive)
}

// Stat implements certmagic.Storage.
func (f *faulty) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	if err := f.suffer(ctx, false); err != nil {
		return certmagic.KeyInfo{}, err
	}
	return f.FileStorage.Stat(ctx, key)
}

// Exists implements certmagic.Storage.
func (f *faulty) Exists(ctx context.Context, key string) bool {
	return f.suffer(ctx, false) == nil && f.FileStorage.Exists(ctx, key)
}
