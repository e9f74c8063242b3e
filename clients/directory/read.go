package directory

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
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
	i := slices.IndexFunc(d.sources, func(s *recordSource) bool { return s.name == sourceName })
	if i < 0 {
		return fmt.Errorf("unknown source of clients '%s'", sourceName)
	}
	s := d.sources[i]
	d.changing.Lock()
	defer d.changing.Unlock()
	u := d.newUpdate(s, false)
	u.plan.locked = true
	u.source = &recordSource{name: s.name, rank: s.rank, from: s.from, info: s.info, origin: s.origin}
	u.source.info.SkipBad = false
	record, err := u.take(clients.Entry{ID: id, Record: text})
	if wrong := new(clients.RecordError); errors.As(err, &wrong) {
		return wrong.Err
	}
	if err != nil || record.client == nil {
		return err
	}
	if record.known {
		if w := d.waiting.Load().of(record.client); w != nil {
			return w.err
		}
		return nil
	}
	edit := d.Registry().Edit()
	if old := d.clientOf(s, record.client.ID); old != nil {
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
		waiting := d.waiting.Load().counts[s.rank]
		sizes[i] = SourceSize{Source: s.name, Clients: s.size - waiting, Refused: waiting + s.skipped.count()}
	}
	return sizes
}

// States returns the states of all sources, and of certificate files and JWK Sets
// of clients, at most limit of these.
func (d *Directory) States(limit int) []SourceState {
	d.mu.Lock()
	defer d.mu.Unlock()
	var states []SourceState
	for _, s := range d.sources {
		if s.from != nil {
			states = append(states, SourceState{s.label(), s.success, s.failure(), s.info.Refresh, s.copy, s.copyTime})
		}
	}
	limit += len(states)
	for _, document := range slices.Concat(d.documents.files.all, d.documents.urls.all) {
		state := SourceState{Refresh: source.LookInterval}
		if document.url != nil {
			state.Refresh = document.url.Interval()
			if document.url.Begun() {
				state.Copy, state.CopyTime = CopyStorage, document.url.Success()
			}
			// a fetch may succeed though its result cannot be put in force
			document.success = document.url.Success()
		}
		state.Success, state.Failure = document.success, document.failure()
		for _, label := range document.labels() {
			if len(states) == limit {
				return states
			}
			state.Source = label
			states = append(states, state)
		}
	}
	return states
}

// readTime returns when a source was last read, or from when what is used instead is.
func (d *Directory) readTime(name string) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sources {
		switch {
		case s.name != name:
		case s.success.IsZero():
			return s.copyTime
		default:
			return s.success
		}
	}
	return time.Time{}
}

// Unfetched returns how many JWK Sets have never been fetched.
func (d *Directory) Unfetched() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	count := 0
	for _, document := range d.documents.urls.all {
		if _, known := document.url.Content(); !known {
			count++
		}
	}
	return count
}

// maxFilesRead is how many certificate files [Directory.CertificateFiles] looks at.
const maxFilesRead = 10_000

// CertificateFile is the certificate in a file that a client names.
type CertificateFile struct {
	ClientID    string
	Certificate *x509.Certificate
}

// CertificateFiles returns the certificates in files that expire within a time, soonest
// first, at most limit, and how many more there are. It looks at 10,000 files.
func (d *Directory) CertificateFiles(from, until time.Time, limit int) (list []CertificateFile, more int) {
	d.mu.Lock()
	for _, document := range d.documents.files.all[:min(len(d.documents.files.all), maxFilesRead)] {
		if document.kind != clients.KindCertificate || document.contents == nil {
			continue
		}
		certificate := document.certificates[0]
		if certificate.NotAfter.Before(from) || certificate.NotAfter.After(until) {
			continue
		}
		for _, id := range document.userIDs() {
			list = append(list, CertificateFile{id, certificate})
		}
	}
	d.mu.Unlock()
	slices.SortFunc(list, func(a, b CertificateFile) int {
		return cmp.Or(a.Certificate.NotAfter.Compare(b.Certificate.NotAfter), cmp.Compare(a.ClientID, b.ClientID))
	})
	more = max(len(list)-limit, 0)
	return list[:len(list)-more], more
}
