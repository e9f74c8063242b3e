package mtlsauth

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

func init() { caddy.RegisterModule(new(countedPool)) }

// poolCounts are what the instances of [countedPool] of one test have in common.
type poolCounts struct {
	provisioned, cleaned atomic.Int64
	loading              atomic.Int64                  // instances that are in Provision
	pem                  atomic.Pointer[[]byte]        // what they hold
	fail                 atomic.Pointer[func() error]  // what Provision does, unless nil
	gate                 atomic.Pointer[chan struct{}] // what Provision waits for, unless nil
}

var poolCountsOf sync.Map

func newPoolCounts(t *testing.T, cas ...*testpki.CA) *poolCounts {
	counts := new(poolCounts)
	counts.hold(cas...)
	poolCountsOf.Store(t.Name(), counts)
	return counts
}

func (c *poolCounts) hold(cas ...*testpki.CA) {
	var text []byte
	for _, ca := range cas {
		text = append(text, ca.PEM()...)
	}
	c.pem.Store(&text)
}

// countedPool is a trust pool that counts its instances, `trust_pool counted
// <name>`. It does not mind its context, as modules of others may not.
type countedPool struct {
	Name string `json:"name,omitempty"`

	certs []*x509.Certificate
}

func (*countedPool) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.ca_pool.source.counted", New: func() caddy.Module { return new(countedPool) }}
}

func (p *countedPool) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&p.Name) {
		return d.ArgErr()
	}
	return nil
}

func (p *countedPool) counts() *poolCounts {
	counts, _ := poolCountsOf.Load(p.Name)
	return counts.(*poolCounts)
}

func (p *countedPool) Provision(caddy.Context) error {
	c := p.counts()
	c.provisioned.Add(1)
	c.loading.Add(1)
	defer c.loading.Add(-1)
	if gate := c.gate.Load(); gate != nil {
		<-*gate
	}
	if fail := c.fail.Load(); fail != nil {
		return (*fail)()
	}
	var err error
	p.certs, err = certificatesOf(*c.pem.Load())
	return err
}

func (p *countedPool) Cleanup() error {
	p.counts().cleaned.Add(1)
	return nil
}

func (p *countedPool) CertPool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range p.certs {
		pool.AddCert(cert)
	}
	return pool
}

func (p *countedPool) Certificates() []*x509.Certificate { return p.certs }

// TestB4_TrustPoolOverHTTP: a pool from a URL is fetched again after a while. A
// server that fails, or says nonsense, changes nothing; one that hangs holds up
// no other source.
func TestB4_TrustPoolOverHTTP(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	var answer atomic.Pointer[func(http.ResponseWriter)]
	answers := func(f func(http.ResponseWriter)) { answer.Store(&f) }
	sends := func(text []byte) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { _, _ = w.Write(text) }
	}
	answers(sends(r.otherCA.PEM()))
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		(*answer.Load())(w)
	}))
	defer server.Close()
	r.write("file.pem", r.ca.PEM())
	partner, next := r.issueBy(r.otherCA, "billing"), r.issueBy(r.serverCA, "next", testpki.CommonName("billing"))
	r.start(poolRealm(clocked(t, "http "+server.URL, "file @DIR@/file.pem")+"\ntrust_pool_refresh 30m"), oneSite)
	c, fresh := r.caller(t, "h2", partner), r.caller(t, "h1", next)
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
	fresh.get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times before the time", n)
	}

	answers(sends(append(r.serverCA.PEM(), r.otherCA.PEM()...)))
	clock.advance(30 * time.Minute)
	fresh.eventually(t, http.StatusOK)
	c.get("https://api.test/").wantStatus(t, http.StatusOK)

	for _, test := range []struct {
		text   string
		answer func(http.ResponseWriter)
	}{
		{"HTTP 500 fetching CA certificate bundle", func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }},
		{"it has no CA certificate, so no chain could ever verify", sends([]byte("<html>"))},
		{"it has no CA certificate, only those of end entities", sends(partner.PEM())},
		{"parsing certificate from URL", sends(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0}}))},
		{"unexpected EOF", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(r.serverCA.PEM())
		}},
	} {
		answers(test.answer)
		clock.advance(30 * time.Minute)
		complaint := r.logs.wait(t, test.text, func(entry logEntry) bool {
			return entry.str("msg") == poolComplaint && strings.Contains(entry.str("error"), test.text)
		})
		if complaint.str("source") != "http" || complaint.str("pool") != "trust_pool" {
			t.Errorf("log line %v", complaint)
		}
		// it is tried again sooner than in half an hour, and complained of once
		before := asked.Load()
		r.until(clock, "another try", func() bool { return asked.Load() > before+1 })
		if n := len(r.said(poolComplaint, test.text)); n != 1 {
			t.Errorf("%q is complained of %d times", test.text, n)
		}
		c.get("https://api.test/").wantStatus(t, http.StatusOK)
		fresh.get("https://api.test/").wantStatus(t, http.StatusOK)
	}

	release, hangs := make(chan struct{}), make(chan struct{}, 10)
	answers(func(http.ResponseWriter) {
		hangs <- struct{}{}
		<-release
	})
	defer close(release)
	clock.advance(30 * time.Minute)
	<-hangs
	before := r.poolSwaps()
	r.write("file.pem", append(r.ca.PEM(), testpki.MustCA(t).PEM()...))
	r.until(clock, "the file to count", func() bool { return r.poolSwaps() != before })
	clock.advance(time.Hour)
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
	if n := len(hangs); n != 0 {
		t.Errorf("while it is asked it is asked %d times more", n)
	}
}

// TestTrustPoolFromStorage: what storage holds is read again.
func TestTrustPoolFromStorage(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	if err := os.MkdirAll(filepath.Join(r.dir, "storage", "cas"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.write("storage/cas/clients.pem", r.ca.PEM())
	partner := r.issueBy(r.otherCA, "billing")
	r.start(poolRealm(clocked(t, "storage {\nkeys cas/clients.pem\n}")), oneSite)
	c := r.caller(t, "h2", partner)
	c.get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	r.replace("storage/cas/clients.pem", r.otherCA.PEM())
	clock.advance(59 * time.Minute)
	c.get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	clock.advance(time.Minute)
	c.eventually(t, http.StatusOK)
	if err := os.Remove(filepath.Join(r.dir, "storage/cas/clients.pem")); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Hour)
	r.logs.wait(t, "storage that has it no more", func(entry logEntry) bool {
		return entry.str("msg") == poolComplaint && entry.str("source") == "storage" && strings.Contains(entry.str("error"), "error loading cert 'cas/clients.pem' from storage")
	})
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
}

// storedCA is a CA that Caddy keeps in its storage.
func (r *rig) storedCA(name string) *testpki.CA {
	r.t.Helper()
	read := func(suffix string) []byte {
		text, err := os.ReadFile(filepath.Join(r.dir, "storage", "pki", "authorities", "local", name+suffix))
		if err != nil {
			r.t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			r.t.Fatalf("%s%s is not PEM", name, suffix)
		}
		return block.Bytes
	}
	cert, err := x509.ParseCertificate(read(".crt"))
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := x509.ParseECPrivateKey(read(".key"))
	if err != nil {
		r.t.Fatal(err)
	}
	return &testpki.CA{Cert: cert, Key: key, Chain: []*x509.Certificate{cert}}
}

// localCA declares Caddy's internal CA. A test that uses it must: where nothing
// declares it, skip_install_trust is not heard with auto_https off, and Caddy
// puts its root into the trust store of the machine.
func localCA(options string) string { return "pki {\nca local {\n" + options + "}\n}\n" }

// TestTrustPoolOfCaddysCA: certificates of Caddy's internal CA are trusted, and
// loading it again changes nothing.
func TestTrustPoolOfCaddysCA(t *testing.T) {
	for _, module := range []string{"pki_root", "pki_intermediate"} {
		r, clock := newRig(t), newRigClock(t)
		r.adminOn = true
		r.start(localCA("")+poolRealm(clocked(t, module+" local")+"\ntrust_pool_refresh 1m"), oneSite)
		c := r.caller(t, "h2", r.issueBy(r.storedCA("intermediate"), "billing"))
		c.get("https://api.test/").wantStatus(t, http.StatusOK)
		before := r.poolSwaps()
		for range 3 {
			last := r.poolLastSuccess(t)
			r.until(clock, "another load", func() bool { return r.poolLastSuccess(t) > last })
		}
		if r.poolSwaps() != before {
			t.Errorf("%s: the CA is the same, but something was swapped", module)
		}
		c.get("https://api.test/").wantStatus(t, http.StatusOK)
	}
}

// TestTrustPoolOfARenewedCA: an intermediate CA that Caddy renews takes the place
// of the one before.
func TestTrustPoolOfARenewedCA(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("Caddy copies its CA without the lock under which it renews it")
	}
	r, clock := newRig(t), newRigClock(t)
	// the window makes it renew at every tick
	pki := localCA("maintenance_interval 1s\nrenewal_window_ratio 0.99999999\nintermediate_lifetime 20h\n")
	r.start(pki+poolRealm(clocked(t, "pki_intermediate local")+"\ntrust_pool_refresh 1m"), oneSite)
	c := r.caller(t, "h2", r.issueBy(r.storedCA("intermediate"), "billing"))
	before := r.poolSwaps()
	r.until(clock, "a renewed CA", func() bool { return r.poolSwaps() != before })
	r.until(clock, "the end of the CA before it", func() bool {
		return c.get("https://api.test/").status == http.StatusUnauthorized
	})
	r.until(clock, "a client of the renewed CA", func() bool {
		leaf, err := r.storedCA("intermediate").Issue(testpki.CommonName("billing"))
		if err != nil {
			return false // it is being renewed again
		}
		fresh := r.caller(t, "h2", leaf)
		defer fresh.close()
		return fresh.get("https://api.test/").status == http.StatusOK
	})
}

// TestTrustPoolInstances: an instance of a module ends when another takes its
// place, when it is of no use, and with the configuration; and where nothing
// has changed, what is remembered stays.
func TestTrustPoolInstances(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	counts := newPoolCounts(t, r.otherCA)
	partner := r.issueBy(r.otherCA, "billing")
	realm := poolRealm(clocked(t, "counted "+t.Name()) + "\ntrust_pool_refresh 1m")
	r.start(realm, oneSite)
	c := r.caller(t, "h2", partner)
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
	alive := func(want int64) {
		t.Helper()
		r.until(clock, "the end of old instances", func() bool { return counts.provisioned.Load()-counts.cleaned.Load() == want })
	}
	again := func() {
		t.Helper()
		before := counts.provisioned.Load()
		r.until(clock, "another load", func() bool { return counts.provisioned.Load() > before })
	}
	alive(1)
	swaps := r.poolSwaps()
	for range 5 {
		again()
		alive(1)
	}
	if r.poolSwaps() != swaps {
		t.Error("the pool is the same, but something was swapped")
	}

	broken := func() error { return errors.New("the CA is on holiday") }
	counts.fail.Store(&broken)
	again()
	r.until(clock, "the complaint", func() bool { return len(r.said(poolComplaint, "the CA is on holiday")) == 1 })
	alive(1)
	panics := func() error { panic("out of order") }
	counts.fail.Store(&panics)
	cleaned := counts.cleaned.Load()
	again()
	r.until(clock, "the panic", func() bool {
		return len(r.said(poolComplaint, "the module 'counted' panics: out of order")) == 1
	})
	// Caddy does not end what panicked in its Provision
	counts.provisioned.Store(counts.cleaned.Load() + 1)
	if counts.cleaned.Load() != cleaned {
		t.Error("something in use was ended")
	}
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
	counts.fail.Store(nil)
	counts.hold(r.serverCA)
	r.until(clock, "the new CA", func() bool { return r.poolSwaps() != swaps })
	alive(1)
	r.wantReason(t, c.get("https://api.test/"), "certificate_untrusted")

	// a configuration that does not load leaves nothing behind
	if err := r.load(realm+"mtls zzz {\ntrust_pool file @DIR@/nowhere.pem\n}\n", oneSite); err == nil {
		t.Fatal("it loads")
	}
	alive(1)
	r.reload(realm+"\n# changed", oneSite)
	alive(1)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	alive(0)
}

// TestReloadWhileATrustPoolLoads: what is still loading when its configuration
// ends is ended, and nobody waits for it.
func TestReloadWhileATrustPoolLoads(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	counts := newPoolCounts(t, r.otherCA)
	partner := r.issueBy(r.otherCA, "billing")
	realm := poolRealm(clocked(t, "counted "+t.Name()) + "\ntrust_pool_refresh 1m")
	r.start(realm, oneSite)
	c := r.caller(t, "h2", partner)
	c.get("https://api.test/").wantStatus(t, http.StatusOK)

	gate := make(chan struct{})
	counts.gate.Store(&gate)
	r.until(clock, "a load", func() bool { return counts.loading.Load() == 1 })
	counts.gate.Store(nil)
	counts.hold(r.otherCA, r.serverCA)
	r.reload(realm+"\n# changed", oneSite)
	if counts.loading.Load() != 1 {
		t.Fatal("the load has ended too early")
	}
	swaps := r.poolSwaps()
	close(gate)
	r.until(clock, "the end of all instances but one", func() bool {
		return counts.loading.Load() == 0 && counts.provisioned.Load()-counts.cleaned.Load() == 1
	})
	if r.poolSwaps() != swaps {
		t.Error("what the old configuration loaded was swapped into the new one")
	}
	c.eventually(t, http.StatusOK)
}
