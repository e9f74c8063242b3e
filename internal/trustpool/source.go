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

// loader loads the CA certificates of one module.
type loader struct {
	Provider string `json:"provider"`

	config  *Config // of the pool
	timeout time.Duration
	raw     json.RawMessage
	alone   bool // no other module is combined with it
	files   []*caFile
	told    string // what has been reported as left out of storage
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
func (l *loader) fixed() bool { return l.Provider == "inline" }

// watched reports whether the source is files, which are watched.
func (l *loader) watched() bool { return l.Provider == "file" }

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

// load returns the certificates of a source. What Go cannot read among those of files,
// storage and the configuration is left out, where Caddy's modules refuse the whole.
func (l *loader) load() (loaded, error) {
	switch {
	case l.watched():
		return l.readFiles()
	case l.fixed():
		return l.readInline()
	}
	return l.loadGuest()
}

// openFiles opens the files of a source, as the module `file` does.
func (l *loader) openFiles() error {
	var config struct {
		Provider string   `json:"provider"`
		PEMFiles []string `json:"pem_files"`
	}
	if err := caddy.StrictUnmarshalJSON(l.raw, &config); err != nil {
		return fmt.Errorf("module '%s': %s", l.Provider, source.Plain(err, maxGuestText))
	}
	for _, path := range config.PEMFiles {
		file, err := openCAFile(path, l.config.Now(), l.config.EndEntities, l.warnLeftOut)
		switch {
		case err != nil && strings.Contains(path, "{"):
			return fmt.Errorf("%w; placeholders are not expanded here, so write {$NAME} for an environment variable", err)
		case err != nil:
			return err
		}
		l.files = append(l.files, file)
	}
	return nil
}

// readInline returns the certificates in the configuration, as the module `inline`
// does.
func (l *loader) readInline() (loaded, error) {
	var config struct {
		Provider     string   `json:"provider"`
		TrustedCerts []string `json:"trusted_ca_certs"`
	}
	got := loaded{certs: []*x509.Certificate{}, cancel: func() {}}
	if err := caddy.StrictUnmarshalJSON(l.raw, &config); err != nil {
		return got, fmt.Errorf("module '%s': %s", l.Provider, source.Plain(err, maxGuestText))
	}
	var unreadable []leftOut
	for i, text := range config.TrustedCerts {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return got, fmt.Errorf("inline: certificate %d is not base64; copy it again", i+1)
		}
		cert, err := validators.ParseCertificate(der)
		switch {
		case err == nil:
			got.certs = append(got.certs, cert)
		case isDamaged(err):
			return got, fmt.Errorf("inline: certificate %d: %w", i+1, err)
		default:
			unreadable = append(unreadable, leftOut{place: l.Provider, number: i + 1, cause: err})
		}
	}
	if len(got.certs) == 0 && len(unreadable) > 0 {
		first := unreadable[0]
		return got, fmt.Errorf("inline: no CA certificate can be read; certificate %d: %w", first.number, first.cause)
	}
	l.warnLeftOut(unreadable)
	return l.pooled(got)
}

// warnLeftOut logs which certificates of a file or of the configuration do not count.
func (l *loader) warnLeftOut(unreadable []leftOut) {
	for i, one := range unreadable {
		if i == maxLeftOut {
			l.config.Logger.Warn("more certificates left out of trust pool", zap.String("file", one.place), zap.Int("certificates", len(unreadable)-i))
			return
		}
		l.config.Logger.Warn("certificate left out of trust pool", zap.String("file", one.place),
			zap.Int("line", one.line), zap.Int("certificate", one.number), zap.Error(one.cause))
	}
}

// loadGuest makes an instance of the module and takes its certificates, except that
// what the module `storage` does is done here. The instance lives in a context of its
// own: the app's would keep every instance until the configuration ends, and is not
// made for several goroutines.
func (l *loader) loadGuest() (got loaded, err error) {
	parent := l.config.Context
	inner, stop := context.WithCancel(parent.Context)
	parent.Context = inner
	child, unload := caddy.NewContext(parent)
	module := fmt.Sprintf("the module '%s'", l.Provider)
	got.cancel = func() {
		defer stop()
		err := func() (err error) {
			defer source.Recover(module, &err)
			unload()
			return nil
		}()
		if err != nil {
			l.report(err)
		}
	}
	patience := time.AfterFunc(l.timeout, stop)
	defer func() {
		late := !patience.Stop()
		if late && err == nil { // but its context has ended
			err = context.Canceled
		}
		if late {
			err = fmt.Errorf("%s was not loaded within %s: %w", module, l.timeout, err)
		}
		if err != nil {
			got.cancel()
		}
	}()
	defer source.Recover(module, &err)
	if l.Provider == "storage" {
		if got.certs, err = l.readStorage(child); err != nil {
			return got, err
		}
		return l.pooled(got)
	}
	ca, err := loadModule(child, l.raw)
	if err != nil {
		return got, errors.New(source.Plain(err, maxGuestText))
	}
	got.pool = ca.CertPool()
	if provider, ok := ca.(caddytls.CertificateProvider); ok {
		got.certs = slices.Concat([]*x509.Certificate{}, provider.Certificates())
		if slices.Contains(got.certs, nil) {
			return got, fmt.Errorf("module %T has a certificate that is nil", ca)
		}
	} else if !l.alone {
		return got, fmt.Errorf("combined: module %T does not disclose its certificates; it can only be used alone", ca)
	}
	return got, l.check(got)
}

// report logs a failure of a source, or with nil its end.
func (l *loader) report(err error) {
	if err == nil {
		l.config.Logger.Info("reloading trust pool works again", zap.String("source", l.Provider))
		return
	}
	l.config.Logger.Error("reloading trust pool failed; keeping previous CAs",
		zap.String("source", l.Provider), zap.Error(err))
}

// readFiles returns the certificates of the files of the source.
func (l *loader) readFiles() (loaded, error) {
	got := loaded{certs: []*x509.Certificate{}, cancel: func() {}}
	for _, file := range l.files {
		got.certs = append(got.certs, file.certs...)
	}
	return l.pooled(got)
}

// pooled returns certificates that no module holds, with a pool of them.
func (l *loader) pooled(got loaded) (loaded, error) {
	got.pool = x509.NewCertPool()
	for _, cert := range got.certs {
		got.pool.AddCert(cert)
	}
	return got, l.check(got)
}

// check refuses what would lock everyone out.
func (l *loader) check(got loaded) error {
	if got.pool == nil || got.pool.Equal(x509.NewCertPool()) || got.certs != nil && len(got.certs) == 0 {
		return fmt.Errorf("it has no CA certificate, so no chain can verify; add one or remove %s", l.config.Word)
	}
	if got.certs != nil && !l.config.EndEntities && !slices.ContainsFunc(got.certs, mayBeCA) {
		return errors.New("it has only end-entity certificates, so no chain can verify; add the CA that issued them, or pin them with 'certificate' in a client")
	}
	return nil
}

// mayBeCA reports whether a certificate is not one of an end entity. One of X.509
// version 1 does not say.
func mayBeCA(cert *x509.Certificate) bool { return cert.IsCA || cert.Version < 3 }
