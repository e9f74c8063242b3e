// Package mtlsauth is a Caddy plugin that authenticates machines by their TLS
// client certificate (RFC 8705). It then guards an API (the mtls_auth handler),
// issues certificate-bound access tokens (the mtls_issuer handler), or admits
// them together with the certificate (the mtls_bearer handler). The mtls_status handler
// shows what happens.
//
// Clients, trusted CAs and the token issuer are declared once, as a realm of
// the mtls app; the handlers refer to it.
package mtlsauth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients/filesource"
	"github.com/caddymtls/caddy-mtls-auth/clients/httpsource"
	"github.com/caddymtls/caddy-mtls-auth/clients/postgres"
	"github.com/caddymtls/caddy-mtls-auth/clients/storagesource"
	"github.com/caddymtls/caddy-mtls-auth/internal/authserver"
	"github.com/caddymtls/caddy-mtls-auth/internal/check"
	"github.com/caddymtls/caddy-mtls-auth/internal/command"
	"github.com/caddymtls/caddy-mtls-auth/internal/events"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
	"github.com/caddymtls/caddy-mtls-auth/internal/sites"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

func init() {
	caddy.RegisterModule(new(App))
	caddy.RegisterModule(new(Handler))
	caddy.RegisterModule(new(IssuerHandler))
	caddy.RegisterModule(new(BearerHandler))
	caddy.RegisterModule(new(StatusHandler))
	caddy.RegisterModule(new(Verifier))
	caddy.RegisterModule(new(filesource.Files))
	caddy.RegisterModule(new(storagesource.Clients))
	caddy.RegisterModule(new(httpsource.HTTP))
	caddy.RegisterModule(new(postgres.Table))
	caddy.RegisterModule(new(AdminAPI))
	command.Register(loadExplainer, check.Plugin{AppID: appID, DefaultRealm: defaultRealm, NewApp: func() check.App { return new(App) }}.Check)

	httpcaddyfile.RegisterGlobalOption("mtls", parseGlobalOption)
	httpcaddyfile.RegisterHandlerDirective("mtls_issuer", parseIssuerHandler)
	httpcaddyfile.RegisterHandlerDirective("mtls_auth", parseHandler)
	httpcaddyfile.RegisterHandlerDirective("mtls_bearer", parseBearerHandler)
	httpcaddyfile.RegisterHandlerDirective("mtls_status", parseStatusHandler)
	// each goes right before basic_auth, so they run in this order
	httpcaddyfile.RegisterDirectiveOrder("mtls_issuer", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("mtls_auth", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("mtls_bearer", httpcaddyfile.Before, "basic_auth")
	// after all that authenticates, and before templates, which would run what names
	// of strangers say
	httpcaddyfile.RegisterDirectiveOrder("mtls_status", httpcaddyfile.After, "encode")
}

const appID = "mtls"

// stopTimeout is how long Stop waits for log lines, events and storage.
const stopTimeout = 2 * time.Second

// App holds the realms: the registered clients, the CAs that vouch for them,
// and the issuers of their tokens. The handlers `mtls_auth`, `mtls_issuer` and
// `mtls_bearer` refer to a realm by its name; `mtls_status` shows all of them.
type App struct {
	// The realms, by name. A name has 1 to 63 characters of `a-z 0-9 -`. Handlers
	// without a realm use `default`.
	Realms map[string]*Realm `json:"realms,omitempty"`

	// proxyHeaders are the headers that proxies of any realm forward
	// certificates in, canonical
	proxyHeaders []string

	// declared is what directives add while they are provisioned
	declared declarations

	// Now is the clock. Default: time.Now.
	Now func() time.Time `json:"-"`
	// Fetch gets a document that is trusted because of where it comes from.
	// Default: over https, as the realm's fetch says.
	Fetch func(ctx context.Context, address string, limit int64) (source.Document, error) `json:"-"`

	// withoutIssuers is set if the realms are provisioned without their issuers;
	// then the resources of clients cannot be checked.
	withoutIssuers bool

	// checking is set while the configuration is only checked. Then storage is empty,
	// and warnings go elsewhere.
	checking bool

	logger   *zap.Logger
	refusals *reporter.Reporter
	events   *events.Emitter
	// memories are those that are in use, by the realm's name
	memories memories
	ctx      caddy.Context
	// started is set by Start
	started bool
	// stopped is set when the app no longer changes storage
	stopped atomic.Bool
	// ended is set when the app no longer decides; see endLate
	ended atomic.Bool
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appID,
		New: func() caddy.Module { return new(App) },
	}
}

// Provision makes every realm ready to serve.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger = ctx, ctx.Logger(a)
	if logger := check.LoggerOf(ctx); logger != nil {
		a.logger, a.checking = logger, true
	}
	a.memories = make(memories)
	a.events = events.NewEmitter(events.Config{
		Context: ctx, Logger: a.logger, OnDrop: metrics.EventsDropped.Inc,
		Running: func() *events.Emitter { return runningApp().events },
	})
	// a function, because tests replace the clock later
	a.refusals = reporter.New(reporter.Config{Logger: a.logger, Events: a.events, Now: func() time.Time { return a.Now() }})
	a.declared.audiences, a.declared.keys = make(map[string]string), make(map[trustedKeysID]*tokens.TrustedKeys)
	if a.Now == nil {
		a.Now = time.Now
	}
	for _, name := range slices.Sorted(maps.Keys(a.Realms)) {
		realm := a.Realms[name]
		if realm == nil {
			return fmt.Errorf("realm '%s' is null; give it clients or remove it", name)
		}
		if err := realm.provision(ctx, a, name); err != nil {
			return fmt.Errorf("realm '%s': %w", name, err)
		}
	}
	if err := authserver.CheckDistinct(issuersOf(a.Realms)); err != nil {
		return err
	}
	return metrics.Register(ctx.GetMetricsRegistry(), collector{a})
}

// Start starts the background work. Signing keys that do not exist yet are
// created now, not while a configuration is only validated.
func (a *App) Start() error {
	a.started = true
	ctx, end := context.WithCancel(context.WithoutCancel(a.ctx))
	go a.refusals.Run()
	a.events.Start()
	a.limitMemories()
	for _, realm := range a.Realms {
		realm.startBackground(ctx)
	}
	for _, pool := range a.declared.allPools() {
		pool.Watch(ctx)
	}
	for id, keys := range a.declared.allTrustedKeys() {
		go id.keep(ctx, a, keys)
	}
	go a.Observed().Watch(ctx)
	go a.endLate(end)
	return nil
}

// Stop ends the background work that changes storage. It waits for queued log lines,
// for a key that is being stored and for handlers of events, but not for a storage or a
// handler that hangs. Requests that end later write their log lines themselves. The
// rest of the background work goes on for as long as requests may be decided; see
// endLate.
func (a *App) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	a.refusals.Close(ctx)
	for _, realm := range a.Realms {
		if realm.issuer != nil {
			realm.issuer.Keys.Wait(ctx)
		}
	}
	a.leaveStorage()
	a.events.Flush(ctx)
	runningApp().limitMemories() // if another app of this configuration did not start
	return nil
}

// limitMemories has the memories of the realms, which other configurations have as well,
// remember as much as this configuration says.
func (a *App) limitMemories() {
	for _, realm := range a.Realms {
		realm.memory.refusals.SetLimits(realm.Refusals.limits(func() time.Time { return a.Now() }))
	}
}

// Cleanup releases modules that may outlive the app's context. It also runs after
// a failed Provision. An app that was started needs them a while longer. One that
// was not may have served requests, if the HTTP app started and another app did not.
func (a *App) Cleanup() error {
	a.memories.release()
	if !a.started {
		a.ended.Store(true)
		a.closeTrustPools()
	}
	return nil
}

func (a *App) closeTrustPools() {
	for _, realm := range a.Realms {
		if realm == nil {
			continue
		}
		for _, pool := range realm.trust.pools {
			pool.Close()
		}
	}
	for _, pool := range a.declared.allPools() {
		pool.Close()
	}
}

const (
	// decideAfterEnd is how long an app still decides about requests after its
	// configuration has ended: long enough for those that were on their way.
	decideAfterEnd = 5 * time.Second
	// endPoll is how often the app looks whether that time is over.
	endPoll = 100 * time.Millisecond
)

// errEnded is why an app whose configuration has ended decides nothing. Clients
// can keep connections open for as long as they like, and HTTP/3 requests half sent;
// the state that would decide about them is no longer kept up to date.
var errEnded = refuse(validators.ConfigurationEnded,
	"the request arrived more than %s after its configuration had been replaced or stopped", decideAfterEnd)

// refuseEnded returns the refusal of every request once the app no longer decides,
// else nil.
func (a *App) refuseEnded() *validators.Refusal {
	if a.ended.Load() {
		return errEnded
	}
	return nil
}

// endLate ends the decisions of the app, and then the background work that keeps
// their state up to date, a while after the configuration has ended. It waits for
// Caddy's context instead of Stop, because Caddy may stop the HTTP servers later,
// after their shutdown delay.
func (a *App) endLate(endBackground context.CancelFunc) {
	<-a.ctx.Done()
	a.leaveStorage()
	a.handOver()
	over := a.Now()
	ticker := time.NewTicker(endPoll)
	defer ticker.Stop()
	for a.Now().Sub(over) < decideAfterEnd {
		<-ticker.C
	}
	a.ended.Store(true)
	endBackground()
	a.closeTrustPools()
	a.refusals.Close(a.ctx) // Caddy does not stop an app if its remote admin endpoint fails to start
	a.logger.Debug("previous configuration no longer answers requests")
}

// leaveStorage leaves changes to storage to the next configuration.
func (a *App) leaveStorage() {
	a.stopped.Store(true)
	for _, realm := range a.Realms {
		if realm.issuer != nil {
			realm.issuer.Keys.End()
		}
	}
}

// handOver has the running configuration read the signing keys again. It read them when
// it was loaded, and an operator may have retired keys with this one after that.
func (a *App) handOver() {
	for name, next := range runningApp().Realms {
		realm := a.Realms[name]
		if realm == nil || realm == next || realm.issuer == nil || next.issuer == nil {
			continue
		}
		go func() {
			realm.issuer.Keys.Wait(next.app.ctx)
			_, _ = next.issuer.Keys.Load(next.app.ctx) // which reports a failure itself
		}()
	}
}

// look calls poll as often as watched files are looked at, until ctx is done.
func look(ctx context.Context, poll func(context.Context)) {
	source.Poll(ctx, source.LookInterval, func(ctx context.Context) error { poll(ctx); return nil }, nil)
}

// runningApp returns the app of the running configuration, or an empty one.
func runningApp() *App {
	module, err := caddy.ActiveContext().AppIfConfigured(appID)
	if err != nil {
		return new(App)
	}
	return module.(*App)
}

// warnAboutSites logs warnings about the sites of the server that a directive of this
// plugin is on, once for each server.
func (a *App) warnAboutSites(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || !a.declared.first(server) {
		return
	}
	sites.Warn(server, a.logger, defaultRealm, func(name string) *sites.Realm {
		realm := a.Realms[name]
		if realm == nil {
			return nil
		}
		known := &sites.Realm{Logger: realm.logger, Proxies: realm.proxyCertificates != nil}
		if realm.issuer != nil {
			known.Issuer, known.Alias = realm.issuer.Config.URL, realm.issuer.Config.MTLSAlias
		}
		return known
	})
}

var errNoRealmDeclared = errors.New("no realm is declared; add 'mtls { … }' to the global options")

// findRealm returns the realm of that name.
func findRealm(ctx caddy.Context, name string) (*Realm, error) {
	module, err := ctx.AppIfConfigured(appID)
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, fmt.Errorf("%w: %w", errNoRealmDeclared, err)
	}
	if err != nil {
		return nil, err
	}
	return module.(*App).realm(name)
}

// realmFor returns the realm of a directive.
func realmFor(ctx caddy.Context, handler directive) (*Realm, error) {
	realm, err := findRealm(ctx, handler.realmName())
	if err != nil {
		return nil, err
	}
	return realm, handler.checkRealm(realm)
}

// realm returns the realm of a name.
func (a *App) realm(name string) (*Realm, error) {
	realm, ok := a.Realms[name]
	if !ok {
		return nil, fmt.Errorf("unknown realm %.63q; declared are: %s", name, strings.Join(slices.Sorted(maps.Keys(a.Realms)), ", "))
	}
	return realm, nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
