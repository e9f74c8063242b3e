package mtlsauth

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The words of the trust pools of a realm.
const (
	wordTrustPool  = "trust_pool"
	wordShadowPool = "shadow_trust_pool"
)

// trust is what a trust pool holds at one moment.
type trust struct {
	pool *validators.TrustPool
	// roots are what pool was made of.
	roots *x509.CertPool
	// system tells that the operating system's CAs are trusted.
	system bool
	// cas is the number of CA certificates, zero when the module does not tell.
	cas int
	// certs are the CA certificates, as far as the modules tell.
	certs []*x509.Certificate
}

// trustPool is a trust pool at work: where its CA certificates come from, and
// how the realm learns that they have changed.
type trustPool struct {
	realm   *Realm
	word    string
	refresh time.Duration
	timeout time.Duration // of loading a module
	sources []*trustSource
	set     func(*parts, *trust)

	mu sync.Mutex
	// now is what the realm decides by.
	now    *trust
	closed bool
}

// trustSource is one module that CA certificates come from, but for `combined`,
// whose sources stand for themselves: each is loaded again on its own, so that
// one that is slow or broken holds up no other.
type trustSource struct {
	Provider string   `json:"provider"`
	PEMFiles []string `json:"pem_files"`

	raw   json.RawMessage
	files []*caFile

	// what follows is guarded by the mutex of the pool
	loaded  loadedCAs
	success time.Time
	// due and failure belong to who loads the source
	due     time.Time
	failure string
}

// loadedCAs are the CA certificates of a source, with the module instance that
// they came from.
type loadedCAs struct {
	pool *x509.CertPool
	// certs are nil where the module does not tell them.
	certs []*x509.Certificate
	// cancel ends the module instance.
	cancel context.CancelFunc
}

// trustGuest lets Caddy load a module from a copy of its configuration.
type trustGuest struct {
	Raw json.RawMessage `caddy:"namespace=tls.ca_pool.source inline_key=provider"`
}

// fixed reports whether the source cannot change.
func (s *trustSource) fixed() bool { return s.Provider == "inline" }

// watched reports whether the source is files, which are looked at all the time.
func (s *trustSource) watched() bool { return s.Provider == "file" }

// loadTrust loads a trust pool for the first time. Caddy's own modules start
// with a file that holds no certificate, and then lock everyone out; here it is
// an error.
func (realm *Realm) loadTrust(word string, raw json.RawMessage, set func(*parts, *trust)) (*trust, error) {
	p := &trustPool{realm: realm, word: word, refresh: time.Duration(realm.TrustPoolRefresh), timeout: poolTimeout, set: set}
	if p.refresh == 0 {
		p.refresh = defaultPoolRefresh
	}
	realm.trustPools = append(realm.trustPools, p)
	if err := p.addSources(raw); err != nil {
		return nil, err
	}
	for _, s := range p.sources {
		if err := p.loadFirst(s); err != nil {
			return nil, err
		}
	}
	p.now = p.combine()
	return p.now, nil
}

// addSources finds the sources in the configuration of a module.
func (p *trustPool) addSources(raw json.RawMessage) error {
	s := &trustSource{raw: raw}
	if err := json.Unmarshal(raw, s); err != nil {
		return err
	}
	if s.Provider != "combined" {
		p.sources = append(p.sources, s)
		return nil
	}
	var combined struct {
		Provider string            `json:"provider"`
		Sources  []json.RawMessage `json:"sources"`
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&combined); err != nil {
		return fmt.Errorf("combined: %w", err)
	}
	if len(combined.Sources) == 0 {
		return errors.New("combined: it has no source; add one")
	}
	for _, nested := range combined.Sources {
		if err := p.addSources(nested); err != nil {
			return err
		}
	}
	return nil
}

func (p *trustPool) loadFirst(s *trustSource) error {
	app := p.realm.app
	if strings.HasPrefix(s.Provider, "pki_") {
		// these modules ask for the pki app only where it has been loaded
		// already, and apps load in any order
		if _, err := app.ctx.App("pki"); err != nil {
			return err
		}
	}
	if s.watched() {
		for _, path := range s.PEMFiles {
			file, err := openCAFile(path, app.Now())
			if err != nil {
				return err
			}
			s.files = append(s.files, file)
		}
	}
	loaded, err := p.load(s)
	if err != nil {
		return err
	}
	if s.watched() {
		// what counts is what was checked, not what the module read after that
		loaded.cancel()
		if loaded, err = p.filesNow(s); err != nil {
			return err
		}
	}
	now := app.Now()
	s.loaded, s.success, s.due = loaded, now, now.Add(p.refresh)
	return nil
}

// load makes an instance of the module and takes what it says. The instance
// lives in a context of its own, for that of the app keeps every instance until
// the configuration ends, and is not made for several goroutines.
func (p *trustPool) load(s *trustSource) (loaded loadedCAs, err error) {
	parent := p.realm.app.ctx
	inner, stop := context.WithCancel(parent.Context)
	parent.Context = inner
	child, unload := caddy.NewContext(parent)
	loaded.cancel = func() {
		defer func() {
			if fault := recover(); fault != nil {
				p.report(s, fmt.Errorf("the module '%s' panics when it ends: %v", s.Provider, fault))
			}
		}()
		unload()
		stop()
	}
	patience := time.AfterFunc(p.timeout, stop)
	defer func() {
		late := !patience.Stop()
		if fault := recover(); fault != nil {
			err = fmt.Errorf("the module '%s' panics: %v", s.Provider, fault)
		}
		if late && err == nil { // but its context has ended
			err = context.Canceled
		}
		if late {
			err = fmt.Errorf("the module '%s' was not loaded within %s: %w", s.Provider, p.timeout, err)
		}
		if err != nil {
			loaded.cancel()
		}
	}()
	module, err := child.LoadModule(&trustGuest{Raw: slices.Clone(s.raw)}, "Raw")
	if err != nil {
		return loaded, err
	}
	ca, ok := module.(caddytls.CA)
	if !ok {
		return loaded, fmt.Errorf("module %T is no pool of CA certificates", module)
	}
	loaded.pool = ca.CertPool()
	if provider, ok := module.(caddytls.CertificateProvider); ok {
		loaded.certs = slices.Concat([]*x509.Certificate{}, provider.Certificates())
		if slices.Contains(loaded.certs, nil) {
			return loaded, fmt.Errorf("module %T tells of a certificate that is none", module)
		}
	} else if len(p.sources) > 1 {
		return loaded, fmt.Errorf("combined: module %T does not tell its certificates; it can only be used alone", module)
	}
	return loaded, p.check(loaded)
}

// filesNow is what the files of the source say.
func (p *trustPool) filesNow(s *trustSource) (loadedCAs, error) {
	loaded := loadedCAs{pool: x509.NewCertPool(), certs: []*x509.Certificate{}, cancel: func() {}}
	for _, file := range s.files {
		loaded.certs = append(loaded.certs, file.certs...)
	}
	for _, cert := range loaded.certs {
		loaded.pool.AddCert(cert)
	}
	return loaded, p.check(loaded)
}

// check refuses what would lock everyone out.
func (p *trustPool) check(loaded loadedCAs) error {
	if loaded.pool == nil || loaded.pool.Equal(x509.NewCertPool()) || loaded.certs != nil && len(loaded.certs) == 0 {
		return fmt.Errorf("it has no CA certificate, so no chain could ever verify; add one or remove %s", p.word)
	}
	if loaded.certs != nil && !slices.ContainsFunc(loaded.certs, mayBeCA) {
		return errors.New("it has no CA certificate, only those of end entities, so no chain could ever verify; add the CA that issued them, or pin them as 'certificate' of a client")
	}
	return nil
}

// mayBeCA leaves out what is the certificate of an end entity. One of X.509
// version 1 does not tell.
func mayBeCA(cert *x509.Certificate) bool { return cert.IsCA || cert.Version < 3 }

// combine makes one pool of what the sources say.
func (p *trustPool) combine() *trust {
	t := &trust{roots: p.sources[0].loaded.pool, system: p.sources[0].Provider == "system"}
	if len(p.sources) > 1 {
		t.roots = x509.NewCertPool()
	}
	distinct := make(map[string]struct{})
	for _, s := range p.sources {
		for _, cert := range s.loaded.certs {
			if len(p.sources) > 1 {
				t.roots.AddCert(cert)
			}
			if mayBeCA(cert) {
				t.certs = append(t.certs, cert)
				distinct[string(cert.Raw)] = struct{}{}
			}
		}
	}
	t.cas = len(distinct)
	t.pool = validators.NewTrustPool(t.roots)
	return t
}
