// Package directory is an example of a source of clients: a directory of machines, such
// as an LDAP server or the tables of an inventory. Copy it, and replace [Open].
package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// Machine is what the directory has about a machine.
type Machine struct {
	Name    string // its client_id
	DN      string // the subject of its certificate
	Scopes  string
	Retired bool
}

// Change is that a machine is new, has changed, or is gone.
type Change struct {
	Name    string
	Machine *Machine // nil if it is gone
}

// Directory is what the source needs of the directory.
type Directory interface {
	// All returns all machines.
	All(ctx context.Context) iter.Seq2[Machine, error]
	// Changes waits for changes. Its error says that some may have been missed.
	Changes(ctx context.Context) ([]Change, error)
}

// Open connects to the directory at an address.
var Open = func(ctx context.Context, address string) (Directory, error) {
	return nil, errors.New("this is an example; connect to your directory here")
}

func init() { caddy.RegisterModule(new(Source)) }

// Source reads clients from the directory. It is both the Caddy module and the source.
type Source struct {
	// The address of the directory. Required.
	Address string `json:"address,omitempty"`

	directory Directory
	// pause is how long it waits after a failure
	pause time.Duration
}

// CaddyModule returns the Caddy module information. The source in
// `clients_from directory` is the module mtls.clients.directory.
func (*Source) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "mtls.clients.directory",
		New: func() caddy.Module { return &Source{pause: 5 * time.Second} },
	}
}

// UnmarshalCaddyfile reads the rest of the line. Syntax:
//
//	clients_from directory <address>
func (s *Source) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if !d.Args(&s.Address) {
		return d.ArgErr()
	}
	return nil
}

// ClientSources implements [clients.SourceModule]. Connecting is left to Load, which may
// take its time.
func (s *Source) ClientSources(clients.Host) ([]clients.Source, error) {
	if s.Address == "" {
		return nil, errors.New("no address; add one")
	}
	return []clients.Source{s}, nil
}

// Info implements [clients.Source].
func (s *Source) Info() clients.SourceInfo {
	return clients.SourceInfo{Name: "directory:" + s.Address, LoadTimeout: 20 * time.Second, Refresh: s.pause}
}

// Load implements [clients.Source].
func (s *Source) Load(ctx context.Context, sink clients.Sink) (err error) {
	if s.directory, err = Open(ctx, s.Address); err != nil {
		// so that a reload keeps the clients of the running configuration
		return fmt.Errorf("%w: %w", clients.ErrUnavailable, err)
	}
	return sink.Replace(ctx, s.all(ctx))
}

// all returns the records of all machines, one at a time.
func (s *Source) all(ctx context.Context) iter.Seq2[clients.Entry, error] {
	return func(yield func(clients.Entry, error) bool) {
		for machine, err := range s.directory.All(ctx) {
			entry := clients.Entry{ID: machine.Name}
			if err == nil {
				entry, err = entryOf(machine)
			}
			if !yield(entry, err) || err != nil {
				return
			}
		}
	}
}

// Watch implements [clients.Source]. After a failure it begins anew, so that it misses
// nothing: a record that has not changed costs next to nothing.
func (s *Source) Watch(ctx context.Context, sink clients.Sink) {
	complete := s.directory != nil // as Load has left it
	for ctx.Err() == nil {
		var err error
		if complete {
			err = s.follow(ctx, sink)
		} else {
			err = s.Load(ctx, sink)
		}
		complete = err == nil
		if err == nil || ctx.Err() != nil {
			continue
		}
		if s.directory == nil { // the sink has not been told
			sink.Note(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.pause):
		}
	}
}

// follow hands over the next changes.
func (s *Source) follow(ctx context.Context, sink clients.Sink) error {
	changes, err := s.directory.Changes(ctx)
	if err != nil {
		s.directory = nil
		return fmt.Errorf("%w: %w", clients.ErrUnavailable, err)
	}
	entries := make([]clients.Entry, len(changes))
	for i, change := range changes {
		entries[i] = clients.Entry{ID: change.Name} // gone, without a record
		if change.Machine == nil {
			continue
		}
		if entries[i], err = entryOf(*change.Machine); err != nil {
			return err
		}
	}
	return sink.Update(ctx, entries)
}

// entryOf returns the record of a machine. Its client is what RFC 7591 calls client
// metadata; see docs/reference/client-records.md.
func entryOf(machine Machine) (clients.Entry, error) {
	record, err := json.Marshal(clients.Record{
		ClientID: machine.Name, Scope: machine.Scopes, SubjectDN: clients.Strings{machine.DN}, Disabled: machine.Retired,
	})
	return clients.Entry{ID: machine.Name, Record: record, Place: "machine " + machine.Name}, err
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Source)(nil)
	_ clients.SourceModule  = (*Source)(nil)
	_ clients.Source        = (*Source)(nil)
)
