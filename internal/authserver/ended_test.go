package authserver

import (
	"context"
	"runtime"
	"testing"
	"weak"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

// TestEndOfTheConfigurationIsNoFailure: the end of a configuration interrupts what it does
// in storage. Nothing is wrong there.
func TestEndOfTheConfigurationIsNoFailure(t *testing.T) {
	core, logged := observer.New(zap.ErrorLevel)
	ended := false
	registry := registryOf(t)
	host := Host{
		Realm: "default", Storage: testenv.NewStorage(t.TempDir()), Logger: zap.New(core),
		Registry: func() *clients.Registry { return registry }, Ended: func() bool { return ended },
	}
	s, err := Load(t.Context(), Settings{Config: tokens.IssuerConfig{URL: "https://auth.test"}}, host)
	if err != nil {
		t.Fatal(err)
	}
	report := func() {
		s.reportKeys(keyring.EventUnreadable, "mtls/default/keys/a.json", context.Canceled)
		s.reportRevocation(tokens.EventRevokedNotRemoved, "mtls/default/revocations/a.json", context.Canceled)
	}
	report()
	if n := logged.Len(); n != 2 {
		t.Errorf("%d failures are logged before the end", n)
	}
	ended = true
	report()
	if n := logged.Len(); n != 2 {
		t.Errorf("%d failures are logged after the end", n-2)
	}
}

// TestServerBeforeIsNotKept checks that a server does not keep the one that it replaces in
// memory, and with it all that were before.
func TestServerBeforeIsNotKept(t *testing.T) {
	registry := registryOf(t)
	load := func(before *Server) *Server {
		s, err := Load(t.Context(), Settings{Config: tokens.IssuerConfig{URL: "https://auth.test"}}, Host{
			Realm: "default", Storage: testenv.NewStorage(t.TempDir()), Logger: zap.NewNop(), Before: before, Deny: new(revocation.Checker),
			Registry: func() *clients.Registry { return registry }, Ended: func() bool { return false },
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	replace := func() (before weak.Pointer[Server], last *Server) {
		first := load(nil)
		return weak.Make(first), load(first)
	}
	kept, last := replace()
	runtime.GC()
	if kept.Value() != nil {
		t.Error("the server before is kept")
	}
	runtime.KeepAlive(last)
}
