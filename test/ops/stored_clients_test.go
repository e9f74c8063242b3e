package ops_test

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/storagesource"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// otherNode is another node that shares the storage, as far as clients are concerned.
type otherNode struct{ clients.Writer }

func newOtherNode(r *rig.Rig, t *testing.T) otherNode {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	module := new(storagesource.Clients)
	if err := module.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	sources, err := module.ClientSources(clients.Host{
		Realm: "default", Storage: &certmagic.FileStorage{Path: r.Dir + "/storage"}, Logger: zap.NewNop(), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	n := otherNode{sources[0].(clients.Writer)}
	if err := n.Load(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Replace implements [clients.Sink].
func (otherNode) Replace(_ context.Context, records iter.Seq2[clients.Entry, error]) error {
	for _, err := range records {
		if err != nil {
			return err
		}
	}
	return nil
}

// Update implements [clients.Sink].
func (otherNode) Update(context.Context, []clients.Entry) error { return nil }

// Note implements [clients.Sink].
func (otherNode) Note(error) {}

// put stores the record of a client with more members.
func (n otherNode) put(t *testing.T, id string, leaf *testpki.Leaf, members string) {
	t.Helper()
	record := fmt.Sprintf(`{"client_id":%q,"x509_thumbprints":%q%s}`, id, testpki.HashOf(leaf.Cert.Raw), members)
	if err := n.Change(t.Context(), id, func([]byte) ([]byte, error) { return []byte(record), nil }); err != nil {
		t.Fatal(err)
	}
}

// TestClientsInStorage checks that clients come from storage, that a change by another
// node is in force soon, on open connections too, and that damaged storage changes
// nothing.
func TestClientsInStorage(t *testing.T) {
	r := rig.New(t)
	partner, device := r.SelfSigned("partner"), r.SelfSigned("device")
	other := newOtherNode(r, t)
	other.put(t, "partner", partner, "")
	const realm = "mtls {\n\tclients_from storage\n}\n"
	r.Start(realm, rig.OneSite)
	open, others := r.Caller(t, "h2", partner), r.Caller(t, "h2", device)
	open.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
	others.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)

	soon := func(change func(), c *rig.Caller, status int) {
		t.Helper()
		change()
		c.Eventually(t, status)
	}
	soon(func() { other.put(t, "device", device, "") }, others, http.StatusOK)
	soon(func() { other.put(t, "partner", partner, `,"disabled":true`) }, open, http.StatusUnauthorized)
	soon(func() { other.put(t, "partner", partner, "") }, open, http.StatusOK)
	soon(func() {
		if err := other.Change(t.Context(), "device", func([]byte) ([]byte, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
	}, others, http.StatusUnauthorized)

	index := filepath.Join(r.Dir, "storage/mtls/default/clients/index.json")
	whole, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(index, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const damage = "'mtls/default/clients/index.json': it is not an index of clients"
	write(whole[:len(whole)/2])
	r.Logs.Wait(t, "the damaged index", func(entry rig.LogEntry) bool {
		return entry.Str("level") == "error" && strings.Contains(entry.Str("error"), damage)
	})
	open.Get("https://api.test/").WantStatus(t, http.StatusOK)
	if err := r.Load(realm, rig.OneSite); err == nil || !strings.Contains(err.Error(), damage) {
		t.Errorf("reloading with a damaged index: %v", err)
	}
	open.Get("https://api.test/").WantStatus(t, http.StatusOK)
	write(whole)
	soon(func() { other.put(t, "device", device, "") }, others, http.StatusOK)
	r.Reload(realm, rig.OneSite)
	r.Caller(t, "h2", device).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "device")

	// a reload while the folder is not mounted
	folder := filepath.Dir(index)
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	r.Reload(realm, rig.OneSite)
	r.Logs.Wait(t, "the missing folder", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "client source unavailable; keeping clients of the running configuration" && strings.Contains(entry.Str("error"), "have vanished")
	})
	r.Caller(t, "h2", device).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "device")
	r.Reload(realm, rig.OneSite)
	mounted := r.Caller(t, "h2", device)
	mounted.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "device")
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	soon(func() { other.put(t, "device", device, `,"disabled":true`) }, mounted, http.StatusUnauthorized)
}
