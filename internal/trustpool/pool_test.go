package trustpool

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// load loads a pool from its configuration, until the test ends.
func load(t *testing.T, raw string, use func(*Trust) error) (*Pool, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	pool, err := Load(Config{Context: ctx, Word: "trust_pool", Raw: json.RawMessage(raw), Now: time.Now, Logger: zap.NewNop(), Use: use})
	if err == nil {
		t.Cleanup(pool.Close)
	}
	return pool, err
}

// TestRefusedPoolChangesNothing checks that nothing stays of a pool that its user
// refuses.
func TestRefusedPoolChangesNothing(t *testing.T) {
	ca, other := testpki.MustCA(t), testpki.MustCA(t)
	path := filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, path, ca.PEM())
	var used *Trust
	refuse := errors.New("it does not fit")
	pool, err := load(t, `{"provider":"file","pem_files":["`+path+`"]}`, func(trust *Trust) error {
		used = trust
		return refuse
	})
	if err != nil {
		t.Fatal(err)
	}
	source, before, ended := pool.sources[0], pool.Trust(), 0
	next := func() loaded {
		return loaded{pool: other.Pool(), certs: []*x509.Certificate{other.Cert}, cancel: func() { ended++ }}
	}
	if err := pool.take(source, next()); !errors.Is(err, refuse) {
		t.Fatal(err)
	}
	if used == nil || ended != 1 || pool.Trust() != before || source.loaded.certs[0] == other.Cert {
		t.Errorf("%d ended, something of the pool stays", ended)
	}
	refuse = nil
	if err := pool.take(source, next()); err != nil || pool.Trust() != used || ended != 1 || !slices.Contains(used.Certificates, other.Cert) {
		t.Errorf("%v, %d ended", err, ended)
	}
	// and what comes too late is ended
	pool.Close()
	pool.Close()
	if ended != 2 {
		t.Errorf("%d ended when the pool was closed, want 2", ended)
	}
	if err := pool.take(source, next()); err != nil || ended != 3 || pool.Trust() != used {
		t.Errorf("%v, %d ended", err, ended)
	}
}

// TestHangingPoolEndsInTime checks that a server which does not answer is given up
// on.
func TestHangingPoolEndsInTime(t *testing.T) {
	ca := testpki.MustCA(t)
	hang := make(chan struct{})
	var hangs atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			<-hang
		}
		_, _ = w.Write(ca.PEM())
	}))
	defer server.Close()
	defer close(hang)
	pool, err := load(t, `{"provider":"http","endpoints":["`+server.URL+`"]}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := pool.load(pool.sources[0])
	if err != nil {
		t.Fatal(err)
	}
	again.cancel()
	hangs.Store(true)
	pool.timeout = 50 * time.Millisecond
	_, err = pool.load(pool.sources[0])
	wantError(t, err, "the module 'http' was not loaded within 50ms", "context canceled")
}
