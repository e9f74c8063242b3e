package rig

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	mtlsauth "github.com/caddymtls/caddy-mtls-auth"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// clocks maps names to the clocks that [pool] puts into the app.
var clocks sync.Map

// Clock is the system's clock with an offset. If Transport is set, the app fetches
// https URLs through it.
type Clock struct {
	Ahead     atomic.Int64
	frozen    atomic.Pointer[time.Time]
	Broken    atomic.Bool // panics when a handler asks for the time
	apps      sync.Map    // that use the clock
	Transport http.RoundTripper
}

// NewClock returns a clock that `trust_pool rig <pem-file> <name>` puts into the
// app. The name is the test's.
func NewClock(t *testing.T) *Clock {
	clock := new(Clock)
	clocks.Store(t.Name(), clock)
	t.Cleanup(func() {
		clocks.Delete(t.Name())
		clock.frozen.Store(nil) // so that the last configuration ends in time
	})
	return clock
}

// pool is a trust pool that, when provisioned, replaces the clock of the app that
// loads it. Nothing has read the app's clock by then.
type pool struct {
	File  string `json:"file,omitempty"`
	Clock string `json:"clock,omitempty"`

	pool  *x509.CertPool
	certs []*x509.Certificate
}

// CaddyModule returns the module's ID.
func (*pool) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.ca_pool.source.rig", New: func() caddy.Module { return new(pool) }}
}

// UnmarshalCaddyfile reads `rig <pem-file> <clock>`.
func (p *pool) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&p.File, &p.Clock) {
		return d.ArgErr()
	}
	return nil
}

// Provision reads the file and replaces the app's clock.
func (p *pool) Provision(ctx caddy.Context) error {
	text, err := os.ReadFile(p.File)
	if err != nil {
		return err
	}
	if p.certs, err = CertificatesOf(text); err != nil {
		return err
	}
	p.pool = x509.NewCertPool()
	for _, cert := range p.certs {
		p.pool.AddCert(cert)
	}
	known, ok := clocks.Load(p.Clock)
	if !ok {
		return errors.New("there is no clock '" + p.Clock + "'")
	}
	app, err := ctx.AppIfConfigured("mtls")
	if err != nil {
		return err
	}
	// a running app reloads its trust pools, but its clock must not change under it
	clock := known.(*Clock)
	if _, again := clock.apps.LoadOrStore(app, true); !again {
		app.(*mtlsauth.App).Now = clock.Now
		if clock.Transport != nil {
			app.(*mtlsauth.App).Fetch = source.NewSecureFetcher(clock.Transport).Get
		}
	}
	return nil
}

// CertPool implements caddytls.CA.
func (p *pool) CertPool() *x509.CertPool { return p.pool }

// Certificates returns the CAs, which CertPool does not reveal.
func (p *pool) Certificates() []*x509.Certificate { return p.certs }

// Now returns the clock's time. It panics if the clock is broken and a request
// handler asks.
func (c *Clock) Now() time.Time {
	if c.Broken.Load() && bytes.Contains(debug.Stack(), []byte("caddyhttp.(*Server).ServeHTTP")) {
		panic("out of order")
	}
	now := time.Now()
	if frozen := c.frozen.Load(); frozen != nil {
		now = *frozen
	}
	return now.Add(time.Duration(c.Ahead.Load()))
}

// Freeze makes the clock move only when the test advances it.
func (c *Clock) Freeze() {
	now := time.Now()
	c.frozen.Store(&now)
}

// Advance moves the clock forward.
func (c *Clock) Advance(d time.Duration) { c.Ahead.Add(int64(d)) }

// Until moves the clock until the condition holds.
func (c *Clock) Until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, Patience)
		}
		c.Advance(4 * time.Second)
	}
}
