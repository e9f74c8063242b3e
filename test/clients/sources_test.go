// Package clients_test tests the sources of clients from outside.
package clients_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

const realm = `mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	clients_from %s
}`

// line is a record in a line of its own.
func line(id string, leaf *testpki.Leaf) string {
	return fmt.Sprintf(`{"client_id":%q,"x509_thumbprints":%q}`+"\n", id, testpki.HashOf(leaf.Cert.Raw))
}

// TestFolderOfClients checks that files may be added to a folder, changed and removed,
// and that a record which is wrong is skipped alone.
func TestFolderOfClients(t *testing.T) {
	r := rig.New(t)
	first, second, third := r.SelfSigned("first"), r.SelfSigned("second"), r.SelfSigned("third")
	for _, folder := range []string{"clients.d", "clients.d/deep"} {
		if err := os.Mkdir(filepath.Join(r.Dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r.Write("clients.d/a.jsonl", []byte(line("first", first)+"\n{\"client_id\":\"first-b\",\"X509_thumbprints\":\"\"}\n"))
	r.Write("clients.d/README.txt", []byte("hello"))
	r.Write("clients.d/deep/a.json", []byte("broken"))
	r.Start(fmt.Sprintf(realm, "file \"@DIR@/clients.d\" {\non_bad_record skip\n}"), rig.OneSite)
	want := func(leaf *testpki.Leaf, id string) {
		t.Helper()
		if id == "" {
			r.Caller(t, "h1", leaf).Eventually(t, http.StatusUnauthorized)
			return
		}
		r.Caller(t, "h1", leaf).Eventually(t, http.StatusOK).WantClient(t, id)
	}
	want(first, "first")
	want(second, "")
	r.Logs.WaitFor(t, 1, "the skipped record", func(entry rig.LogEntry) bool {
		return strings.HasPrefix(entry.Str("msg"), "client record skipped") && entry.Str("client_id") == "first-b" && entry.Str("record") == "a.jsonl, line 3"
	})
	r.Logs.WaitFor(t, 1, "the foreign file", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "files in clients folder ignored" && fmt.Sprint(entry["files"]) == "[README.txt]"
	})

	r.Write("clients.d/b.yaml", []byte("- client_id: second\n  x509_thumbprints: '"+testpki.HashOf(second.Cert.Raw)+"'\n"))
	r.Write("clients.d/c.json", []byte("["+line("third", third)+"]"))
	want(second, "second")
	want(third, "third")
	want(first, "first")
	if err := os.Remove(filepath.Join(r.Dir, "clients.d/c.json")); err != nil {
		t.Fatal(err)
	}
	want(third, "")
	want(second, "second")

	// a file that is broken as a whole changes nothing
	r.Write("clients.d/c.json", []byte("["+line("third", third)))
	r.Logs.WaitFor(t, 1, "the broken file", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "client source failed; keeping previous clients" && strings.Contains(entry.Str("error"), "c.json, line 2: the array does not end")
	})
	want(first, "first")
	want(second, "second")
	want(third, "")
}

// platform is an https server of clients.
type platform struct {
	*httptest.Server
	mu      sync.Mutex
	text    string
	version int
	tokens  map[string]bool
}

func newPlatform(t *testing.T, r *rig.Rig, text string) *platform {
	p := &platform{text: text, tokens: make(map[string]bool)}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.tokens[req.Header.Get("Authorization")] = true
		etag := fmt.Sprintf(`"%d"`, p.version)
		w.Header().Set("ETag", etag)
		if req.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, p.text)
	}))
	t.Cleanup(p.Close)
	r.Write("platform.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}))
	return p
}

func (p *platform) send(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
	p.version++
}

// TestClientsBehindURL checks that clients follow the document, and survive whatever the
// server sends instead, its end, a reload without it, and a start with the copy.
func TestClientsBehindURL(t *testing.T) {
	t.Setenv("MTLS_TEST_TOKEN", "top-secret")
	r := rig.New(t)
	first, second := r.SelfSigned("first"), r.SelfSigned("second")
	p := newPlatform(t, r, line("first", first))
	copied := filepath.Join(t.TempDir(), "clients.copy")
	config := fmt.Sprintf(realm, `http `+p.URL+`/clients {
		refresh 1s
		header Authorization "Bearer {env.MTLS_TEST_TOKEN}"
		keep_copy "`+copied+`"
	}
	fetch {
		trust_pool file "@DIR@/platform.pem"
	}`)
	r.Start(config, rig.OneSite)
	ofFirst, ofSecond := r.Caller(t, "h1", first), r.Caller(t, "h1", second)
	ofFirst.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "first")
	ofSecond.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	p.send("[" + line("second", second) + "]")
	ofSecond.Eventually(t, http.StatusOK).WantClient(t, "second")
	ofFirst.Eventually(t, http.StatusUnauthorized)
	p.send("<html>Sign in to the network</html>")
	r.Logs.WaitFor(t, 1, "the captive portal", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "client source failed; keeping previous clients" && strings.Contains(entry.Str("error"), "neither a JSON array of client records nor JSON Lines")
	})
	ofSecond.Get("https://api.test/").WantStatus(t, http.StatusOK)

	p.Close()
	r.Reload(config, rig.OneSite)
	r.Caller(t, "h1", second).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "second")
	for token := range p.tokens {
		if token != "Bearer top-secret" {
			t.Errorf("a request had the token %q", token)
		}
	}
	if all := r.Logs.All(func(rig.LogEntry) bool { return true }); len(all) == 0 || strings.Contains(fmt.Sprint(all), "top-secret") {
		t.Error("the log has the token")
	}

	// another Caddy, which starts without the server
	other := rig.New(t)
	other.Leaves = append(other.Leaves, second)
	other.Write("platform.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}))
	other.Write("none.json", []byte("[]"))
	other.Start(fmt.Sprintf(realm, `file "@DIR@/none.json"`), rig.OneSite)
	testtool.WantError(t, other.Load(strings.Replace(config, copied, copied+".missing", 1), rig.OneSite), "has not been written yet")
	other.Reload(config, rig.OneSite)
	other.Caller(t, "h1", second).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "second")
}
