package clients

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// plan is what would be in force after some changes. Making one changes nothing.
type plan struct {
	directory *Directory
	now       time.Time
	changes   changes
	// opened are documents that the directory does not have, and changed those with
	// new contents
	opened  map[documentKey]*watchedDocument
	changed map[*watchedDocument]*contents
	// used are the documents of the client that is being made
	used     []*watchedDocument
	entries  [][]entry // for each source
	registry *Registry
	warnings []warning
}

func newPlan(d *Directory, found changes) (*plan, error) {
	p := &plan{
		directory: d, now: d.config.Now(), changes: found,
		opened: make(map[documentKey]*watchedDocument), changed: make(map[*watchedDocument]*contents),
	}
	changed := make(map[*recordSource][]Record)
	for _, c := range found {
		if c.source != nil {
			changed[c.source] = c.records
		} else {
			p.changed[c.document] = c.contents
		}
	}
	var list []*Client
	for _, s := range d.sources {
		entries := s.entries
		var err error
		if records, ok := changed[s]; ok {
			entries, err = p.makeEntries(s, records)
			if s.name != SourceConfig && len(records) == 0 {
				p.warnings = append(p.warnings, warning{text: fmt.Sprintf("clients from %s: source has no clients", s.name)})
			}
		} else if len(p.changed) > 0 {
			entries, err = p.remakeEntries(s)
		}
		if err != nil {
			return nil, s.wrap(err)
		}
		p.entries = append(p.entries, entries)
		for _, e := range entries {
			list = append(list, e.client)
		}
	}
	var err error
	p.registry, err = newRegistry(list)
	return p, err
}

// makeEntries makes the clients of a source.
func (p *plan) makeEntries(s *recordSource, records []Record) ([]entry, error) {
	entries := make([]entry, 0, len(records))
	for i := range records {
		e, warnings, err := p.makeEntry(s, &records[i])
		if err != nil {
			return nil, err
		}
		p.warnings = append(p.warnings, warnings...)
		entries = append(entries, e)
	}
	return entries, nil
}

// remakeEntries makes those clients again that name a document with new content.
func (p *plan) remakeEntries(s *recordSource) ([]entry, error) {
	entries := slices.Clone(s.entries)
	for i, e := range entries {
		if !slices.ContainsFunc(e.documents, func(d *watchedDocument) bool { return p.changed[d] != nil }) {
			continue
		}
		var err error
		if entries[i], _, err = p.makeEntry(s, e.record); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

func (p *plan) makeEntry(s *recordSource, record *Record) (entry, []warning, error) {
	p.used = nil
	text, err := json.Marshal(record)
	if err != nil {
		return entry{}, nil, err
	}
	client, warnings, err := newClient(text, p)
	if err == nil {
		err = p.directory.config.Check(client)
	}
	if err != nil {
		return entry{}, nil, err
	}
	client.source = s.name
	e := entry{client: client, documents: p.used}
	if len(e.documents) > 0 {
		kept := *record
		e.record = &kept
	}
	return e, warnings, nil
}

// certificate returns the certificate in a PEM file.
func (p *plan) certificate(file string) (*x509.Certificate, error) {
	certificates, err := p.inFile(KindCertificate, file, maxCertificateFile)
	if err != nil {
		return nil, err
	}
	return certificates[0], nil
}

// keySet returns the certificates of a JWK Set in a file.
func (p *plan) keySet(file string) ([]*x509.Certificate, error) {
	return p.inFile(KindJWKS, file, maxKeySetBytes)
}

// keySetAt returns the certificates of a JWK Set behind a URL, nil if it has not
// been fetched, and the URL as [source.ShownURL] shows it.
func (p *plan) keySetAt(address string) (name string, certificates []*x509.Certificate, err error) {
	certificates, err = p.certificates(documentKey{KindJWKS, address, true}, p.directory.openKeySet)
	return source.ShownURL(address), certificates, err
}

func (p *plan) inFile(kind Kind, path string, limit int64) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, errors.New("the file name is empty; name a file")
	}
	return p.certificates(documentKey{kind, path, false}, func(key documentKey) (*watchedDocument, error) {
		file := &parsedFile[*contents]{File: source.NewFile(path, limit), parse: key.parse}
		parsed, _, err := file.look(p.now)
		if err != nil {
			return nil, err
		}
		return &watchedDocument{documentKey: key, name: path, file: file, contents: parsed, status: status{success: p.now}}, nil
	})
}

// certificates returns the certificates of a document, which is opened if it is
// not yet.
func (p *plan) certificates(key documentKey, open func(documentKey) (*watchedDocument, error)) ([]*x509.Certificate, error) {
	document := p.directory.documents.byKey[key]
	if document == nil {
		document = p.opened[key]
	}
	if document == nil {
		var err error
		if document, err = open(key); err != nil {
			return nil, err
		}
		p.opened[key] = document
	}
	p.used = append(p.used, document)
	if changed := p.changed[document]; changed != nil {
		return changed.certificates, nil
	}
	return document.contents.certificates, nil
}
