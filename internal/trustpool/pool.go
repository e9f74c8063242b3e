package trustpool

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	defaultRefresh = time.Hour
	minRefresh     = time.Minute
	// retryInterval is how long a source that failed is left alone, unless it is
	// due sooner.
	retryInterval = time.Minute
	// loadTimeout is how long a module may take to load.
	loadTimeout = 30 * time.Second
)

// CheckRefresh reports why a pool cannot be loaded again that often.
func CheckRefresh(d caddy.Duration) error {
	if time.Duration(d) < minRefresh {
		return fmt.Errorf("trust_pool_refresh %s is too short; use at least 1m", time.Duration(d))
	}
	return nil
}

// Trust is what a pool holds at one moment. The zero Trust trusts nobody.
type Trust struct {
	// Pool verifies chains; nil in the zero Trust.
	Pool *validators.TrustPool
	// System is set if the operating system's CAs are trusted.
	System bool
	// Certificates are the distinct CA certificates, as far as the modules
	// disclose them.
	Certificates []*x509.Certificate

	// roots are what Pool was made of, and all its certificates, as far as the
	// modules disclose them.
	roots *x509.CertPool
	all   []*x509.Certificate
}

// Roots returns the pool for servers whose chains must lead to it.
func (t *Trust) Roots() *x509.CertPool { return t.roots }

// WithSystem returns the certificates of the pool besides those of the operating
// system. It is an error if the module does not disclose them.
func (t *Trust) WithSystem() (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	switch {
	case err != nil:
		return nil, fmt.Errorf("the CAs of the system cannot be read: %w", err)
	case !t.System && len(t.all) == 0:
		return nil, errors.New("its module does not disclose its certificates; use another one, such as file")
	}
	for _, cert := range t.all {
		pool.AddCert(cert)
	}
	return pool, nil
}

// Config says where a pool comes from and who uses it.
type Config struct {
	// Context is the one of the app; each instance of a module lives in a child
	// of it.
	Context caddy.Context
	// Word is the pool's name in the configuration, such as "trust_pool".
	Word string
	// Raw is the module's configuration.
	Raw json.RawMessage
	// Refresh is how often sources that are not files are loaded again. Default:
	// one hour.
	Refresh time.Duration
	// EndEntities says that the pool vouches for servers, whose own certificates may
	// be in it. Then it needs no CA.
	EndEntities bool
	Now         func() time.Time
	Logger      *zap.Logger
	// Report is called with why a source cannot be loaded again, and with nil when it
	// can. Default: nothing is reported.
	Report func(error)
	// Use puts what the pool holds now in the place of what it held. If it
	// returns an error, everything stays as it is.
	Use func(*Trust) error
}

// Pool is a trust pool whose sources are watched.
type Pool struct {
	config  Config
	sources []*poolSource

	mu     sync.Mutex
	trust  *Trust // in use
	closed bool
}

// Load loads a pool for the first time. Caddy's own modules start with a file
// that holds no certificate, and then lock everyone out; here it is an error.
func Load(config Config) (*Pool, error) {
	if config.Refresh == 0 {
		config.Refresh = defaultRefresh
	}
	if config.Report == nil {
		config.Report = func(error) {}
	}
	config.Logger = config.Logger.With(zap.String("pool", config.Word))
	p := &Pool{config: config}
	if err := p.addSources(config.Raw); err != nil {
		return nil, err
	}
	for _, s := range p.sources {
		s.alone = len(p.sources) == 1
		if err := s.loadFirst(); err != nil {
			p.Close()
			return nil, err
		}
	}
	p.trust = p.combine()
	return p, nil
}

// addSources adds the sources in the configuration of a module.
func (p *Pool) addSources(raw json.RawMessage) error {
	s := &poolSource{loader: loader{config: &p.config, timeout: loadTimeout, raw: raw}, pool: p}
	if err := json.Unmarshal(raw, s); err != nil {
		return err
	}
	if s.Provider != "combined" {
		p.sources = append(p.sources, s)
		return nil
	}
	var combined struct {
		Provider string            `json:"provider"`
		Sources  []json.RawMessage `json:"sources"`
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&combined); err != nil {
		return fmt.Errorf("combined: %w", err)
	}
	if len(combined.Sources) == 0 {
		return errors.New("combined: it has no source; add one")
	}
	for _, nested := range combined.Sources {
		if err := p.addSources(nested); err != nil {
			return err
		}
	}
	return nil
}

// combine returns the certificates of all sources as one Trust.
func (p *Pool) combine() *Trust {
	t := &Trust{roots: p.sources[0].loaded.pool, System: p.sources[0].Provider == "system"}
	if len(p.sources) > 1 {
		t.roots = x509.NewCertPool()
	}
	distinct := make(map[string]struct{})
	for _, s := range p.sources {
		t.all = append(t.all, s.loaded.certs...)
		for _, cert := range s.loaded.certs {
			if len(p.sources) > 1 {
				t.roots.AddCert(cert)
			}
			if _, known := distinct[string(cert.Raw)]; !known && mayBeCA(cert) {
				t.Certificates = append(t.Certificates, cert)
				distinct[string(cert.Raw)] = struct{}{}
			}
		}
	}
	t.Pool = validators.NewTrustPool(t.roots, t.Certificates...)
	return t
}

// Word returns the pool's name in the configuration.
func (p *Pool) Word() string { return p.config.Word }

// Trust returns what the pool holds now.
func (p *Pool) Trust() *Trust {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trust
}

// Refreshes reports whether a source of the pool is loaded again from time to
// time.
func (p *Pool) Refreshes() bool {
	return slices.ContainsFunc(p.sources, func(s *poolSource) bool { return !s.watched() && !s.fixed() })
}

// Interval returns how often the sources that can change are read, the longest time if
// they differ, and zero if none can.
func (p *Pool) Interval() (longest time.Duration) {
	for _, s := range p.sources {
		switch {
		case s.fixed():
		case s.watched():
			longest = max(longest, source.LookInterval)
		default:
			longest = max(longest, p.config.Refresh)
		}
	}
	return longest
}

// Failure returns why a source could not be read last, "" if all could.
func (p *Pool) Failure() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sources {
		if s.failing != "" {
			return s.failing
		}
	}
	return ""
}

// LastSuccess returns when the sources that can change were last read without an
// error: the time of the one that was read the longest ago.
func (p *Pool) LastSuccess() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var oldest time.Time
	for _, s := range p.sources {
		if (!s.fixed() || len(p.sources) == 1) && (oldest.IsZero() || s.success.Before(oldest)) {
			oldest = s.success
		}
	}
	return oldest
}

// Watch keeps the pool up to date until ctx is done. Each source has a goroutine
// of its own, so that one that is slow holds up no other.
func (p *Pool) Watch(ctx context.Context) {
	for _, s := range p.sources {
		if !s.fixed() {
			go source.Poll(ctx, source.LookInterval, func(context.Context) error { s.poll(); return nil }, nil)
		}
	}
}

// Close ends the instances of the modules. One that is being loaded is ended by
// whoever loads it.
func (p *Pool) Close() {
	p.mu.Lock()
	var ends []context.CancelFunc
	if !p.closed {
		for _, s := range p.sources {
			if s.loaded.cancel != nil { // nil in a source that did not load
				ends = append(ends, s.loaded.cancel)
			}
		}
	}
	p.closed = true
	p.mu.Unlock()
	for _, end := range ends {
		end()
	}
}
