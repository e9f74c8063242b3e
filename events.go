package mtlsauth

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/clientsapi"
	"github.com/caddymtls/caddy-mtls-auth/internal/events"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The events, which docs/reference/events.md describes. Of each, all data is always
// there, because a placeholder without a value would stay as it is.
const (
	eventClientRefused       = "mtls_client_refused"
	eventTokenIssued         = "mtls_token_issued"
	eventClientChanged       = "mtls_client_changed"
	eventCertificateExpiring = "mtls_certificate_expiring"
)

var eventNames = []string{
	eventClientRefused, eventTokenIssued, eventCertificateExpiring, eventKeysRotated, eventSourceFailed, eventSourceRecovered, eventClientChanged,
}

const (
	// droppedEvery is how often a log line may say that events were dropped.
	droppedEvery = time.Minute
	// maxEventText bounds each text in the data of an event, in bytes.
	maxEventText = 1024
)

// runEvents has Caddy's events app call the handlers of events until the configuration
// ends. It reports dropped events from time to time, because a handler may never return.
func (a *App) runEvents(app *caddyevents.App) {
	var reported atomic.Uint64
	report := func() {
		dropped := a.events.Dropped()
		if before := reported.Swap(dropped); dropped > before {
			a.logger.Warn("events dropped; their handlers are too slow", zap.Uint64("dropped", dropped-before))
		}
	}
	go source.Poll(a.ctx, droppedEvery, func(context.Context) error { report(); return nil }, nil)
	a.events.Run(a.ctx, a.eventHandlers(app))
	report()
}

// eventsApp returns Caddy's events app, or nil if no other app uses it and nobody can
// listen. All apps are provisioned.
func (a *App) eventsApp() *caddyevents.App {
	module, err := a.ctx.AppIfConfigured("events")
	if err != nil {
		return nil
	}
	return module.(*caddyevents.App)
}

// eventHandlers returns the handlers once Caddy has started all apps, because the events
// app does not know them before.
func (a *App) eventHandlers(app *caddyevents.App) events.Handlers {
	if app == nil {
		return events.Handlers{ShouldEmit: func(string) bool { return false }}
	}
	started, endWait := context.WithCancel(a.ctx)
	source.Poll(started, endPoll, func(context.Context) error {
		if runningApp() == a {
			endWait()
		}
		return nil
	}, nil)
	return events.Handlers{
		ShouldEmit: app.ShouldEmit,
		Emit:       func(name string, data map[string]any) { app.Emit(a.ctx, name, data) },
		Report: func(name string, err error) {
			a.logger.Error("event handler failed", zap.String("event", name), zap.Error(err))
		},
	}
}

// emit has the handlers of an event called, if there are any, with what data returns.
// It waits for nothing. What happens after the end of a configuration, whose handlers
// are no longer called, is an event of the next one.
func (a *App) emit(name string, data func() map[string]any) {
	queue := a.events
	if a.ctx.Err() != nil {
		queue = runningApp().events
	}
	if queue == nil || !queue.Wants(name) {
		return
	}
	values := data()
	for name, value := range values {
		if text, ok := value.(string); ok { // a stranger may have chosen it
			values[name] = source.Text(text, maxEventText)
		}
	}
	queue.Add(name, values)
}

// emit adds the realm to the data of an event.
func (realm *Realm) emit(name string, data func() map[string]any) {
	realm.app.emit(name, func() map[string]any {
		values := data()
		values["realm"] = realm.name
		return values
	})
}

// emitRefused tells about refusals as the log does: about the first one at once, and how
// many followed.
func (a *App) emitRefused(record *refusals.Record, times int, several bool) {
	certificate := record.Certificate
	if certificate == nil {
		certificate = new(refusals.Certificate)
	}
	a.emit(eventClientRefused, func() map[string]any {
		return map[string]any{
			"realm": record.Realm, "directive": record.Directive, "reason": record.Reason, "message": record.Message, "detail": record.Detail,
			"error_id": record.ErrorID, "times": times, "several": several, "report_only": record.ReportOnly, "client_id": record.ClientID, "client_id_claimed": record.Claimed,
			"thumbprint": certificate.Thumbprint, "subject": certificate.Subject, "issuer": certificate.Issuer, "hint": record.Hint,
			"remote_ip": record.RemoteIP, "forwarded": record.Forwarded, "host": record.Host, "uri": record.URI,
		}
	})
}

// emitCounted tells about refusals that have had no event.
func (a *App) emitCounted(counted *refusals.Counted) {
	last := refusals.Record{
		Realm: counted.Realm, Directive: counted.Directive, Message: counted.Message, Reason: counted.Reason,
		ErrorID: counted.Last.ErrorID, ReportOnly: counted.Last.ReportOnly,
	}
	if !counted.Several {
		last.ClientID, last.RemoteIP = counted.Last.ClientID, counted.Last.RemoteIP
		last.Certificate = &refusals.Certificate{Thumbprint: counted.Last.Thumbprint}
	}
	a.emitRefused(&last, counted.Times, counted.Several)
}

// emitTokenIssued tells that a client got an access token, but not which.
func (realm *Realm) emitTokenIssued(r *http.Request, id identity, token *tokens.TokenResponse) {
	realm.emit(eventTokenIssued, func() map[string]any {
		return map[string]any{
			"client_id": id.Client().ID, "credential": string(id.Credential.Kind), "thumbprint": validators.ThumbprintOf(id.Leaf.Raw).String(),
			"token_id": token.ID, "scope": token.Scope, "audience": strings.Join(token.Audience, " "), "expires_in": token.ExpiresIn,
			"remote_ip": remoteIP(r), "host": logCopy(r.Host, maxLoggedHost),
		}
	})
}

// emitClientChanged tells that a client was changed on the admin API.
func (realm *Realm) emitClientChanged(change clientsapi.Changed) {
	realm.emit(eventClientChanged, func() map[string]any {
		return map[string]any{
			"client_id": change.ClientID, "action": change.Action, "source": change.Source,
			"members": strings.Join(change.Members, " "), "in_force": change.InForce,
			"remote_ip": change.By.RemoteIP, "admin": change.By.Certificate, "admin_thumbprint": change.By.Thumbprint,
		}
	})
}
