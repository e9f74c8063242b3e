package clients_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// changedRealm has clients in the Caddyfile and in a source that is written to.
const changedRealm = `
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	client fixed {
		subject CN=fixed
		introspect https://invoices.test
	}
	clients_from memory
	issuer https://auth.test {
		resource https://invoices.test {
			scopes invoices.read
		}
	}
}
`

const sites = rig.IssuerSite + `
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://invoices.test
	}
	reverse_proxy @UP@
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
`

func start(t *testing.T, records map[string]string) (*rig.Rig, *shared) {
	store := newStore(t, records)
	r := rig.New(t)
	r.AdminOn = true
	r.Start(changedRealm, sites)
	return r, store
}

func thumbprint(leaf *testpki.Leaf) string { return fmt.Sprintf("%x", sha256.Sum256(leaf.Cert.Raw)) }

func pinned(leaf *testpki.Leaf) string {
	return fmt.Sprintf(`{"x509_thumbprints":[%q],"scope":"invoices.read"}`, thumbprint(leaf))
}

func recordOf(id string, leaf *testpki.Leaf) string {
	return fmt.Sprintf(`{"client_id":%q,"x509_thumbprints":[%q]}`, id, thumbprint(leaf))
}

// auditLine waits for the line about the last change of a client.
func auditLine(t *testing.T, r *rig.Rig, message, action, id string) rig.LogEntry {
	t.Helper()
	return r.Logs.Wait(t, "the audit line", func(e rig.LogEntry) bool {
		return e.Str("logger") == "mtls.audit" && e.Str("msg") == message && e.Str("action") == action && e.Str("client_id") == id
	})
}

// TestClientsComeAndGo_C2 checks that a change of a client is in force when the answer
// arrives: on open connections, for tokens, and in introspection.
func TestClientsComeAndGo_C2(t *testing.T) {
	r, _ := start(t, nil)
	leaf, other, fixed := r.SelfSigned("sensor"), r.SelfSigned("other"), r.Issue("fixed")
	api := r.Caller(t, "h2", fixed)
	introspect := func(token string) string {
		t.Helper()
		return api.Do(http.MethodPost, "https://auth.test/connect/introspect", rig.Query("fixed", token)).WantStatus(t, http.StatusOK).Body
	}
	for _, protocol := range []string{"h1", "h2"} {
		c := r.Caller(t, protocol, leaf)
		guarded := func() rig.Reply { t.Helper(); return c.Get("https://public.test/") }
		open := c.ConnectionsTo("public.test")
		guarded().WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)

		admin(t, r, http.MethodPut, clientsPath+"/sensor", pinned(leaf)).want(t, http.StatusCreated)
		guarded().WantClient(t, "sensor")
		token := rig.AccessToken(r, t, leaf, "sensor")
		works := func(want bool) {
			t.Helper()
			if got := c.Get("https://api.test/", rig.Bearer(token)); (got.Status == http.StatusOK) != want || got.Status != http.StatusOK && got.Status != http.StatusUnauthorized {
				t.Errorf("mtls_bearer answers %d", got.Status)
			}
			if got := introspect(token); (got != rig.Inactive) != want {
				t.Errorf("introspection answers %s", got)
			}
		}
		works(true)

		admin(t, r, http.MethodPatch, clientsPath+"/sensor", `{"disabled":true}`).want(t, http.StatusOK)
		guarded().WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
		works(false)
		admin(t, r, http.MethodPatch, clientsPath+"/sensor", `{"disabled":null}`).want(t, http.StatusOK)
		guarded().WantClient(t, "sensor")
		works(true)

		// the credential goes, and the client stays
		admin(t, r, http.MethodPatch, clientsPath+"/sensor", pinned(other)).want(t, http.StatusOK)
		guarded().WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
		works(false)
		admin(t, r, http.MethodPatch, clientsPath+"/sensor", pinned(leaf)).want(t, http.StatusOK)
		guarded().WantClient(t, "sensor")

		admin(t, r, http.MethodDelete, clientsPath+"/sensor", "").want(t, http.StatusOK, thumbprint(leaf))
		guarded().WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
		works(false)
		open.WantOne(t)
	}
}

// TestOneOfTwoPatchesWins checks that of two changes decided by one reading, one gets
// 412 and is not lost in silence.
func TestOneOfTwoPatchesWins(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	r, _ := start(t, map[string]string{"a": recordOf("a", leaf)})
	before := admin(t, r, http.MethodGet, clientsPath+"/a", "").want(t, http.StatusOK)
	etag := before.header.Get("ETag")
	got := make([]reply, 2)
	var both sync.WaitGroup
	for i := range got {
		both.Go(func() {
			got[i] = admin(t, r, http.MethodPatch, clientsPath+"/a", fmt.Sprintf(`{"client_name":"%d"}`, i), "If-Match", etag)
		})
	}
	both.Wait()
	statuses := []int{got[0].status, got[1].status}
	slices.Sort(statuses)
	if !slices.Equal(statuses, []int{http.StatusOK, http.StatusPreconditionFailed}) {
		t.Errorf("the answers are %v", got)
	}
	admin(t, r, http.MethodGet, clientsPath+"/a", "", "If-None-Match", etag).want(t, http.StatusOK)
	now := admin(t, r, http.MethodGet, clientsPath+"/a", "").header.Get("ETag")
	admin(t, r, http.MethodGet, clientsPath+"/a", "", "If-None-Match", now).want(t, http.StatusNotModified)
	admin(t, r, http.MethodPut, clientsPath+"/a", pinned(leaf)).want(t, http.StatusPreconditionRequired, "If-Match")
	admin(t, r, http.MethodPut, clientsPath+"/a", pinned(leaf), "If-Match", now).want(t, http.StatusOK)
}

// TestClientIDsInPaths checks that odd and hostile paths reach the client that they
// name, or none.
func TestClientIDsInPaths(t *testing.T) {
	r, store := start(t, nil)
	ids := []string{".", "..", "../fixed", "a/b", "a//b", "spiffe://prod.example/ns/a", "a@b:c+d,e", "keys", "clients"}
	for i, id := range ids {
		path := clientsPath + "/" + strings.ReplaceAll(url.PathEscape(id), ".", "%2E")
		record := fmt.Sprintf(`{"x509_thumbprints":"%064x"}`, i+1)
		location := admin(t, r, http.MethodPut, path, record).want(t, http.StatusCreated, fmt.Sprintf(`"client_id":%q`, id)).header.Get("Location")
		admin(t, r, http.MethodGet, location, "").want(t, http.StatusOK, fmt.Sprintf(`"client_id":%q`, id))
	}
	var listed []string
	for client := range pages(t, r, "limit=2") {
		listed = append(listed, client["client_id"].(string))
	}
	want := append(slices.Clone(ids), "fixed")
	slices.Sort(want)
	if !slices.Equal(listed, want) {
		t.Errorf("the list is %q, want %q", listed, want)
	}
	for _, path := range []string{"/a/b", "/a%252Fb", "/a%00b", "/", "/a%2Fb/", "/%ff", "/a%20b", "/fixed%2F..%2Fa/b", "/" + strings.Repeat("a", 201)} {
		admin(t, r, http.MethodDelete, clientsPath+path, "").want(t, http.StatusBadRequest)
	}
	for _, path := range []string{"/a//b", "/./a", "/a/../b", "//a"} { // Go's router redirects them
		got := admin(t, r, http.MethodDelete, clientsPath+path, "")
		if got.status/100 != 3 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=x", "limit=1&limit=1", "after=%00", "Q=a", "a;b", "q=" + strings.Repeat("a", 201), "waiting=1"} {
		admin(t, r, http.MethodGet, clientsPath+"?"+query, "").want(t, http.StatusBadRequest)
	}
	if len(store.records) != len(ids) {
		t.Errorf("the records are %v", store.records)
	}
	admin(t, r, http.MethodPost, clientsPath+"/a", "{}").want(t, http.StatusMethodNotAllowed)
	admin(t, r, http.MethodDelete, clientsPath+"/", "").want(t, http.StatusBadRequest, "client_id is empty")
	admin(t, r, http.MethodGet, "/mtls/realms/other/clients", "").want(t, http.StatusNotFound, "unknown realm")
	admin(t, r, http.MethodDelete, "/mtls/realms/default%2Fclients/clients/a", "").want(t, http.StatusNotFound, "unknown realm")
}

// TestRefusedChanges checks that what Caddy would refuse at a load is refused, changes
// nothing, and is logged.
func TestRefusedChanges(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	r, store := start(t, map[string]string{"a": recordOf("a", leaf)})
	for name, tc := range map[string]struct {
		method, id, body string
		status           int
		want             string
	}{
		"fixed, patched":         {"PATCH", "fixed", `{"disabled":true}`, 409, "client 'fixed' is declared in source 'config'"},
		"fixed, replaced":        {"PUT", "fixed", pinned(leaf), 409, "declared in source 'config'"},
		"fixed, removed":         {"DELETE", "fixed", ``, 409, "change it there"},
		"subject of fixed":       {"PUT", "b", `{"tls_client_auth_subject_dn":"CN=fixed"}`, 409, "fixed"},
		"thumbprint of a":        {"PUT", "b", pinned(leaf), 409, "'a'"},
		"unknown member":         {"PATCH", "a", `{"Disabled":true}`, 422, "Disabled"},
		"no credential":          {"PATCH", "a", `{"x509_thumbprints":null}`, 422, "credential"},
		"bad thumbprint":         {"PATCH", "a", `{"x509_thumbprints":"zz"}`, 422, "zz"},
		"reserved claim":         {"PATCH", "a", `{"claims":{"sub":"x"}}`, 422, "reserved"},
		"unknown resource":       {"PATCH", "a", `{"resources":"https://nowhere.test"}`, 422, "nowhere"},
		"file of this machine":   {"PATCH", "a", `{"x509_certificate_files":"/etc/passwd"}`, 422, "file"},
		"no issued_by to narrow": {"PATCH", "a", `{"issued_by":"x"}`, 422, "issued_by"},
		"repeated member":        {"PATCH", "a", `{"disabled":true,"disabled":false}`, 400, "duplicate member"},
		"NUL":                    {"PATCH", "a", `{"client_name":"\u0000"}`, 400, "NUL"},
		"half a pair":            {"PATCH", "a", `{"claims":{"x":"\udc00"}}`, 400, "surrogate"},
		"too long":               {"PUT", "b", strings.Repeat(" ", 65<<10), 413, "65536"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				if len(store.records) != 1 || store.records["a"] != recordOf("a", leaf) {
					t.Errorf("the records are %v", store.records)
				}
			})
			admin(t, r, tc.method, clientsPath+"/"+tc.id, tc.body).want(t, tc.status, tc.want)
			line := auditLine(t, r, "client change refused", strings.ToLower(tc.method), tc.id)
			if line["status"] == nil || line.Str("error") == "" || line.Str("remote_ip") != "127.0.0.1" || line.Str("realm") != "default" {
				t.Errorf("the audit line is %v", line)
			}
		})
	}
	store.fail(fmt.Errorf("%w: the database is gone", clients.ErrUnavailable))
	admin(t, r, "PATCH", clientsPath+"/a", `{}`).want(t, http.StatusServiceUnavailable, "the database is gone")
	store.fail(errors.New("no luck"))
	admin(t, r, "PATCH", clientsPath+"/a", `{}`).want(t, http.StatusInternalServerError, "no luck")
	store.fail(nil)

	// the endpoint is protected as the rest of Caddy's
	for name, value := range map[string]string{"Origin": "http://evil.test", "Sec-Fetch-Mode": "no-cors", "Host": ""} {
		got := admin(t, r, "DELETE", clientsPath+"/a", "", name, value)
		if name != "Host" && got.status != http.StatusForbidden && got.status != http.StatusBadRequest || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %s: %d %v", name, value, got.status, got.header)
		}
		if name == "Host" {
			got.want(t, http.StatusOK)
		}
	}

	r.Reload(strings.Replace(changedRealm, "clients_from memory", "", 1), sites)
	admin(t, r, "PUT", clientsPath+"/b", pinned(leaf)).want(t, http.StatusConflict, "realm 'default' has no source of clients that can be written to; add 'clients_from storage'")
	admin(t, r, "GET", realmPath, "").want(t, http.StatusOK, `"realm":"default"`)
	r.Reload("", "")
	admin(t, r, "PUT", clientsPath+"/b", pinned(leaf)).want(t, http.StatusNotFound, "the running configuration has no realm")
}

// TestAuditLine checks that a change is logged with what has changed, without secrets.
func TestAuditLine(t *testing.T) {
	r, _ := start(t, nil)
	r.Secrets = append(r.Secrets, "hunter2", "token-of-jwks")
	admin(t, r, "PUT", clientsPath+"/a", `{"jwks_uri":"https://u:hunter2@idp.test/jwks?key=token-of-jwks","scope":"invoices.read"}`).want(t, http.StatusCreated, "key=…")
	line := auditLine(t, r, "client changed", "put", "a")
	if line.Str("source") != "memory" || line.Str("after") != `{"client_id":"a","jwks_uri":"https://idp.test/jwks?key=…","scope":"invoices.read"}` || line["before"] != nil || line.Str("level") != "info" {
		t.Errorf("%v", line)
	}
	admin(t, r, "PATCH", clientsPath+"/a", `{"scope":null,"client_name":"A\u001b[31m\n"}`).want(t, http.StatusOK)
	if line = auditLine(t, r, "client changed", "patch", "a"); line.Str("before") != `{"scope":"invoices.read"}` || line.Str("after") != `{"client_name":"A\u001b[31m\n"}` {
		t.Errorf("%v", line)
	}
	admin(t, r, "DELETE", clientsPath+"/a", "").want(t, http.StatusOK, "key=…")
	auditLine(t, r, "client changed", "delete", "a")
}

// TestChangeDuringReload checks that a change which is made while another configuration
// is being loaded is in force in that one too.
func TestChangeDuringReload(t *testing.T) {
	r, store := start(t, nil)
	leaf := r.SelfSigned("sensor")
	admin(t, r, "PUT", clientsPath+"/sensor", pinned(leaf)).want(t, http.StatusCreated)
	disabled := make(chan int, 1)
	disable := func() (status int, err error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://127.0.0.1:"+r.Admin+clientsPath+"/sensor", strings.NewReader(`{"disabled":true}`))
		if err != nil {
			return 0, err
		}
		response, err := rig.AdminClient.Do(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
	store.mu.Lock()
	store.loading = func() { // after the other configuration has read the records
		go func() {
			// Caddy replaces its admin endpoint meanwhile, and resets some connections
			for t.Context().Err() == nil {
				if status, err := disable(); err == nil {
					disabled <- status
					return
				}
			}
		}()
		for t.Context().Err() == nil && !store.has(`"disabled":true`) {
			time.Sleep(time.Millisecond)
		}
	}
	store.mu.Unlock()
	r.Reload(changedRealm+"\n# changed", sites)
	if status := <-disabled; status != http.StatusOK {
		t.Fatalf("the change is answered with %d", status)
	}
	r.Caller(t, "h2", leaf).Get("https://public.test/").WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
}
