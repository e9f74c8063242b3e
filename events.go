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
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The events, which docs/reference/events.md describes. Of each, all data is always
// there, because a placeholder without a value would stay as it is.
const (
	eventTokenIssued   = "mtls_token_issued"
	eventClientChanged = "mtls_client_changed"
)

var eventNames = []string{eventTokenIssued, eventClientChanged, eventKeysRotated, eventSourceFailed, eventSourceRecovered}

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
