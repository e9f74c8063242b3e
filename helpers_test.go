package mtlsauth

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// raceEnabled tells that the tests run under the race detector, which
// allocates on its own account.
var raceEnabled bool

// setClock gives what a realm decides by another clock.
func setClock(realm *Realm, now func() time.Time) {
	current := *realm.current.Load()
	current.Authenticator = current.WithClock(now)
	realm.current.Store(&current)
}

// hashOf returns the SHA-256 hash of DER as a thumbprint is declared.
func hashOf(der []byte) string { return testpki.HashOf(der) }

// registryOf is the registry of some clients.
func registryOf(t testing.TB, records ...clients.Record) *clients.Registry {
	t.Helper()
	directory, err := clients.NewDirectory(t.Context(), clients.DirectoryConfig{Records: records})
	if err != nil {
		t.Fatal(err)
	}
	return directory.Registry()
}

// pinned is a client with the thumbprints of these certificates.
func pinned(id string, leaves ...*testpki.Leaf) clients.Record {
	record := clients.Record{ClientID: id}
	for _, leaf := range leaves {
		record.Thumbprints = append(record.Thumbprints, hashOf(leaf.Cert.Raw))
	}
	return record
}

// writeTemp writes a file into a folder and returns its path.
func writeTemp(t testing.TB, dir, name string, parts ...[]byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Join(parts, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// provisionRealm provisions an app with one realm, the default one, outside of
// a configuration, and so without storage.
func provisionRealm(t testing.TB, text string) *App {
	t.Helper()
	app := &App{Realms: map[string]*Realm{defaultRealm: new(Realm)}}
	if err := json.Unmarshal([]byte(text), app.Realms[defaultRealm]); err != nil {
		t.Fatal(err)
	}
	if realm := app.Realms[defaultRealm]; realm.StorageRaw == nil {
		realm.StorageRaw = caddyconfig.JSON(map[string]string{"module": "file_system", "root": t.TempDir()}, nil)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := app.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return app
}

// wantError fails the test unless err has every one of the texts.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error lacks %q: %v", text, err)
		}
	}
}
