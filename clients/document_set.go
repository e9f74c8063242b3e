package clients

import (
	"context"
	"crypto/x509"
	"errors"
	"iter"
	"net/url"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxCertificateFile is the size of the largest certificate file, in bytes.
	maxCertificateFile = 1 << 20
	// maxLooks is how many files a poll looks at.
	maxLooks = 1000
	// maxFetches is how many JWK Sets are fetched at a time.
	maxFetches = 8
)

// documentSet is the documents that clients name.
type documentSet struct {
	byKey       map[documentKey]*watchedDocument
	files, urls []*watchedDocument
	// the file and the URL that a poll has come to
	lastFile, lastURL int
	// fetches bounds those that are under way
	fetches chan struct{}
}

// keepUsed keeps the documents that clients name, notes who these are, and forgets
// all others.
func (s *documentSet) keepUsed(sources []*recordSource) {
	for _, document := range s.byKey {
		document.users = nil
	}
	s.byKey, s.files, s.urls = make(map[documentKey]*watchedDocument), nil, nil
	for _, from := range sources {
		for _, e := range from.entries {
			for _, document := range e.documents {
				document.users = append(document.users, e.client.ID)
				if s.byKey[document.documentKey] != nil {
					continue
				}
				s.byKey[document.documentKey] = document
				if document.url != nil {
					s.urls = append(s.urls, document)
				} else {
					s.files = append(s.files, document)
				}
			}
		}
	}
}

// nextFiles yields the files that it is the turn of.
func (s *documentSet) nextFiles() iter.Seq[*watchedDocument] {
	return func(yield func(*watchedDocument) bool) {
		for range min(len(s.files), maxLooks) {
			s.lastFile = (s.lastFile + 1) % len(s.files)
			if !yield(s.files[s.lastFile]) {
				return
			}
		}
	}
}

// startFetches fetches what is due in the background, a few at a time.
func (s *documentSet) startFetches(ctx context.Context, now time.Time) {
	for range s.urls {
		s.lastURL = (s.lastURL + 1) % len(s.urls)
		document := s.urls[s.lastURL]
		if now.Before(document.url.Due()) {
			continue
		}
		select {
		case s.fetches <- struct{}{}:
		default:
			s.lastURL += len(s.urls) - 1 // it is the first, next time
			return
		}
		go func() {
			document.fetch(ctx)
			<-s.fetches
		}()
	}
}

// keySetOpener opens JWK Sets behind URLs.
type keySetOpener struct {
	fetch func(ctx context.Context, address string, limit int64) (source.Document, error)
	now   func() time.Time
	// before has what was fetched, and copies returns what was stored, by name; both
	// are nil once the directory is made
	before *Directory
	copies func() map[string]keySetCopy
}

// open opens a JWK Set, which begins with what is known of it.
func (o *keySetOpener) open(key documentKey) (*watchedDocument, error) {
	opened := &watchedDocument{documentKey: key, contents: new(contents)}
	var err error
	opened.url, err = source.NewURL(source.URLConfig{
		Address: key.place, MaxBytes: maxKeySetBytes, Accept: opened.accept, Fetch: o.fetch, Now: o.now,
	})
	if err != nil {
		return nil, err
	}
	opened.name = opened.url.Name()
	if o.before.takeOverURL(opened) {
		return opened, nil
	}
	if o.copies != nil {
		kept, ok := o.copies()[copyName(key.place)]
		if ok && o.now().Sub(kept.Fetched).Abs() < copyLifetime && opened.url.Begin(kept.KeySet, kept.Fetched) {
			opened.contents, opened.saved = opened.accepted, kept.Fetched
		}
	}
	return opened, nil
}

// plannedDocuments are the documents as they would be after some changes.
type plannedDocuments struct {
	now time.Time
	// known are open already, opened are not
	known, opened map[documentKey]*watchedDocument
	// changed have new contents
	changed map[*watchedDocument]*contents
	// used are those of the client that is being made
	used   []*watchedDocument
	opener *keySetOpener
}

func newPlannedDocuments(known map[documentKey]*watchedDocument, opener *keySetOpener, now time.Time) *plannedDocuments {
	return &plannedDocuments{now: now, known: known, opener: opener, opened: make(map[documentKey]*watchedDocument), changed: make(map[*watchedDocument]*contents)}
}

// certificate returns the certificate in a PEM file.
func (ds *plannedDocuments) certificate(file string) (*x509.Certificate, error) {
	certificates, err := ds.inFile(KindCertificate, file, maxCertificateFile)
	if err != nil {
		return nil, err
	}
	return certificates[0], nil
}

// keySet returns the certificates of a JWK Set in a file.
func (ds *plannedDocuments) keySet(file string) ([]*x509.Certificate, error) {
	return ds.inFile(KindJWKS, file, maxKeySetBytes)
}

// keySetAt returns the certificates of a JWK Set behind a URL, nil if it has not
// been fetched, and the URL without a password.
func (ds *plannedDocuments) keySetAt(address string) (name string, certificates []*x509.Certificate, err error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return "", nil, err
	}
	certificates, err = ds.certificates(documentKey{KindJWKS, address, true}, ds.opener.open)
	return parsed.Redacted(), certificates, err
}

func (ds *plannedDocuments) inFile(kind Kind, path string, limit int64) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, errors.New("the file name is empty; name a file")
	}
	return ds.certificates(documentKey{kind, path, false}, func(key documentKey) (*watchedDocument, error) {
		file := &parsedFile[*contents]{File: source.NewFile(path, limit), parse: key.parse}
		parsed, _, err := file.look(ds.now)
		if err != nil {
			return nil, err
		}
		return &watchedDocument{documentKey: key, name: path, file: file, contents: parsed, status: status{success: ds.now}}, nil
	})
}

// certificates returns the certificates of a document, which is opened if it is
// not yet.
func (ds *plannedDocuments) certificates(key documentKey, open func(documentKey) (*watchedDocument, error)) ([]*x509.Certificate, error) {
	document := ds.known[key]
	if document == nil {
		document = ds.opened[key]
	}
	if document == nil {
		var err error
		if document, err = open(key); err != nil {
			return nil, err
		}
		ds.opened[key] = document
	}
	ds.used = append(ds.used, document)
	if changed := ds.changed[document]; changed != nil {
		return changed.certificates, nil
	}
	return document.contents.certificates, nil
}
