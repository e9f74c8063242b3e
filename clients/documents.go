package clients

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxCertificateFile is the size of the largest certificate file, in bytes.
const maxCertificateFile = 1 << 20

// document is a certificate file, or a JWK Set in a file or behind a URL, that
// one or more clients name.
type document struct {
	documentKey
	name string       // the place without a password
	file *source.File // nil of a URL
	url  *source.URL  // nil of a file

	contents // those that count
	status

	// users are the identifiers of the clients that name it
	users []string
	// saved is when the JWK Set was fetched of which storage has a copy, zero if
	// that is another one. It is guarded by the directory's mu
	saved time.Time
	// broken is why the file as it is cannot be read
	broken error

	mu sync.Mutex // guards what a fetch leaves
	// accepted is what was accepted last, and parsed what is in it
	accepted []byte
	parsed   *contents
	// fetched is what has been fetched and does not count yet, nil if nothing
	fetched *contents
	ended   bool  // a fetch has ended
	failed  error // with this outcome
}

// contents are the certificates of a document, and what there is to say of
// others in it.
type contents struct {
	// at is when they were fetched last, zero of a file
	at           time.Time
	certificates []*x509.Certificate
	warnings     []string
}

type documentKey struct {
	kind  Kind // KindCertificate or KindJWKS
	place string
	isURL bool
}

func (d *document) parse(content []byte) (*contents, error) {
	if d.kind == KindJWKS {
		certificates, warnings, err := parseKeySet(content)
		if err != nil {
			return nil, err
		}
		return &contents{certificates: certificates, warnings: warnings}, nil
	}
	certificate, err := parseCertificate(content)
	if err != nil {
		return nil, err
	}
	return &contents{certificates: []*x509.Certificate{certificate}}, nil
}

// look returns the contents of a file if it has others than at the last look. An
// error is returned until the file is whole again.
func (d *document) look(now time.Time) (found *contents, changed bool, err error) {
	content, changed, err := d.file.Look(now)
	if err != nil {
		return nil, false, err
	}
	if changed {
		found, d.broken = d.parse(content)
	}
	return found, changed, d.broken
}

// accept is given what was fetched if it is another JWK Set than before.
func (d *document) accept(content []byte) error {
	d.mu.Lock()
	parsed := d.parsed
	if parsed != nil && !bytes.Equal(d.accepted, content) {
		parsed = nil
	}
	d.mu.Unlock()
	if parsed == nil {
		var err error
		if parsed, err = d.parse(content); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.accepted, d.parsed, d.fetched = content, parsed, parsed
	return nil
}

// beginWith begins with a copy.
func (d *document) beginWith(kept keySetCopy) bool {
	return d.url.Begin(kept.KeySet, kept.Fetched) && d.began()
}

// takeOver begins with what another document of the same URL has, and has parsed.
func (d *document) takeOver(old *document) bool {
	old.mu.Lock()
	d.accepted, d.parsed = old.accepted, old.parsed
	old.mu.Unlock()
	return d.url.TakeOver(old.url) && d.began()
}

// began has what a URL begins with count at once.
func (d *document) began() bool {
	fetched, _, _ := d.takeFetched()
	d.contents = *fetched
	d.at = d.url.State().Success
	return true
}

// tell returns what there is to say of keys that are ignored.
func (d *document) tell() []string {
	list := make([]string, len(d.warnings))
	for i, warning := range d.warnings {
		list[i] = fmt.Sprintf("%s '%s': %s", d.kind, d.name, warning)
	}
	return list
}

// sameCertificates reports whether two JWKS have the same certificates, in any
// order.
func sameCertificates(a, b []*x509.Certificate) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(one *x509.Certificate) bool {
		return !slices.ContainsFunc(b, one.Equal)
	})
}

// takeFetched returns what has been fetched since the last call, nil if nothing
// that differs, and whether and how a fetch has ended.
func (d *document) takeFetched() (fetched *contents, ended bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fetched, ended, err = d.fetched, d.ended, d.failed
	d.fetched, d.ended, d.failed = nil, false, nil
	return fetched, ended, err
}

// documents are those that are open, and how they would be after a change.
type documents struct {
	now time.Time
	// open is what is open already, opened what was not
	open   map[documentKey]*document
	opened map[documentKey]*document
	// changed are others than they were
	changed map[*document]*contents
	// used are those of the client that is being made
	used []*document
	// at opens a URL, nil where nothing is fetched
	at func(key documentKey) (*document, error)
}

func newDocuments(open map[documentKey]*document, now time.Time) *documents {
	return &documents{now: now, open: open, opened: make(map[documentKey]*document), changed: make(map[*document]*contents)}
}

func (ds *documents) certificate(file string) (*x509.Certificate, error) {
	certificates, err := ds.read(KindCertificate, file, maxCertificateFile)
	if err != nil {
		return nil, err
	}
	return certificates[0], nil
}

func (ds *documents) keySet(file string) ([]*x509.Certificate, error) {
	return ds.read(KindJWKS, file, MaxJWKSBytes)
}

func (ds *documents) read(kind Kind, path string, limit int64) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, errors.New("the file name is empty; name a file")
	}
	return ds.find(documentKey{kind, path, false}, func(key documentKey) (*document, error) {
		d := &document{documentKey: key, name: path, file: source.NewFile(path, limit)}
		content, _, err := d.file.Look(ds.now)
		if err != nil {
			return nil, err
		}
		parsed, err := d.parse(content)
		if err != nil {
			return nil, err
		}
		d.contents, d.success = *parsed, ds.now
		return d, nil
	})
}

func (ds *documents) keySetAt(address string) (name string, certificates []*x509.Certificate, err error) {
	parsed, err := url.Parse(address)
	if err != nil || ds.at == nil {
		return parsed.Redacted(), nil, err
	}
	certificates, err = ds.find(documentKey{KindJWKS, address, true}, ds.at)
	return parsed.Redacted(), certificates, err
}

// find returns the certificates of a document as it would be. It is opened if
// it is not open yet.
func (ds *documents) find(key documentKey, open func(documentKey) (*document, error)) ([]*x509.Certificate, error) {
	d := ds.open[key]
	if d == nil {
		d = ds.opened[key]
	}
	if d == nil {
		var err error
		if d, err = open(key); err != nil {
			return nil, err
		}
		ds.opened[key] = d
	}
	ds.used = append(ds.used, d)
	if changed := ds.changed[d]; changed != nil {
		return changed.certificates, nil
	}
	return d.certificates, nil
}
