package mtlsauth

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// TestDecidesUntilItsContextEnds_S1 checks that an app which is stopped decides, with
// state that is kept up to date, until some seconds after the whole configuration
// has ended, and that no goroutine outlives that. Caddy stops its apps in a random
// order, and the HTTP servers go on for the shutdown delay and the grace period.
func TestDecidesUntilItsContextEnds_S1(t *testing.T) {
	leaf, app := endingApp(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		defer cancel()
		if err := app.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		if err := app.Start(); err != nil {
			t.Fatal(err)
		}
		want := func(when string, want validators.Reason) {
			t.Helper()
			if got := reasonFor(app, leaf); got != want {
				t.Errorf("%s: the reason is %q, want %q", when, got, want)
			}
		}
		want("after the start", "")
		if err := app.Stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		want("in the shutdown delay", "")
		if !app.stopped.Load() {
			t.Error("an app that is stopped still changes storage")
		}
		cancel()
		time.Sleep(decideAfterEnd - time.Second)
		want("after the end", "")
		time.Sleep(2 * time.Second)
		want("long after the end", validators.ConfigurationEnded)
		if err := (&Verifier{realm: app.Realms[defaultRealm]}).VerifyClientCertificate([][]byte{leaf.Cert.Raw}, nil); err == nil {
			t.Error("the verifier still admits connections")
		}
	})
}

// TestEndWithoutStop_S1 checks that an app also ends if Caddy never stops it, because
// something else failed to start, and that no goroutine outlives it.
func TestEndWithoutStop_S1(t *testing.T) {
	for _, started := range []bool{false, true} {
		leaf, app := endingApp(t)
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
			defer cancel()
			if err := app.Provision(ctx); err != nil {
				t.Fatal(err)
			}
			if started {
				if err := app.Start(); err != nil {
					t.Fatal(err)
				}
			}
			if got := reasonFor(app, leaf); got != "" {
				t.Errorf("started: %v: the reason is %q before the end", started, got)
			}
			cancel()
			if err := app.Cleanup(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * decideAfterEnd)
			if got := reasonFor(app, leaf); got != validators.ConfigurationEnded {
				t.Errorf("started: %v: the reason is %q", started, got)
			}
		})
	}
}

// TestEndOfTheConfigurationIsNotReported checks that an ended configuration does not report
// that a file is gone, which the next one need not have, or that what it stored last, in a
// storage that may be closed, works or fails.
func TestEndOfTheConfigurationIsNotReported(t *testing.T) {
	leaf, app := endingApp(t)
	realm, root, deny := app.Realms[defaultRealm], filepath.Join(t.TempDir(), "storage"), filepath.Join(t.TempDir(), "deny")
	if err := os.WriteFile(deny, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	realm.StorageRaw = caddyconfig.JSON(map[string]string{"module": "file_system", "root": root}, nil)
	realm.Revocation = &Revocation{Deny: deny}
	realm.Clients = []clients.Record{{ClientID: "a", JWKSURI: "https://a.example/jwks"}}
	set := testpki.JWKS(t, leaf)
	app.Fetch = func(context.Context, string, int64) (source.Document, error) {
		return source.Document{Content: set}, nil
	}
	core, logs := observer.New(zap.InfoLevel)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		defer cancel()
		if err := app.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		realm.logger = zap.New(core)
		realm.revocation.logger = realm.logger
		err := os.RemoveAll(root)
		if err == nil {
			err = os.WriteFile(root, nil, 0o600)
		}
		if err == nil {
			err = app.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*copiesPoll + time.Second)
		if failed := logs.FilterMessage("storing JWKS copies failed").Len(); failed != 1 {
			t.Errorf("%d failures before the end", failed)
		}
		if err := app.Stop(); err != nil {
			t.Fatal(err)
		}
		cancel()
		logs.TakeAll()
		if err := os.Remove(deny); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * decideAfterEnd)
		for _, entry := range logs.TakeAll() {
			t.Errorf("after the end: %s %v", entry.Message, entry.ContextMap())
		}
	})
}

// TestProxiesOfAnEndedConfiguration_S1 checks that an ended configuration takes nobody's
// word that there is no certificate: what is optional may not be optional any more.
func TestProxiesOfAnEndedConfiguration_S1(t *testing.T) {
	app := new(App)
	realm := &Realm{app: app, proxyCertificates: &proxyCertificates{
		from: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, format: forwarded.Formats[0], header: "Client-Cert",
	}}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{}))
	r.RemoteAddr = "192.0.2.1:1"
	for _, want := range []validators.Reason{validators.CertificateMissing, validators.ConfigurationEnded} {
		if _, refusal := new(requestState).certificates(realm, r); refusal == nil || refusal.Reason != want {
			t.Errorf("refused with %v, want %s", refusal, want)
		}
		app.ended.Store(true)
	}
}

// endingApp returns an app that is not provisioned yet, and a certificate of its
// client that is valid at any time.
func endingApp(t *testing.T) (*testpki.Leaf, *App) {
	t.Helper()
	leaf := testpki.MustSelfSigned(t, testpki.CommonName("a"), testpki.Validity(time.Time{}, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)))
	realm := &Realm{StorageRaw: caddyconfig.JSON(map[string]string{"module": "file_system", "root": t.TempDir()}, nil)}
	text, err := json.Marshal(map[string]any{"clients": []any{pinned("a", leaf)}})
	if err == nil {
		err = json.Unmarshal(text, realm)
	}
	if err != nil {
		t.Fatal(err)
	}
	return leaf, &App{Realms: map[string]*Realm{defaultRealm: realm}}
}

// reasonFor returns why the app refuses a certificate, or "".
func reasonFor(app *App, leaf *testpki.Leaf) validators.Reason {
	_, refusal := app.Realms[defaultRealm].authenticate(context.Background(), []*x509.Certificate{leaf.Cert}, "")
	if refusal == nil {
		return ""
	}
	return refusal.Reason
}
