package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
)

// Table reads clients from a table of a PostgreSQL database, which `caddy mtls clients
// init-db` creates. The admin API changes them. A change, also one that another program
// makes in the table, takes effect within a second. Placeholders in records are not
// expanded.
type Table struct {
	// The database, as a URL or as `key=value` pairs, both as in libpq. The
	// configuration is readable through the admin API, so keep a password out of it:
	// write `{env.*}` or `{file.*}`. Required.
	DSN string `json:"dsn,omitempty"`

	// The name of the table as SQL has it, possibly with a schema. Default:
	// `mtls_clients`.
	Table string `json:"table,omitempty"`

	// A file with a copy of the clients, which Caddy starts with if the database is
	// unavailable. It is written after changes, at most once a minute if it has
	// clients, and when Caddy stops. A relative path is relative to the working directory of the process. Default: no copy, so Caddy
	// does not start without the database.
	KeepCopy string `json:"keep_copy,omitempty"`

	// Whether the admin API must not change the clients. The role then needs no more
	// than to read the table.
	ReadOnly bool `json:"read_only,omitempty"`

	// What happens if a record is wrong: `refuse` refuses the whole update and keeps what
	// was in force; `skip` skips the record and keeps what was in force under its
	// client_id. Default: `refuse`.
	OnBadRecord string `json:"on_bad_record,omitempty"`

	// How often Caddy looks for changes that the database did not notify it of. From a
	// second to an hour. Default: `10s`.
	Refresh caddy.Duration `json:"refresh,omitempty"`

	// How long reading all clients may take. Default: `1m`.
	LoadTimeout caddy.Duration `json:"load_timeout,omitempty"`

	config Config
	source *Source
}

// CaddyModule returns the Caddy module information.
func (*Table) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "mtls.clients.postgres",
		New: func() caddy.Module { return new(Table) },
	}
}

// Provision checks the settings and resolves the placeholders in the DSN and in the path
// of the copy.
func (t *Table) Provision(caddy.Context) error {
	t.config = Config{
		Table: t.Table, ReadOnly: t.ReadOnly, SkipBad: t.OnBadRecord == clients.OnBadRecordSkip,
		Refresh: time.Duration(t.Refresh), LoadTimeout: time.Duration(t.LoadTimeout),
	}
	var err error
	if t.config.DSN, err = ExpandDSN(t.DSN); err != nil {
		return err
	}
	if _, err := parseDSN(t.config.DSN); err != nil {
		return err
	}
	if t.config.KeepCopy, err = caddyfileutil.Expand(t.KeepCopy); err != nil {
		return fmt.Errorf("keep_copy '%s': %w", t.KeepCopy, err)
	}
	if t.Table != "" {
		if _, err := parseTable(t.Table); err != nil {
			return err
		}
	}
	if t.OnBadRecord != "" {
		if err := clients.CheckOnBadRecord(t.OnBadRecord); err != nil {
			return fmt.Errorf("on_bad_record '%s': %w", t.OnBadRecord, err)
		}
	}
	if t.Refresh != 0 {
		if err := checkRefresh(t.Refresh); err != nil {
			return err
		}
	}
	if t.LoadTimeout != 0 {
		return checkLoadTimeout(t.LoadTimeout)
	}
	return nil
}

// placeholder matches a placeholder that is resolved in a DSN. Other braces may be part of
// a password.
var placeholder = regexp.MustCompile(`\{(env|file)\.[^{}]*\}`)

// ExpandDSN resolves the placeholders in a DSN, of which nothing else is in the error.
func ExpandDSN(dsn string) (expanded string, err error) {
	expanded = placeholder.ReplaceAllStringFunc(dsn, func(name string) string {
		value, failed := caddyfileutil.Expand(name)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("dsn: %w", failed))
		}
		return value
	})
	return expanded, err
}

func checkTable(name string) error {
	_, err := parseName(name)
	return err
}

const maxRefresh = time.Hour

func checkRefresh(d caddy.Duration) error {
	if d := time.Duration(d); d < time.Second || d > maxRefresh {
		return fmt.Errorf("refresh '%s' is not between %s and %s; choose a duration in between", d, time.Second, maxRefresh)
	}
	return nil
}

func checkLoadTimeout(d caddy.Duration) error {
	if d := time.Duration(d); d < time.Second || d > maxRefresh {
		return fmt.Errorf("load_timeout '%s' is not between %s and %s; choose a duration in between", d, time.Second, maxRefresh)
	}
	return nil
}

// UnmarshalCaddyfile reads the rest of the line of clients_from. Syntax:
//
//	clients_from postgres <dsn> {
//		table         <name>
//		keep_copy     <file>
//		read_only
//		on_bad_record refuse|skip
//		refresh       <duration>
//		load_timeout  <duration>
//	}
func (t *Table) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if !d.NextArg() {
		return d.Err("postgres: an argument is missing; write 'postgres <dsn> { … }'")
	}
	if t.DSN = d.Val(); t.DSN == "" {
		return d.Err("postgres: the DSN is empty; write one, or set the variable it comes from")
	}
	if d.NextArg() { // which may be a part of a password
		return d.Err("postgres: there is more than one argument; put a DSN with spaces in quotes")
	}
	return caddyfileutil.ParseBlock(d, "clients_from postgres option", t.options(), nil)
}

// options returns the options of the block.
func (t *Table) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"table <name>":              caddyfileutil.String(&t.Table, checkTable),
		"keep_copy <file>":          caddyfileutil.String(&t.KeepCopy, nil),
		"read_only":                 caddyfileutil.Flag(&t.ReadOnly),
		"on_bad_record refuse|skip": caddyfileutil.String(&t.OnBadRecord, clients.CheckOnBadRecord),
		"refresh <duration>":        caddyfileutil.Duration(&t.Refresh, checkRefresh),
		"load_timeout <duration>":   caddyfileutil.Duration(&t.LoadTimeout, checkLoadTimeout),
	}
}

// ClientSources implements [clients.SourceModule].
func (t *Table) ClientSources(host clients.Host) ([]clients.Source, error) {
	source, err := New(t.config, host.Logger)
	if err != nil {
		return nil, err
	}
	switch s := source.(type) {
	case *Source:
		t.source = s
	case *Writer:
		t.source = s.Source
	}
	return []clients.Source{source}, nil
}

// Cleanup writes the copy if it is to be written, because the process may end.
func (t *Table) Cleanup() error {
	if t.source != nil {
		t.source.saveLast()
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Table)(nil)
	_ caddy.CleanerUpper    = (*Table)(nil)
	_ caddyfile.Unmarshaler = (*Table)(nil)
	_ clients.SourceModule  = (*Table)(nil)
	_ clients.Copier        = (*Source)(nil)
	_ clients.Writer        = (*Writer)(nil)
	_ clients.Copier        = (*Writer)(nil)
)
