package directory

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// errNeedsDocument is why a client cannot be made without the lock of the directory: it
// names a document, which may change until the client is in force.
var errNeedsDocument = errors.New("it names a document")

// plan makes clients of records, with the documents that these name. It changes nothing
// in the directory.
type plan struct {
	directory *Directory
	now       time.Time
	// locked is set while the caller holds changing
	locked bool
	// opened are documents that the directory does not have, and changed those with
	// new contents
	opened  map[documentKey]*watchedDocument
	changed map[*watchedDocument]*contents
	// used are the documents of the client that is being made for a source
	used   []*watchedDocument
	source *recordSource
	usedBy map[*clients.Client][]*watchedDocument

	warnings warningList
	pace     *pace // nil if no requests are served, or none can wait for the update
}

// make makes the client of a record. The text is copied.
func (p *plan) make(s *recordSource, text []byte) (*clients.Client, error) {
	p.pace.step()
	p.used, p.source = nil, s
	client, warnings, err := clients.New(text, s.origin, p, p.now)
	if err != nil {
		return nil, err
	}
	if err := p.directory.config.Check(client); err != nil {
		return nil, err
	}
	if len(p.used) > 0 {
		p.usedBy[client] = p.used
	}
	p.warnings.add(warnings)
	return client, nil
}

// Certificate implements [Documents].
func (p *plan) Certificate(file string) (*x509.Certificate, error) {
	certificates, err := p.inFile(clients.KindCertificate, file, maxCertificateFile)
	if err != nil {
		return nil, err
	}
	return certificates[0], nil
}

// KeySet implements [Documents].
func (p *plan) KeySet(file string) ([]*x509.Certificate, error) {
	return p.inFile(clients.KindJWKS, file, clients.MaxKeySetBytes)
}

// KeySetAt implements [Documents].
func (p *plan) KeySetAt(address string) (name string, certificates []*x509.Certificate, err error) {
	certificates, err = p.certificates(documentKey{clients.KindJWKS, address, true}, p.openKeySet)
	return source.ShownURL(address), certificates, err
}

// openKeySet opens a JWK Set behind a URL, which begins with what is known of it.
func (p *plan) openKeySet(key documentKey) (*watchedDocument, error) {
	opened := &watchedDocument{documentKey: key, contents: new(contents), users: make(map[*clients.Client]struct{})}
	var err error
	opened.url, err = source.NewURL(source.URLConfig{
		Address: key.place, MaxBytes: clients.MaxKeySetBytes, Accept: opened.accept, Fetch: p.directory.config.Fetch, Now: p.directory.config.Now,
	})
	if err != nil {
		return nil, err
	}
	opened.name = opened.url.Name()
	begin := p.directory.beginning.Load()
	if begin == nil || begin.takeOver(opened) || begin.copies == nil {
		return opened, nil
	}
	kept, ok := begin.copies()[copyName(key.place)]
	if ok && p.directory.config.Now().Sub(kept.Fetched).Abs() < copyLifetime && opened.url.Begin(kept.KeySet, kept.Fetched) {
		opened.contents, opened.saved = opened.accepted, kept.Fetched
	}
	return opened, nil
}

func (p *plan) inFile(kind clients.Kind, path string, limit int64) ([]*x509.Certificate, error) {
	if p.source.from != nil && !p.source.info.NamesFiles {
		return nil, errors.New("records of this source must not name files; write the certificate out as a thumbprint, or the JWKS as jwks")
	}
	return p.certificates(documentKey{kind, path, false}, func(key documentKey) (*watchedDocument, error) {
		opened := &watchedDocument{
			documentKey: key, name: path, file: source.NewFile(path, limit),
			users: make(map[*clients.Client]struct{}), status: status{success: p.now},
		}
		var err error
		opened.contents, _, err = opened.look(p.now)
		return opened, err
	})
}

// certificates returns the certificates of a document, which is opened if it is
// not yet.
func (p *plan) certificates(key documentKey, open func(documentKey) (*watchedDocument, error)) ([]*x509.Certificate, error) {
	if !p.locked {
		return nil, errNeedsDocument
	}
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
