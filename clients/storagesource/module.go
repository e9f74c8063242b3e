package storagesource

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
)

// Clients has the clients that are in the realm's storage. They can be changed with the
// admin API of every Caddy that shares the storage. A change is in force at once on the
// Caddy that made it, and within 10 seconds on the others. Placeholders in records are
// not expanded.
type Clients struct {
	// What a record that is wrong does: `refuse` refuses the whole change, and `skip`
	// leaves out this record, so that what its client had stays in force. With `skip`,
	// Caddy also starts without the clients of an object in storage that is damaged or
	// missing. Default: `refuse`.
	OnBadRecord string `json:"on_bad_record,omitempty"`

	ctx caddy.Context
}

// CaddyModule returns the Caddy module information.
func (*Clients) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "mtls.clients.storage",
		New: func() caddy.Module { return new(Clients) },
	}
}

// Provision checks the settings.
func (c *Clients) Provision(ctx caddy.Context) error {
	c.ctx = ctx
	if c.OnBadRecord != "" {
		if err := clients.CheckOnBadRecord(c.OnBadRecord); err != nil {
			return fmt.Errorf("on_bad_record '%s': %w", c.OnBadRecord, err)
		}
	}
	return nil
}

// UnmarshalCaddyfile reads the rest of clients_from. Syntax:
//
//	clients_from storage {
//		on_bad_record refuse|skip
//	}
func (c *Clients) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if err := caddyfileutil.CheckArgs(d, "storage {"); err != nil {
		return err
	}
	return caddyfileutil.ParseBlock(d, "clients_from storage option", c.options(), nil)
}

// options returns the options of the block.
func (c *Clients) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"on_bad_record refuse|skip": caddyfileutil.String(&c.OnBadRecord, clients.CheckOnBadRecord),
	}
}

// ClientSources implements [clients.SourceModule].
func (c *Clients) ClientSources(host clients.Host) ([]clients.Source, error) {
	ended := func() bool { return c.ctx.Err() != nil }
	return []clients.Source{newSource(host, c.OnBadRecord == clients.OnBadRecordSkip, ended)}, nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Clients)(nil)
	_ caddyfile.Unmarshaler = (*Clients)(nil)
	_ clients.SourceModule  = (*Clients)(nil)
	_ clients.Writer        = (*Source)(nil)
)
