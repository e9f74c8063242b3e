package trustpool

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// maxGuestText bounds the error of a module, in bytes.
	maxGuestText = 512
	// maxLeftOut is how many certificates that are left out have a warning each.
	maxLeftOut = 20
)

// poolSource is one module that CA certificates come from. The module `combined` is
// not a source: each of its sources is reloaded on its own, so that a slow or broken
// one does not hold up the others.
type poolSource struct {
	Provider string `json:"provider"`

	raw   json.RawMessage
	files []*caFile
	told  string // what has been reported as left out of storage

	// what follows is guarded by the mutex of the pool
	loaded  loaded
	success time.Time
	failing string // why it could not be used last
	// due and failure belong to the goroutine that loads the source
	due     time.Time
	failure string
}

// loaded is the CA certificates of a source, with the module instance that they
// came from.
type loaded struct {
	pool *x509.CertPool
	// certs are nil if the module does not disclose them.
	certs []*x509.Certificate
	// cancel ends the module instance.
	cancel context.CancelFunc
}

// fixed reports whether the source cannot change.
func (s *poolSource) fixed() bool { return s.Provider == "inline" }

// watched reports whether the source is files, which are watched.
func (s *poolSource) watched() bool { return s.Provider == "file" }

// guest lets Caddy load a module from a copy of its configuration.
type guest struct {
	Raw json.RawMessage `caddy:"namespace=tls.ca_pool.source inline_key=provider"`
}

// loadPKI loads Caddy's pki app for the modules that use it only if it has been
// loaded already: apps load in any order. The app lives as long as ctx.
func loadPKI(ctx caddy.Context, provider string) error {
	if !strings.HasPrefix(provider, "pki_") {
		return nil
	}
	_, err := ctx.App("pki")
	return err
}

// loadModule makes an instance of a tls.ca_pool.source module.
func loadModule(ctx caddy.Context, raw json.RawMessage) (caddytls.CA, error) {
	module, err := ctx.LoadModule(&guest{Raw: slices.Clone(raw)}, "Raw")
	if err != nil {
		return nil, err
	}
	ca, ok := module.(caddytls.CA)
	if !ok {
		return nil, fmt.Errorf("module %T is not a pool of CA certificates", module)
	}
	return ca, nil
}

func (p *Pool) loadFirst(s *poolSource) error {
	if err := loadPKI(p.config.Context, s.Provider); err != nil {
		return err
	}
	if s.watched() {
		if err := p.openFiles(s); err != nil {
			return err
		}
	}
	first, err := p.load(s)
	if err != nil {
		return err
	}
	now := p.config.Now()
	s.loaded, s.success, s.due = first, now, now.Add(p.config.Refresh)
	return nil
}

// load returns the certificates of a source. What Go cannot read among those of files,
// storage and the configuration is left out, where Caddy's modules refuse the whole.
func (p *Pool) load(s *poolSource) (loaded, error) {
	switch {
	case s.watched():
		return p.readFiles(s)
	case s.fixed():
		return p.readInline(s)
	}
	return p.loadGuest(s)
}

// openFiles opens the files of a source, as the module `file` does.
func (p *Pool) openFiles(s *poolSource) error {
	var config struct {
		Provider string   `json:"provider"`
		PEMFiles []string `json:"pem_files"`
	}
	if err := caddy.StrictUnmarshalJSON(s.raw, &config); err != nil {
		return fmt.Errorf("module '%s': %s", s.Provider, source.Plain(err, maxGuestText))
	}
	for _, path := range config.PEMFiles {
		file, err := openCAFile(path, p.config.Now(), p.config.EndEntities, p.warnLeftOut)
		switch {
		case err != nil && strings.Contains(path, "{"):
			return fmt.Errorf("%w; placeholders are not expanded here, so write {$NAME} for an environment variable", err)
		case err != nil:
			return err
		}
		s.files = append(s.files, file)
	}
	return nil
}

// readInline returns the certificates in the configuration, as the module `inline`
// does.
func (p *Pool) readInline(s *poolSource) (loaded, error) {
	var config struct {
		Provider     string   `json:"provider"`
		TrustedCerts []string `json:"trusted_ca_certs"`
	}
	l := loaded{certs: []*x509.Certificate{}, cancel: func() {}}
	if err := caddy.StrictUnmarshalJSON(s.raw, &config); err != nil {
		return l, fmt.Errorf("module '%s': %s", s.Provider, source.Plain(err, maxGuestText))
	}
	var unreadable []leftOut
	for i, text := range config.TrustedCerts {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return l, fmt.Errorf("inline: certificate %d is not base64; copy it again", i+1)
		}
		cert, err := validators.ParseCertificate(der)
		switch {
		case err == nil:
			l.certs = append(l.certs, cert)
		case isDamaged(err):
			return l, fmt.Errorf("inline: certificate %d: %w", i+1, err)
		default:
			unreadable = append(unreadable, leftOut{place: s.Provider, number: i + 1, cause: err})
		}
	}
	if len(l.certs) == 0 && len(unreadable) > 0 {
		first := unreadable[0]
		return l, fmt.Errorf("inline: no CA certificate can be read; certificate %d: %w", first.number, first.cause)
	}
	p.warnLeftOut(unreadable)
	return p.pooled(l)
}

// warnLeftOut logs which certificates of a file or of the configuration do not count.
func (p *Pool) warnLeftOut(unreadable []leftOut) {
	for i, one := range unreadable {
		if i == maxLeftOut {
			p.config.Logger.Warn("more certificates left out of trust pool", zap.String("file", one.place), zap.Int("certificates", len(unreadable)-i))
			return
		}
		p.config.Logger.Warn("certificate left out of trust pool", zap.String("file", one.place),
			zap.Int("line", one.line), zap.Int("certificate", one.number), zap.Error(one.cause))
	}
}

// loadGuest makes an instance of the module and takes its certificates, except that
// what the module `storage` does is done here. The instance lives in a context of its
// own: the app's would keep every instance until the configuration ends, and is not
// made for several goroutines.
func (p *Pool) loadGuest(s *poolSource) (l loaded, err error) {
	parent := p.config.Context
	inner, stop := context.WithCancel(parent.Context)
	parent.Context = inner
	child, unload := caddy.NewContext(parent)
	module := fmt.Sprintf("the module '%s'", s.Provider)
	l.cancel = func() {
		defer stop()
		err := func() (err error) {
			defer source.Recover(module, &err)
			unload()
			return nil
		}()
		if err != nil {
			p.report(s, err)
		}
	}
	patience := time.AfterFunc(p.timeout, stop)
	defer func() {
		late := !patience.Stop()
		if late && err == nil { // but its context has ended
			err = context.Canceled
		}
		if late {
			err = fmt.Errorf("%s was not loaded within %s: %w", module, p.timeout, err)
		}
		if err != nil {
			l.cancel()
		}
	}()
	defer source.Recover(module, &err)
	if s.Provider == "storage" {
		if l.certs, err = p.readStorage(child, s); err != nil {
			return l, err
		}
		return p.pooled(l)
	}
	ca, err := loadModule(child, s.raw)
	if err != nil {
		return l, errors.New(source.Plain(err, maxGuestText))
	}
	l.pool = ca.CertPool()
	if provider, ok := ca.(caddytls.CertificateProvider); ok {
		l.certs = slices.Concat([]*x509.Certificate{}, provider.Certificates())
		if slices.Contains(l.certs, nil) {
			return l, fmt.Errorf("module %T has a certificate that is nil", ca)
		}
	} else if len(p.sources) > 1 {
		return l, fmt.Errorf("combined: module %T does not disclose its certificates; it can only be used alone", ca)
	}
	return l, p.check(l)
}

// readFiles returns the certificates of the files of the source.
func (p *Pool) readFiles(s *poolSource) (loaded, error) {
	l := loaded{certs: []*x509.Certificate{}, cancel: func() {}}
	for _, file := range s.files {
		l.certs = append(l.certs, file.certs...)
	}
	return p.pooled(l)
}

// pooled returns certificates that no module holds, with a pool of them.
func (p *Pool) pooled(l loaded) (loaded, error) {
	l.pool = x509.NewCertPool()
	for _, cert := range l.certs {
		l.pool.AddCert(cert)
	}
	return l, p.check(l)
}

// check refuses what would lock everyone out.
func (p *Pool) check(l loaded) error {
	if l.pool == nil || l.pool.Equal(x509.NewCertPool()) || l.certs != nil && len(l.certs) == 0 {
		return fmt.Errorf("it has no CA certificate, so no chain can verify; add one or remove %s", p.config.Word)
	}
	if l.certs != nil && !p.config.EndEntities && !slices.ContainsFunc(l.certs, mayBeCA) {
		return errors.New("it has only end-entity certificates, so no chain can verify; add the CA that issued them, or pin them with 'certificate' in a client")
	}
	return nil
}

// mayBeCA reports whether a certificate is not one of an end entity. One of X.509
// version 1 does not say.
func mayBeCA(cert *x509.Certificate) bool { return cert.IsCA || cert.Version < 3 }
