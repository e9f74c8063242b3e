package trust_test

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

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

func init() { caddy.RegisterModule(new(countedPool)) }

// poolCounts is shared by the instances of [countedPool] of one test.
type poolCounts struct {
	provisioned, cleaned atomic.Int64
	loading              atomic.Int64                  // instances in Provision
	pem                  atomic.Pointer[[]byte]        // the CAs of every instance
	fail                 atomic.Pointer[func() error]  // called by Provision, unless nil
	gate                 atomic.Pointer[chan struct{}] // awaited by Provision, unless nil
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
// <name>`. It ignores its context, as third-party modules may.
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
	p.certs, err = rig.CertificatesOf(*c.pem.Load())
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

// TestTrustPoolOverHTTP_B4 checks that a pool from a URL is fetched again
// periodically. A server that fails or returns garbage changes nothing; one that
// hangs delays no other source.
func TestTrustPoolOverHTTP_B4(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	var answer atomic.Pointer[func(http.ResponseWriter)]
	answers := func(f func(http.ResponseWriter)) { answer.Store(&f) }
	sends := func(text []byte) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { _, _ = w.Write(text) }
	}
	answers(sends(r.OtherCA.PEM()))
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		(*answer.Load())(w)
	}))
	defer server.Close()
	r.Write("file.pem", r.CA.PEM())
	partner, next := r.IssueBy(r.OtherCA, "billing"), r.IssueBy(r.ServerCA, "next", testpki.CommonName("billing"))
	r.Start(poolRealm(clocked(t, "http "+server.URL, "file @DIR@/file.pem")+"\ntrust_pool_refresh 30m"), rig.OneSite)
	c, fresh := r.Caller(t, "h2", partner), r.Caller(t, "h1", next)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	fresh.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	if n := asked.Load(); n != 1 {
		t.Errorf("fetched %d times before the refresh was due, want once", n)
	}

	answers(sends(append(r.ServerCA.PEM(), r.OtherCA.PEM()...)))
	clock.Advance(30 * time.Minute)
	fresh.Eventually(t, http.StatusOK)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)

	for _, test := range []struct {
		text   string
		answer func(http.ResponseWriter)
	}{
		{"HTTP 500 fetching CA certificate bundle", func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }},
		{"it has no CA certificate, so no chain can verify", sends([]byte("<html>"))},
		{"it has only end-entity certificates", sends(partner.PEM())},
		{"parsing certificate from URL", sends(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0}}))},
		{"unexpected EOF", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(r.ServerCA.PEM())
		}},
	} {
		answers(test.answer)
		clock.Advance(30 * time.Minute)
		complaint := r.Logs.Wait(t, test.text, func(entry rig.LogEntry) bool {
			return entry.Str("msg") == poolComplaint && strings.Contains(entry.Str("error"), test.text)
		})
		if complaint.Str("source") != "http" || complaint.Str("pool") != "trust_pool" {
			t.Errorf("log line %v", complaint)
		}
		// the retry comes within half an hour, and the failure is logged once
		before := asked.Load()
		clock.Until(r.T, "another try", func() bool { return asked.Load() > before+1 })
		if n := len(r.Logs.Said(poolComplaint, test.text)); n != 1 {
			t.Errorf("%q was logged %d times", test.text, n)
		}
		c.Get("https://api.test/").WantStatus(t, http.StatusOK)
		fresh.Get("https://api.test/").WantStatus(t, http.StatusOK)
	}

	release, hangs := make(chan struct{}), make(chan struct{}, 10)
	answers(func(http.ResponseWriter) {
		hangs <- struct{}{}
		<-release
	})
	defer close(release)
	clock.Advance(30 * time.Minute)
	<-hangs
	before := poolSwaps(r)
	r.Write("file.pem", append(r.CA.PEM(), testpki.MustCA(t).PEM()...))
	clock.Until(r.T, "the file to count", func() bool { return poolSwaps(r) != before })
	clock.Advance(time.Hour)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	if n := len(hangs); n != 0 {
		t.Errorf("%d more fetches during a pending fetch", n)
	}
}

// TestTrustPoolFromStorage checks that a pool from storage is read again.
func TestTrustPoolFromStorage(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	if err := os.MkdirAll(filepath.Join(r.Dir, "storage", "cas"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.Write("storage/cas/clients.pem", r.CA.PEM())
	partner := r.IssueBy(r.OtherCA, "billing")
	r.Start(poolRealm(clocked(t, "storage {\nkeys cas/clients.pem\n}")), rig.OneSite)
	c := r.Caller(t, "h2", partner)
	c.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	replace(r, "storage/cas/clients.pem", r.OtherCA.PEM())
	clock.Advance(59 * time.Minute)
	c.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	clock.Advance(time.Minute)
	c.Eventually(t, http.StatusOK)
	if err := os.Remove(filepath.Join(r.Dir, "storage/cas/clients.pem")); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Hour)
	r.Logs.Wait(t, "storage that has it no more", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == poolComplaint && entry.Str("source") == "storage" && strings.Contains(entry.Str("error"), "storage key 'cas/clients.pem'")
	})
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
}

// storedCA returns a CA that Caddy keeps in its storage.
func storedCA(r *rig.Rig, name string) *testpki.CA {
	r.T.Helper()
	read := func(suffix string) []byte {
		text, err := os.ReadFile(filepath.Join(r.Dir, "storage", "pki", "authorities", "local", name+suffix))
		if err != nil {
			r.T.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			r.T.Fatalf("%s%s is not PEM", name, suffix)
		}
		return block.Bytes
	}
	cert, err := x509.ParseCertificate(read(".crt"))
	if err != nil {
		r.T.Fatal(err)
	}
	key, err := x509.ParseECPrivateKey(read(".key"))
	if err != nil {
		r.T.Fatal(err)
	}
	return &testpki.CA{Cert: cert, Key: key, Chain: []*x509.Certificate{cert}}
}

// localCA declares Caddy's internal CA. A test that uses the CA must declare it:
// otherwise Caddy ignores skip_install_trust with auto_https off, and installs its
// root into the trust store of the machine.
func localCA(options string) string { return "pki {\nca local {\n" + options + "}\n}\n" }

// TestTrustPoolOfCaddysCA checks that certificates of Caddy's internal CA are
// trusted, and that loading the unchanged CA again swaps nothing.
func TestTrustPoolOfCaddysCA(t *testing.T) {
	for _, module := range []string{"pki_root", "pki_intermediate"} {
		r, clock := rig.New(t), rig.NewClock(t)
		r.AdminOn = true
		r.Start(localCA("")+poolRealm(clocked(t, module+" local")+"\ntrust_pool_refresh 1m"), rig.OneSite)
		c := r.Caller(t, "h2", r.IssueBy(storedCA(r, "intermediate"), "billing"))
		c.Get("https://api.test/").WantStatus(t, http.StatusOK)
		before := poolSwaps(r)
		for range 3 {
			last := poolLastSuccess(r, t)
			clock.Until(r.T, "another load", func() bool { return poolLastSuccess(r, t) > last })
		}
		if poolSwaps(r) != before {
			t.Errorf("%s: the pool was swapped although the CA is unchanged", module)
		}
		c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	}
}

// TestTrustPoolOfARenewedCA checks that an intermediate CA that Caddy renews
// replaces the previous one.
func TestTrustPoolOfARenewedCA(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("Caddy copies its CA without holding the lock that it renews under")
	}
	r, clock := rig.New(t), rig.NewClock(t)
	// this window makes Caddy renew the CA at every tick
	pki := localCA("maintenance_interval 1s\nrenewal_window_ratio 0.99999999\nintermediate_lifetime 20h\n")
	r.Start(pki+poolRealm(clocked(t, "pki_intermediate local")+"\ntrust_pool_refresh 1m"), rig.OneSite)
	c := r.Caller(t, "h2", r.IssueBy(storedCA(r, "intermediate"), "billing"))
	before := poolSwaps(r)
	clock.Until(r.T, "a renewed CA", func() bool { return poolSwaps(r) != before })
	clock.Until(r.T, "the end of the CA before it", func() bool {
		return c.Get("https://api.test/").Status == http.StatusUnauthorized
	})
	clock.Until(r.T, "a client of the renewed CA", func() bool {
		leaf, err := storedCA(r, "intermediate").Issue(testpki.CommonName("billing"))
		if err != nil {
			return false // Caddy is renewing it again
		}
		fresh := r.Caller(t, "h2", leaf)
		defer fresh.Close()
		return fresh.Get("https://api.test/").Status == http.StatusOK
	})
}

// TestTrustPoolInstances checks that a module instance is cleaned up when another
// replaces it, when it is unused, and when its configuration ends. Cached verdicts
// survive while the pool is unchanged.
func TestTrustPoolInstances(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	counts := newPoolCounts(t, r.OtherCA)
	partner := r.IssueBy(r.OtherCA, "billing")
	realm := poolRealm(clocked(t, "counted "+t.Name()) + "\ntrust_pool_refresh 1m")
	r.Start(realm, rig.OneSite)
	c := r.Caller(t, "h2", partner)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	alive := func(want int64) {
		t.Helper()
		clock.Until(r.T, "the end of old instances", func() bool { return counts.provisioned.Load()-counts.cleaned.Load() == want })
	}
	again := func() {
		t.Helper()
		before := counts.provisioned.Load()
		clock.Until(r.T, "another load", func() bool { return counts.provisioned.Load() > before })
	}
	alive(1)
	swaps := poolSwaps(r)
	for range 5 {
		again()
		alive(1)
	}
	if poolSwaps(r) != swaps {
		t.Error("the pool was swapped although it is unchanged")
	}

	broken := func() error { return errors.New("the CA is on holiday") }
	counts.fail.Store(&broken)
	again()
	clock.Until(r.T, "the complaint", func() bool { return len(r.Logs.Said(poolComplaint, "the CA is on holiday")) == 1 })
	alive(1)
	panics := func() error {
		counts.provisioned.Add(-1) // Caddy does not clean up an instance that panics in Provision
		panic("out of order")
	}
	counts.fail.Store(&panics)
	cleaned := counts.cleaned.Load()
	clock.Until(r.T, "the panic", func() bool {
		return len(r.Logs.Said(poolComplaint, "the module 'counted' panicked: out of order")) == 1
	})
	if counts.cleaned.Load() != cleaned {
		t.Error("an instance in use was cleaned up")
	}
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	counts.fail.Store(nil)
	counts.hold(r.ServerCA)
	clock.Until(r.T, "the new CA", func() bool { return poolSwaps(r) != swaps })
	alive(1)
	r.WantReason(t, c.Get("https://api.test/"), "certificate_untrusted")

	// a configuration that fails to load leaves no instance behind
	if err := r.Load(realm+"mtls zzz {\ntrust_pool file @DIR@/nowhere.pem\n}\n", rig.OneSite); err == nil {
		t.Fatal("the invalid configuration loaded")
	}
	alive(1)
	r.Reload(realm+"\n# changed", rig.OneSite)
	alive(1)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	alive(0)
}

// TestReloadWhileATrustPoolLoads checks that an instance still loading when its
// configuration ends is cleaned up, and that the reload does not wait for it.
func TestReloadWhileATrustPoolLoads(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	counts := newPoolCounts(t, r.OtherCA)
	partner := r.IssueBy(r.OtherCA, "billing")
	realm := poolRealm(clocked(t, "counted "+t.Name()) + "\ntrust_pool_refresh 1m")
	r.Start(realm, rig.OneSite)
	c := r.Caller(t, "h2", partner)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)

	gate := make(chan struct{})
	counts.gate.Store(&gate)
	clock.Until(r.T, "a load", func() bool { return counts.loading.Load() == 1 })
	counts.gate.Store(nil)
	counts.hold(r.OtherCA, r.ServerCA)
	r.Reload(realm+"\n# changed", rig.OneSite)
	if counts.loading.Load() != 1 {
		t.Fatal("the load ended too early")
	}
	swaps := poolSwaps(r)
	close(gate)
	clock.Until(r.T, "the end of all instances but one", func() bool {
		return counts.loading.Load() == 0 && counts.provisioned.Load()-counts.cleaned.Load() == 1
	})
	if poolSwaps(r) != swaps {
		t.Error("the old configuration's pool was swapped into the new one")
	}
	c.Eventually(t, http.StatusOK)
}
