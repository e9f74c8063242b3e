package ops_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients/postgres"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestClientsInPostgreSQL checks that a change in the database applies to the next
// request, that nothing changes while the database is away, over a reload too, and that
// Caddy starts with the copy then.
func TestClientsInPostgreSQL(t *testing.T) {
	server := testpg.Start(t)
	dsn := server.Database(t)
	t.Setenv("MTLS_TEST_DSN", dsn)
	if err := postgres.InitDB(t.Context(), dsn, postgres.DefaultTable); err != nil {
		t.Fatal(err)
	}
	r := rig.New(t)
	r.Secrets = append(r.Secrets, testpg.Password)
	device := r.SelfSigned("device")
	global := `mtls {
	clients_from postgres {env.MTLS_TEST_DSN} {
		keep_copy @DIR@/copy.jsonl
	}
}`
	put := func(members string) {
		t.Helper()
		record := fmt.Sprintf(`{"client_id": "device", "x509_thumbprints": %q%s}`, testpki.HashOf(device.Cert.Raw), members)
		testpg.Exec(t, dsn, `INSERT INTO mtls_clients (client_id, record) VALUES ('device', $1::text::jsonb) ON CONFLICT (client_id) DO UPDATE SET record = excluded.record`, record)
	}
	put("")
	r.Start(global, rig.OneSite)
	c := r.Caller(t, "h1", device)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "device")
	// it is written again after a minute, when the client is as it is now
	for deadline := time.Now().Add(rig.Patience); ; time.Sleep(20 * time.Millisecond) {
		if text, _ := os.ReadFile(r.Fill("@DIR@/copy.jsonl")); strings.Contains(string(text), testpki.HashOf(device.Cert.Raw)) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the copy is not written")
		}
	}
	put(`, "disabled": true`)
	c.Eventually(t, http.StatusUnauthorized)
	put("")
	c.Eventually(t, http.StatusOK)
	testpg.Exec(t, dsn, `DELETE FROM mtls_clients`)
	c.Eventually(t, http.StatusUnauthorized)
	put("")
	c.Eventually(t, http.StatusOK)

	server.Stop(t)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	r.Reload(global, rig.OneSite)
	r.Caller(t, "h1", device).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "device")
	r.Reload("mtls {\nclient other {\nsubject CN=other\n}\ntrust_pool file @DIR@/clients-ca.pem\n}", rig.OneSite) // forgets the clients
	r.Reload(global, rig.OneSite)
	r.Caller(t, "h1", device).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "device")
	err := r.Load(strings.Replace(global, "keep_copy @DIR@/copy.jsonl", "table other", 1), rig.OneSite)
	if err == nil || !strings.Contains(err.Error(), "realm 'default': ") || !strings.Contains(err.Error(), "/other: ") || strings.Contains(err.Error(), testpg.Password) {
		t.Errorf("a start without database and copy: %v", err)
	}

	server.Restart(t)
	put(`, "disabled": true`)
	r.Caller(t, "h1", device).Eventually(t, http.StatusUnauthorized)
}
