package mtlsauth

import (
	"context"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

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
	a.refusals.close(a.ctx) // Caddy does not stop an app if its remote admin endpoint fails to start
	a.logger.Debug("previous configuration no longer answers requests")
}

// leaveStorage leaves changes to storage to the next configuration.
func (a *App) leaveStorage() {
	a.stopped.Store(true)
	for _, realm := range a.Realms {
		if realm.issuer != nil {
			realm.issuer.keys.End()
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
			realm.issuer.keys.Wait(next.app.ctx)
			_, _ = next.issuer.keys.Load(next.app.ctx) // which reports a failure itself
		}()
	}
}

// look calls poll as often as watched files are looked at, until ctx is done.
func look(ctx context.Context, poll func(context.Context)) {
	source.Poll(ctx, source.LookInterval, func(ctx context.Context) error { poll(ctx); return nil }, nil)
}
