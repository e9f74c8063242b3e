package clients_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients/postgres"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestChangesInPostgreSQL checks that clients in a database are changed on the admin API
// of one node, and that the database tells the other one, which looks for itself only once
// an hour here. PostgreSQL writes records in its own way, which must not change their ETags.
func TestChangesInPostgreSQL(t *testing.T) {
	dsn := testpg.Start(t).Database(t)
	t.Setenv("MTLS_TEST_DSN", dsn)
	if err := postgres.InitDB(t.Context(), dsn, postgres.DefaultTable); err != nil {
		t.Fatal(err)
	}
	r := rig.New(t)
	r.AdminOn, r.Secrets = true, append(r.Secrets, testpg.Password)
	const global = "mtls {\n\tclients_from postgres {env.MTLS_TEST_DSN} {\n\t\trefresh 1h\n\t}\n}"
	r.Start(global, rig.OneSite)
	node := rig.Node(r, t, global, rig.OneSite)
	leaf := r.SelfSigned("partner")
	here, there := r.Caller(t, "h2", leaf), node.Caller(t, "h2", leaf)
	const path = clientsPath + "/partner"
	inForce := func(status int) {
		t.Helper()
		here.Get("https://api.test/").WantStatus(t, status)
		there.Eventually(t, status)
	}
	inForce(http.StatusUnauthorized)

	record := fmt.Sprintf(`{"x509_thumbprints":%q, "scope":"b a", "client_name":"\u00e9\ud83d\ude00 1e2", "claims":{"zz":1e2,"b":-0.0,"a":1.50,"exponent":1E+2,"text":"1e2"}}`, testpki.HashOf(leaf.Cert.Raw))
	other := map[*rig.Rig]*rig.Rig{r: node, node: r}
	// change changes the client on a node, and returns the ETag, which that node must
	// have at once, and the other one soon
	change := func(at *rig.Rig, method, body string, status int, headers ...string) string {
		t.Helper()
		tag := admin(t, at, method, path, body, headers...).want(t, status).header.Get("ETag")
		for _, asked := range []*rig.Rig{at, other[at]} {
			for deadline := time.Now().Add(rig.Patience); ; time.Sleep(10 * time.Millisecond) {
				read := admin(t, asked, http.MethodGet, path, "")
				if read.status == http.StatusOK && read.header.Get("ETag") == tag {
					break
				}
				if asked == at || time.Now().After(deadline) {
					t.Fatalf("the ETag of the change is %s, and %s when it is read: %s", tag, read.header.Get("ETag"), read.body)
				}
			}
		}
		return tag
	}
	created := change(r, http.MethodPut, record, http.StatusCreated)
	inForce(http.StatusOK)
	admin(t, node, http.MethodPut, path, record, "If-None-Match", "*").want(t, http.StatusPreconditionFailed)

	disabled := change(r, http.MethodPatch, `{"disabled":true}`, http.StatusOK, "If-Match", created)
	inForce(http.StatusUnauthorized)
	admin(t, r, http.MethodPatch, path, `{"disabled":null}`, "If-Match", created).want(t, http.StatusPreconditionFailed)
	admin(t, node, http.MethodDelete, path, "", "If-Match", created).want(t, http.StatusPreconditionFailed)
	enabled := change(node, http.MethodPatch, `{"disabled":null}`, http.StatusOK, "If-Match", disabled)
	if enabled != created {
		t.Errorf("the ETag of the same record is %s and then %s", created, enabled)
	}
	inForce(http.StatusOK)

	// what was read can be sent back
	read := admin(t, r, http.MethodGet, path, "").want(t, http.StatusOK)
	if same := change(r, http.MethodPut, read.body, http.StatusOK, "If-Match", enabled); same != enabled {
		t.Errorf("the ETag of the record that was read is %s, and of the same record sent back %s", enabled, same)
	}
	var stored string
	if err := testpg.Connect(t, dsn).QueryRow(t.Context(), `SELECT record::text FROM mtls_clients`).Scan(&stored); err != nil || !strings.Contains(stored, `"zz": 100`) {
		t.Errorf("the database has %s %v", stored, err)
	}

	admin(t, r, http.MethodDelete, path, "", "If-Match", enabled).want(t, http.StatusOK)
	inForce(http.StatusUnauthorized)
	admin(t, r, http.MethodDelete, path, "").want(t, http.StatusNotFound)
	admin(t, node, http.MethodGet, path, "").want(t, http.StatusNotFound)

	// what jsonb cannot store changes nothing
	admin(t, r, http.MethodPut, path, strings.Replace(record, "1e2", `nul \u0000`, 1)).want(t, http.StatusBadRequest)
	inForce(http.StatusUnauthorized)
}
