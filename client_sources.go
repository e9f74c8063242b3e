package mtlsauth

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/adminapi"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// copiesPoll is how soon a JWKS that has changed is stored.
const copiesPoll = 5 * time.Second

// loadClients reads the clients of the configuration and of the sources. The JWKS
// that the running configuration has are taken over; others are fetched after the
// start.
func loadClients(ctx caddy.Context, realm *Realm) error {
	config := directoryConfig(realm)
	for _, record := range realm.Clients {
		record, err := record.Expand(caddyfileutil.Expand)
		if err != nil {
			return err
		}
		config.Records = append(config.Records, record)
	}
	if realm.ClientsFromRaw != nil {
		modules, err := ctx.LoadModule(realm, "ClientsFromRaw")
		if err != nil {
			return fmt.Errorf("clients_from: %w", err)
		}
		for _, module := range modules.([]any) {
			from, ok := module.(clients.SourceModule)
			if !ok {
				return fmt.Errorf("clients_from: module %T is not a source of clients", module)
			}
			sources, err := clientSources(from, realm)
			if err != nil {
				return fmt.Errorf("clients_from: %w", err)
			}
			config.Sources = append(config.Sources, sources...)
		}
	}
	adminapi.KeepWriters(ctx, realm.name, realm, config.Sources)
	var err error
	if realm.directory, err = directory.New(ctx, config); err != nil {
		return err
	}
	realm.troubles.directory, realm.troubles.now = realm.directory, config.Now
	for _, from := range config.Sources {
		realm.metrics.AddClientSource(from.Info().Name)
	}
	if realm.directory.Registry().Len() == 0 {
		realm.logger.Warn("realm has no clients; everyone is refused")
	}
	return nil
}

// clientSources returns the sources of a guest module.
func clientSources(module clients.SourceModule, realm *Realm) (sources []clients.Source, err error) {
	defer source.Recover(fmt.Sprintf("module %T", module), &err)
	app := realm.app
	return module.ClientSources(clients.Host{
		Realm: realm.name, Running: realm.running().directory.Supplied(), Storage: realm.storage, Transport: realm.trust.network, Logger: realm.logger,
		Now: func() time.Time { return app.Now() },
	})
}

// directoryConfig returns the configuration of a realm's directory, without clients.
func directoryConfig(realm *Realm) directory.Config {
	app := realm.app
	config := directory.Config{
		Before: realm.running().directory,
		Check:  realm.rules.check,
		// these are functions because tests replace the clock later
		Now: func() time.Time { return app.Now() },
		Fetch: func(ctx context.Context, address string, limit int64) (source.Document, error) {
			if app.Fetch != nil {
				return app.Fetch(ctx, address, limit)
			}
			return source.NewSecureFetcher(realm.trust.network).Get(ctx, address, limit)
		},
		Use: func(registry *clients.Registry) error {
			realm.current.change(func(c *components) { c.registry = registry })
			return nil
		},
		Ended:  app.stopped.Load,
		Failed: realm.metrics.ClientSourceFailed,
		Report: realm.events.SourceRead,
		Logger: realm.logger,
	}
	if !app.withoutIssuers { // else storage may not be needed
		config.Copies = &directory.KeySetCopies{Storage: realm.storage, Realm: realm.name}
	}
	return config
}

const (
	// maxWhyUnknown bounds what the log says about documents that cannot be read, in
	// bytes, and maxNamedTroubles their number.
	maxWhyUnknown    = 512
	maxNamedTroubles = 2
	// troublesLifetime is how long they are remembered: strangers must not have them
	// looked for all the time.
	troublesLifetime = time.Second
)

// clientTroubles knows which documents of clients cannot be read.
type clientTroubles struct {
	directory *directory.Directory // nil for directives without a realm
	now       func() time.Time
	known     atomic.Pointer[knownTroubles]
}

// knownTroubles is the documents of clients that could not be read at some time.
type knownTroubles struct {
	texts []string
	at    time.Time
}

// whyUnknown adds to the detail of a refusal that certificates of clients may be
// unknown only because a document cannot be read.
func (t *clientTroubles) whyUnknown(reason validators.Reason) string {
	if reason != validators.CertificateUnknown && reason != validators.CertificateUntrusted && reason != validators.ClientMismatch || t.directory == nil {
		return ""
	}
	now := t.now()
	known := t.known.Load()
	if known == nil || now.Sub(known.at).Abs() >= troublesLifetime {
		known = &knownTroubles{t.directory.Troubles(), now}
		t.known.Store(known)
	}
	var text strings.Builder
	for i, trouble := range known.texts {
		if i == maxNamedTroubles || text.Len()+len(trouble) > maxWhyUnknown {
			fmt.Fprintf(&text, "; %d more files and JWKS of clients cannot be read", len(known.texts)-i)
			break
		}
		text.WriteString("; " + trouble)
	}
	return text.String()
}

// keepCopies keeps copies of JWKS in storage until the app is stopped or ctx is done.
func keepCopies(ctx context.Context, realm *Realm) {
	source.Poll(ctx, copiesPoll, func(ctx context.Context) error {
		if realm.app.stopped.Load() {
			return nil
		}
		return realm.directory.SaveCopies(ctx)
	}, func(err error) {
		if realm.app.stopped.Load() {
			return // the storage may have been closed too
		}
		if err != nil {
			realm.logger.Error("storing JWKS copies failed", zap.Error(err))
			return
		}
		realm.logger.Info("storing JWKS copies works again")
	})
}
