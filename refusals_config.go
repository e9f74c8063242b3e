package mtlsauth

import (
	"cmp"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
)

const (
	maxKeep                = 100_000
	minKeepFor             = time.Minute
	maxKeepFor             = 30 * 24 * time.Hour
	defaultMetricsByClient = 1000
	maxMetricsByClient     = 10_000
)

// RefusalsConfig says what a realm remembers about refused requests for the people who run
// it. Nothing is decided by that. A reload forgets nothing, a restart everything.
type RefusalsConfig struct {
	// How many refusals are remembered, from 1 to 100 000. They take at most 32 MiB.
	// Default: `10000`.
	Keep *int `json:"keep,omitempty"`

	// How long refusals, and certificates that belong to nobody, are remembered, from `1m`
	// to `30d`. Default: `24h`.
	KeepFor caddy.Duration `json:"keep_for,omitempty"`

	// With how many clients at most the realm's refusals are counted by client in the
	// metrics, up to 10 000. With 0, they never are. Default: `1000`.
	MetricsByClient *int `json:"metrics_by_client,omitempty"`
}

// UnmarshalCaddyfile reads what is remembered about refusals. Syntax:
//
//	refusals {
//		keep              <count>
//		keep_for          <duration>
//		metrics_by_client <max_clients>
//	}
func (c *RefusalsConfig) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := parseBlock(d, "refusals option", c.options()); err != nil {
		return err
	}
	if *c == (RefusalsConfig{}) {
		return d.Err("refusals: it has no effect without keep, keep_for or metrics_by_client; add one or remove the block")
	}
	return nil
}

// options returns the options of the block.
func (c *RefusalsConfig) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"keep <count>":                    caddyfileutil.Number(&c.Keep, checkKeep),
		"keep_for <duration>":             caddyfileutil.Duration(&c.KeepFor, checkKeepFor),
		"metrics_by_client <max_clients>": caddyfileutil.Number(&c.MetricsByClient, checkMetricsByClient),
	}
}

func checkKeep(count int) error {
	if count < 1 || count > maxKeep {
		return fmt.Errorf("keep %d is out of range; use 1 to %d", count, maxKeep)
	}
	return nil
}

func checkKeepFor(d caddy.Duration) error {
	if time.Duration(d) < minKeepFor || time.Duration(d) > maxKeepFor {
		return fmt.Errorf("keep_for %s is out of range; use 1m to 30d", time.Duration(d))
	}
	return nil
}

func checkMetricsByClient(clients int) error {
	if clients < 0 || clients > maxMetricsByClient {
		return fmt.Errorf("metrics_by_client %d is out of range; use 0 to %d", clients, maxMetricsByClient)
	}
	return nil
}

// check returns what is wrong with the configuration. A nil one has the defaults.
func (c *RefusalsConfig) check() error {
	if c == nil {
		return nil
	}
	if c.Keep != nil {
		if err := checkKeep(*c.Keep); err != nil {
			return err
		}
	}
	if c.KeepFor != 0 {
		if err := checkKeepFor(c.KeepFor); err != nil {
			return err
		}
	}
	return checkMetricsByClient(c.metricsByClient())
}

// metricsByClient returns with how many clients refusals are counted by client.
func (c *RefusalsConfig) metricsByClient() int {
	if c == nil || c.MetricsByClient == nil {
		return defaultMetricsByClient
	}
	return *c.MetricsByClient
}

// limits returns what the realm remembers about refusals. A nil configuration has the
// defaults.
func (c *RefusalsConfig) limits(now func() time.Time) refusals.Limits {
	limits := refusals.Limits{Keep: refusals.DefaultKeep, KeepFor: refusals.DefaultKeepFor, Now: now}
	if c != nil {
		if c.Keep != nil {
			limits.Keep = *c.Keep
		}
		limits.KeepFor = cmp.Or(time.Duration(c.KeepFor), limits.KeepFor)
	}
	return limits
}
