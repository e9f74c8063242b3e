package mtlsauth

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
)

// FetchConfig configures how a realm reaches the servers of its CRLs, its OCSP
// responders, its JWKS and its clients. As in Caddy's own requests, the proxies of the
// environment (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`) are used.
type FetchConfig struct {
	// The CA certificates that vouch for these servers, in addition to those of the
	// system. They vouch for no client. Files are watched. Required.
	TrustPoolRaw json.RawMessage `json:"trust_pool,omitempty" caddy:"namespace=tls.ca_pool.source inline_key=provider"`
}

// UnmarshalCaddyfile reads how servers are reached. Syntax:
//
//	fetch {
//		trust_pool <module> ...
//	}
func (c *FetchConfig) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := parseBlock(d, "fetch option", c.options()); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return d.WrapErr(fmt.Errorf("fetch: %w", err))
	}
	return nil
}

// options returns the options of the block.
func (c *FetchConfig) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"trust_pool <module> ... {": trustPoolOption(&c.TrustPoolRaw),
	}
}

func (c *FetchConfig) check() error {
	if c.TrustPoolRaw == nil {
		return errors.New("it has no effect without trust_pool; add one or remove the block")
	}
	return nil
}

// realmTrust has the CAs that a realm trusts, and keeps them up to date.
type realmTrust struct {
	// config is that of all pools
	config trustpool.Config
	// sourceRead is told each outcome of reading a pool
	sourceRead func(word string, err error)
	// pools are trust_pool, shadow_trust_pool and the one of fetch, as far as there are
	// any
	pools []*trustpool.Pool
	// network reaches the servers of documents
	network *source.Network
}

func newRealmTrust(realm *Realm) realmTrust {
	app := realm.app
	return realmTrust{
		config: trustpool.Config{
			Context: app.ctx, Refresh: time.Duration(realm.TrustPoolRefresh), Logger: realm.logger,
			// a function, because tests replace the clock later
			Now: func() time.Time { return app.Now() },
		},
		sourceRead: realm.events.SourceRead,
		network:    source.NewNetwork(nil),
	}
}

// configOf returns the configuration of a pool.
func (r *realmTrust) configOf(word string, raw json.RawMessage, use func(*trustpool.Trust) error) trustpool.Config {
	config := r.config
	config.Word, config.Raw, config.Use = word, raw, use
	config.Report = func(err error) { r.sourceRead(word, err) }
	return config
}

// load loads a pool of CAs that vouch for clients, and has every change of it used.
func (r *realmTrust) load(word string, raw json.RawMessage, use func(*trustpool.Trust)) (*trustpool.Trust, error) {
	reporter := trustpool.NewUnusableReporter(r.config.Logger, word)
	pool, err := trustpool.Load(r.configOf(word, raw, func(t *trustpool.Trust) error {
		use(t)
		reporter.Report(t, r.config.Now())
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	r.pools = append(r.pools, pool)
	reporter.Report(pool.Trust(), r.config.Now())
	return pool.Trust(), nil
}

// loadFetch has the servers of documents reached as fetch says.
func (r *realmTrust) loadFetch(fetch *FetchConfig) error {
	if fetch == nil {
		return nil
	}
	if err := fetch.check(); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	pool, err := r.loadForServers(observed.FetchPool, fetch.TrustPoolRaw, r.network, (*trustpool.Trust).WithSystem)
	if err != nil {
		return err
	}
	r.pools = append(r.pools, pool)
	return nil
}

// loadForServers loads a pool of CAs that vouch for servers, and has the network use
// what roots makes of it, now and after every change.
func (r *realmTrust) loadForServers(word string, raw json.RawMessage, network *source.Network, roots func(*trustpool.Trust) (*x509.CertPool, error)) (*trustpool.Pool, error) {
	use := func(t *trustpool.Trust) error {
		pool, err := roots(t)
		if err == nil {
			network.SetRoots(pool)
		}
		return err
	}
	config := r.configOf(word, raw, use)
	config.EndEntities = true
	pool, err := trustpool.Load(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	if err := use(pool.Trust()); err != nil {
		pool.Close()
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	return pool, nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*FetchConfig)(nil)
