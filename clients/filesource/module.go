package filesource

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
)

// Files reads clients from files, and from folders of files. A file is a JSON array of
// client records like those of the configuration, JSON Lines (`.jsonl`, `.ndjson`), or
// YAML (`.yaml`, `.yml`). Placeholders are not expanded in records. Files and folders are
// watched. A change takes effect within a second, as a whole; one that is broken, or in
// conflict with other clients, changes nothing.
type Files struct {
	// The files, and folders of files. A relative path is relative to the working
	// directory of the process. Required.
	Files []string `json:"files,omitempty"`

	// What a record that is wrong does: `refuse` refuses the whole change, and `skip`
	// leaves out this record, so that what its client had stays in force. Default:
	// `refuse`.
	OnBadRecord string `json:"on_bad_record,omitempty"`

	paths []string
}

// CaddyModule returns the Caddy module information.
func (*Files) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "mtls.clients.file",
		New: func() caddy.Module { return new(Files) },
	}
}

// Provision resolves the placeholders in the names of the files.
func (f *Files) Provision(caddy.Context) error {
	if len(f.Files) == 0 {
		return errors.New("no file is named; add one")
	}
	if f.OnBadRecord != "" {
		if err := clients.CheckOnBadRecord(f.OnBadRecord); err != nil {
			return fmt.Errorf("on_bad_record '%s': %w", f.OnBadRecord, err)
		}
	}
	var err error
	if f.paths, err = caddyfileutil.ExpandAll("file", f.Files); err != nil {
		return err
	}
	if slices.Contains(f.paths, "") {
		return errors.New("the name of a file is empty; name a file")
	}
	return nil
}

// UnmarshalCaddyfile reads the files of clients_from. Syntax:
//
//	clients_from file <path>... {
//		on_bad_record refuse|skip
//	}
func (f *Files) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if err := caddyfileutil.CheckArgs(d, "file <path>... {"); err != nil {
		return err
	}
	if err := caddyfileutil.List(&f.Files, nil).Parse(d); err != nil {
		return err
	}
	return caddyfileutil.ParseBlock(d, "clients_from file option", f.options(), nil)
}

// options returns the options of the block.
func (f *Files) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"on_bad_record refuse|skip": caddyfileutil.String(&f.OnBadRecord, clients.CheckOnBadRecord),
	}
}

// ClientSources implements [clients.SourceModule].
func (f *Files) ClientSources(host clients.Host) ([]clients.Source, error) {
	sources := make([]clients.Source, len(f.paths))
	for i, path := range f.paths {
		sources[i] = New(Config{Path: path, SkipBad: f.OnBadRecord == clients.OnBadRecordSkip, Logger: host.Logger, Now: host.Now})
	}
	return sources, nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Files)(nil)
	_ caddyfile.Unmarshaler = (*Files)(nil)
	_ clients.SourceModule  = (*Files)(nil)
)
