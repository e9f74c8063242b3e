package trustpool

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
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
	if err := source.take(next()); !errors.Is(err, refuse) {
		t.Fatal(err)
	}
	if used == nil || ended != 1 || pool.Trust() != before || source.loaded.certs[0] == other.Cert {
		t.Errorf("%d ended, something of the pool stays", ended)
	}
	refuse = nil
	if err := source.take(next()); err != nil || pool.Trust() != used || ended != 1 || !slices.Contains(used.Certificates, other.Cert) {
		t.Errorf("%v, %d ended", err, ended)
	}
	// and what comes too late is ended
	pool.Close()
	pool.Close()
	if ended != 2 {
		t.Errorf("%d ended when the pool was closed, want 2", ended)
	}
	if err := source.take(next()); err != nil || ended != 3 || pool.Trust() != used {
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
	again, err := pool.sources[0].load()
	if err != nil {
		t.Fatal(err)
	}
	again.cancel()
	hangs.Store(true)
	pool.sources[0].timeout = 50 * time.Millisecond
	_, err = pool.sources[0].load()
	wantError(t, err, "the module 'http' was not loaded within 50ms", "context canceled")
}

// watched loads a pool that logs, and whose file is at the returned path.
func watched(t *testing.T, content ...[]byte) (pool *Pool, path string, logs *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	path = filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, path, content...)
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	pool, err := Load(Config{
		Context: ctx, Word: "trust_pool", Raw: json.RawMessage(`{"provider":"file","pem_files":["` + path + `"]}`),
		Now: time.Now, Logger: zap.New(core), Use: func(*Trust) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool, path, logs
}

// TestEndOfTheConfigurationIsNotReported checks that a file that is gone is reported until
// the configuration ends, and not afterwards.
func TestEndOfTheConfigurationIsNotReported(t *testing.T) {
	for _, ended := range []bool{false, true} {
		pool, path, logs := watched(t, testpki.MustCA(t).PEM())
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		defer cancel()
		reported := 0
		pool.config.Context, pool.config.Report = ctx, func(error) { reported++ }
		if ended {
			cancel()
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for now := range 2 {
			pool.sources[0].lookAtFiles(time.Now().Add(time.Duration(now) * source.QuietTime))
		}
		if want := map[bool]int{false: 1}[ended]; reported != want || logs.Len() != want {
			t.Errorf("ended: %v: %d reports, logged %v; want %d", ended, reported, logs.All(), want)
		}
	}
}

// TestUnreadableCAIsLeftOut checks that a certificate that Go cannot read costs the
// others of its file nothing, neither at the start nor later: a CA that is added
// counts, and one that is gone does not. The log says which certificate is left out.
func TestUnreadableCAIsLeftOut(t *testing.T) {
	first, second := testpki.MustCA(t, testpki.CommonName("First")), testpki.MustCA(t, testpki.CommonName("Second"))
	for fault, cause := range map[testpki.Fault]string{
		testpki.NegativeSerial:   "invalid certificate 'CN=Old CA': its serial number is negative",
		testpki.CriticalSKI:      "invalid certificate 'CN=Old CA': its extension subjectKeyIdentifier is critical",
		testpki.UnsupportedCurve: "invalid certificate 'CN=Old CA': its public key is on an elliptic curve that is not supported",
	} {
		unreadable := testpki.UnreadablePEM(t, fault, "Old CA")
		pool, path, logs := watched(t, first.PEM(), unreadable)
		source, now := pool.sources[0], time.Now()
		want := func(what string, cas ...*testpki.CA) {
			t.Helper()
			certs := pool.Trust().Certificates
			if len(certs) != len(cas) || slices.ContainsFunc(cas, func(ca *testpki.CA) bool { return !slices.ContainsFunc(certs, ca.Cert.Equal) }) {
				t.Errorf("%s: %d CAs, want %d", what, len(certs), len(cas))
			}
			entries := logs.TakeAll()
			if len(entries) != 1 || entries[0].Message != "certificate left out of trust pool" {
				t.Fatalf("%s: logged %v", what, entries)
			}
			fields := entries[0].ContextMap()
			if fields["file"] != path || fields["certificate"] != int64(len(cas)+1) || fields["line"].(int64) < 10 || !strings.Contains(fields["error"].(string), cause) {
				t.Errorf("%s: logged %v", what, fields)
			}
		}
		look := func(content ...[]byte) {
			writeFile(t, path, content...)
			for range 2 { // a CA that is gone counts once the file is quiet
				now = now.Add(3 * time.Second)
				source.lookAtFiles(now)
			}
		}
		want("at the start", first)
		look(first.PEM(), second.PEM(), unreadable)
		want("after one was added", first, second)
		look(second.PEM(), unreadable)
		want("after one was removed", second)
		source.lookAtFiles(now.Add(time.Hour))
		if entries := logs.TakeAll(); len(entries) != 0 {
			t.Errorf("without a change, logged %v", entries)
		}
		// a file without a CA is broken, as before
		look(unreadable)
		if certs := pool.Trust().Certificates; len(certs) != 1 || !strings.Contains(source.files[0].Failure().Error(), "has no CA certificate that can be read; line 1: "+cause) {
			t.Errorf("none is left: %d CAs, %v", len(certs), source.files[0].Failure())
		}
	}
}

// TestUnreadableInlineCA checks the same for certificates in the configuration.
func TestUnreadableInlineCA(t *testing.T) {
	der := base64.StdEncoding.EncodeToString
	ca, unreadable := der(testpki.MustCA(t).Cert.Raw), der(testpki.Unreadable(t, testpki.NegativeSerial, "Old CA"))
	pool, err := load(t, `{"provider":"inline","trusted_ca_certs":["`+unreadable+`","`+ca+`"]}`, nil)
	if err != nil || len(pool.Trust().Certificates) != 1 {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ certs, want string }{
		"none is left":  {unreadable, "inline: no CA certificate can be read; certificate 1: invalid certificate 'CN=Old CA': its serial number is negative"},
		"damaged":       {ca + `","` + ca[:400], "inline: certificate 2: invalid certificate: its octets are not a certificate in DER, or not all of one; copy it again"},
		"bad base64":    {ca + `","` + ca[:401], "inline: certificate 2 is not base64; copy it again"},
		"another word":  {ca + `"],"trusted_ca":["` + ca, `unknown field "trusted_ca"`},
		"an empty list": {"", "inline: certificate 1: invalid certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, `{"provider":"inline","trusted_ca_certs":["`+test.certs+`"]}`, nil)
			wantError(t, err, test.want)
		})
	}
}

// TestServerPoolHasEndEntities checks that the certificate of a server may stand in the
// pool that vouches for servers, besides the CAs of the system.
func TestServerPoolHasEndEntities(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.EKU(x509.ExtKeyUsageServerAuth), testpki.DNSNames("inside.example"))
	path := filepath.Join(t.TempDir(), "server.pem")
	writeFile(t, path, leaf.PEM())
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	config := Config{Context: ctx, Word: "fetch trust_pool", Raw: json.RawMessage(`{"provider":"file","pem_files":["` + path + `"]}`), Now: time.Now, Logger: zap.NewNop()}
	_, err := Load(config)
	wantError(t, err, "only end-entity certificates")
	config.EndEntities = true
	pool, err := Load(config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	roots, err := pool.Trust().WithSystem()
	if err != nil {
		t.Fatal(err)
	}
	for _, roots := range []*x509.CertPool{roots, pool.Trust().Roots()} {
		if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "inside.example"}); err != nil {
			t.Error(err)
		}
	}
}
