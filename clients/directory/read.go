package directory

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// Registry returns the clients as they are now.
func (d *Directory) Registry() *clients.Registry { return d.registry.Load() }

// Writer returns the source that clients are written to, the first that can be, if any.
func (d *Directory) Writer() (clients.Writer, bool) {
	for _, s := range d.sources {
		if writer, ok := s.from.(clients.Writer); ok {
			return writer, true
		}
	}
	return nil, false
}

// CheckRecord returns why a source could not have a record under a client_id, with
// everything else as it is now. Nothing changes. A client of another source that is in
// its way is an error as well, whatever its rank, unless it would have to give way.
func (d *Directory) CheckRecord(sourceName, id string, text []byte) error {
	s := d.source(sourceName)
	if s == nil {
		return fmt.Errorf("unknown source of clients '%s'", sourceName)
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	u := s.newUpdate(false)
	u.plan.locked = true
	u.source = &recordSource{directory: d, name: s.name, rank: s.rank, from: s.from, info: s.info, origin: s.origin}
	u.source.info.SkipBad = false
	record, err := u.take(clients.Entry{ID: id, Record: text})
	if wrong := new(clients.RecordError); errors.As(err, &wrong) {
		return wrong.Err
	}
	if err != nil || record.client == nil {
		return err
	}
	if record.known {
		if w := d.waiting.list().of(record.client); w != nil {
			return w.err
		}
		return nil
	}
	edit := d.Registry().Edit()
	if old := s.clientOf(record.client.ID); old != nil {
		edit.Remove(old)
	}
	_, err = edit.Add(record.client)
	return err
}

// Supplied returns the names of the sources that have clients, in force or waiting. A nil
// directory has none.
func (d *Directory) Supplied() (names []string) {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sources {
		if s.from != nil && s.size > 0 {
			names = append(names, s.name)
		}
	}
	return names
}

// Sizes returns how many clients the configuration and each source have.
func (d *Directory) Sizes() []SourceSize {
	d.mu.Lock()
	defer d.mu.Unlock()
	sizes := make([]SourceSize, len(d.sources))
	for i, s := range d.sources {
		waiting := d.waiting.list().counts[s.rank]
		sizes[i] = SourceSize{Source: s.name, Clients: s.size - waiting, Refused: waiting + s.skipped.count()}
	}
	return sizes
}

// States returns the states of all sources, and of certificate files and JWK Sets
// of clients, at most limit of these.
func (d *Directory) States(limit int) []SourceState {
	var states []SourceState
	d.mu.Lock()
	for _, s := range d.sources {
		if s.from != nil {
			states = append(states, SourceState{s.label(), s.success, s.failure(), s.info.Refresh, s.copy, s.copyTime})
		}
	}
	d.mu.Unlock()
	return append(states, d.documents.states(limit)...)
}

// CertificateFile is the certificate in a file that a client names.
type CertificateFile struct {
	ClientID    string
	Certificate *x509.Certificate
}

// WaitingClient is a client that is not in force, because a client of a source with a
// higher rank has its client_id or one of its credentials.
type WaitingClient struct {
	*clients.Client
	// Holder is the other client.
	Holder *clients.Client
	// Reason says what it has.
	Reason error
}

// Waiting yields the clients that are not in force, in the order of their client_id,
// from id on.
func (d *Directory) Waiting(id string) iter.Seq[WaitingClient] {
	return func(yield func(WaitingClient) bool) {
		d.waiting.list().tree.AscendGreaterOrEqual(&wait{client: &clients.Client{ID: id, Origin: clients.NewOrigin("", -1)}}, func(w *wait) bool {
			return yield(WaitingClient{w.client, w.holder, w.err})
		})
	}
}

// Unfetched returns how many JWK Sets have never been fetched.
func (d *Directory) Unfetched() int { return d.documents.unfetched() }

// Troubles says which certificate files and JWK Sets cannot be read now, or were never
// read, whose they are, and why: their certificates may be unknown. It names 100 at
// most.
func (d *Directory) Troubles() []string { return d.documents.troubles() }

// CertificateFiles returns the certificates in files that expire within a time, soonest
// first, at most limit, and how many more there are. It looks at 10,000 files.
func (d *Directory) CertificateFiles(from, until time.Time, limit int) (list []CertificateFile, more int) {
	return d.documents.certificateFiles(from, until, limit)
}

// SaveCopies stores the JWK Sets behind URLs, if storage has no copy or an old one of
// any. It does nothing without [Config.Copies], and must not be called concurrently.
func (d *Directory) SaveCopies(ctx context.Context) error { return d.documents.saveCopies(ctx) }

// source returns the configuration or source of that name, or nil. A nil directory has
// none.
func (d *Directory) source(name string) *recordSource {
	if d == nil {
		return nil
	}
	if i := slices.IndexFunc(d.sources, func(s *recordSource) bool { return s.name == name }); i >= 0 {
		return d.sources[i]
	}
	return nil
}
