package mtlsauth

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// setClock replaces the clock that a realm decides by.
func setClock(realm *Realm, now func() time.Time) {
	current := *realm.current.Load()
	current.Authenticator = current.WithClock(now)
	realm.current.Store(&current)
}

// registryOf returns a registry of these clients.
func registryOf(t testing.TB, records ...clients.Record) *clients.Registry {
	t.Helper()
	d, err := directory.New(t.Context(), directory.Config{Records: records})
	if err != nil {
		t.Fatal(err)
	}
	return d.Registry()
}

// pinned returns a client with the thumbprints of these certificates.
func pinned(id string, leaves ...*testpki.Leaf) clients.Record {
	record := clients.Record{ClientID: id}
	for _, leaf := range leaves {
		record.Thumbprints = append(record.Thumbprints, testpki.HashOf(leaf.Cert.Raw))
	}
	return record
}

// provisionRealm provisions an app with only the default realm. There is no Caddy
// configuration, so it has no storage.
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
