package mtlsauth

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// shadowedRealm is a realm with this CA as its trust pool and its shadow, whose
// background work has not begun.
func shadowedRealm(t *testing.T, ca *testpki.CA) *Realm {
	t.Helper()
	file, err := json.Marshal(writeTemp(t, t.TempDir(), "ca.pem", ca.PEM()))
	if err != nil {
		t.Fatal(err)
	}
	pool := `{"provider":"file","pem_files":[` + string(file) + `]}`
	app := provisionRealm(t, `{"trust_pool":`+pool+`,"shadow_trust_pool":`+pool+`,"clients":[
		{"client_id":"a","tls_client_auth_subject_dn":"CN=a"},{"client_id":"b","tls_client_auth_subject_dn":"CN=b"}]}`)
	return app.Realms[defaultRealm]
}

// TestCAFile: what is added counts at once. What is missing, as in a file that
// is being written, counts only when the file has been quiet, and so does
// trouble.
func TestCAFile(t *testing.T) {
	first, second, third := testpki.MustCA(t).PEM(), testpki.MustCA(t).PEM(), testpki.MustCA(t).PEM()
	dir, clock := t.TempDir(), newTestClock()
	path := writeTemp(t, dir, "ca.pem", first)
	f, err := openCAFile(path, clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	const tick = 250 * time.Millisecond
	step := func(what string, d time.Duration, changed bool, trouble bool, count int) {
		t.Helper()
		clock.Add(d)
		got, err := f.look(clock.Now())
		if got != changed || (err != nil) != trouble || len(f.certs) != count {
			t.Fatalf("%s: changed %v, error %v, %d CAs; want %v, %v, %d", what, got, err, len(f.certs), changed, trouble, count)
		}
	}
	write := func(parts ...[]byte) { writeTemp(t, dir, "ca.pem", parts...) }

	step("nothing new", tick, false, false, 1)
	write(first, second)
	step("added", tick, true, false, 2)
	step("the same", source.QuietTime, false, false, 2)
	write(first)
	step("gone", tick, false, false, 2)
	step("gone for a moment", tick, false, false, 2)
	write(first, third)
	step("something else is gone", source.QuietTime-2*tick, false, false, 2)
	step("still", source.QuietTime-tick, false, false, 2)
	step("for long enough", tick, true, false, 2)

	write(first, third[:100])
	step("being written", tick, false, false, 2)
	write(first, third, second)
	step("written", tick, true, false, 3)
	write([]byte("garbage"))
	step("broken", tick, false, false, 3)
	step("broken and quiet", source.QuietTime, false, true, 3)
	step("said once", source.QuietTime, false, false, 3)
	write([]byte("another garbage"))
	step("broken otherwise", tick, false, false, 3)
	step("and quiet", source.QuietTime, false, true, 3)
	if f.broken() == nil {
		t.Error("it does not know that it is broken")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	step("removed", tick, false, false, 3)
	step("still removed", source.QuietTime, false, true, 3)
	step("said once", source.QuietTime, false, false, 3)
	write(first, third, second)
	step("back as it was", tick, false, false, 3)
	if f.broken() != nil || f.complaint {
		t.Errorf("it is back, but: %v, %v", f.broken(), f.complaint)
	}
	write(second)
	step("less", tick, false, false, 3)
	step("less and quiet", source.QuietTime, true, false, 1)
}

// TestCAFileTooLarge: a file is not read without a bound.
func TestCAFileTooLarge(t *testing.T) {
	path := writeTemp(t, t.TempDir(), "ca.pem", testpki.MustCA(t).PEM())
	if err := os.Truncate(path, maxCAFile+1); err != nil {
		t.Fatal(err)
	}
	_, err := openCAFile(path, time.Now())
	wantError(t, err, "is larger than 16777216 bytes")
}

// TestTrustPoolThatDoesNotFit: a pool that the realm cannot be with is not taken,
// and nothing of it stays.
func TestTrustPoolThatDoesNotFit(t *testing.T) {
	ca, other := testpki.MustCA(t), testpki.MustCA(t)
	realm := shadowedRealm(t, ca)
	pool, before := realm.trustPools[0], realm.current.Load()
	source, set := pool.sources[0], pool.set
	ended := 0
	next := func() loadedCAs {
		return loadedCAs{pool: other.Pool(), certs: []*x509.Certificate{other.Cert}, cancel: func() { ended++ }}
	}
	pool.set = func(p *parts, t *trust) {
		t.system = true
		set(p, t)
	}
	wantError(t, pool.take(source, next()), "client 'a': under trust_pool system any public CA could issue its name; add issued_by")
	if ended != 1 || realm.current.Load() != before || pool.now != before.parts.trust || source.loaded.certs[0] == other.Cert {
		t.Errorf("%d ended, something of the pool stays", ended)
	}
	pool.set = set
	if err := pool.take(source, next()); err != nil || realm.current.Load() == before || ended != 1 {
		t.Errorf("%v, %d ended", err, ended)
	}
	leaf := testpki.MustIssue(t, other, testpki.CommonName("a"))
	if _, refusal, _ := realm.current.Load().Authenticate(t.Context(), leaf.Presented(), ""); refusal != nil {
		t.Error(refusal)
	}
	// and what comes too late is ended
	pool.close()
	pool.close()
	if ended != 2 {
		t.Errorf("%d ended when the pool was closed, want 2", ended)
	}
	current := realm.current.Load()
	if err := pool.take(source, next()); err != nil || ended != 3 || realm.current.Load() != current {
		t.Errorf("%v, %d ended", err, ended)
	}
}

// TestTrustPoolThatHangs: a server that does not answer is given up on.
func TestTrustPoolThatHangs(t *testing.T) {
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
	app := provisionRealm(t, `{"trust_pool":{"provider":"http","endpoints":["`+server.URL+`"]},"clients":[]}`)
	pool := app.Realms[defaultRealm].trustPools[0]
	loaded, err := pool.load(pool.sources[0])
	if err != nil {
		t.Fatal(err)
	}
	loaded.cancel()
	hangs.Store(true)
	pool.timeout = 50 * time.Millisecond
	_, err = pool.load(pool.sources[0])
	wantError(t, err, "the module 'http' was not loaded within 50ms", "context canceled")
}
