package mtlsauth

import (
	"context"
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

// provisionFetch prepares the connections to servers of the realm.
func (realm *Realm) provisionFetch() error {
	realm.network = source.NewNetwork(nil)
	if realm.Fetch == nil {
		return nil
	}
	if err := realm.Fetch.check(); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	pool, err := realm.loadServerTrust(observed.FetchPool, realm.Fetch.TrustPoolRaw, realm.network, (*trustpool.Trust).WithSystem)
	if err != nil {
		return err
	}
	realm.trustPools = append(realm.trustPools, pool)
	return nil
}

// loadServerTrust loads a pool of CAs that vouch for servers, and has the network use
// what roots makes of it, now and after every change.
func (realm *Realm) loadServerTrust(word string, raw json.RawMessage, network *source.Network, roots func(*trustpool.Trust) (*x509.CertPool, error)) (*trustpool.Pool, error) {
	app := realm.app
	use := func(t *trustpool.Trust) error {
		pool, err := roots(t)
		if err == nil {
			network.SetRoots(pool)
		}
		return err
	}
	pool, err := trustpool.Load(trustpool.Config{
		Context: app.ctx, Word: word, Raw: raw, Refresh: time.Duration(realm.TrustPoolRefresh), EndEntities: true,
		// a function, because tests replace the clock later
		Now: func() time.Time { return app.Now() }, Logger: realm.logger, Use: use,
		Report: func(err error) { realm.events.SourceRead(word, err) },
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	if err := use(pool.Trust()); err != nil {
		pool.Close()
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	return pool, nil
}

// fetchSecure gets a document that is trusted because of where it comes from.
func (realm *Realm) fetchSecure(ctx context.Context, address string, limit int64) (source.Document, error) {
	if realm.app.Fetch != nil {
		return realm.app.Fetch(ctx, address, limit)
	}
	return source.NewSecureFetcher(realm.network).Get(ctx, address, limit)
}

// Interface guard
var _ caddyfile.Unmarshaler = (*FetchConfig)(nil)
