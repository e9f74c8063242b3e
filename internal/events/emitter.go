package events

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/clientsapi"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The events, which docs/reference/events.md describes. Of each, all data is always
// there, because a placeholder without a value would stay as it is.
const (
	eventClientRefused       = "mtls_client_refused"
	eventTokenIssued         = "mtls_token_issued"
	eventClientChanged       = "mtls_client_changed"
	eventCertificateExpiring = "mtls_certificate_expiring"
	eventKeysRotated         = "mtls_keys_rotated"
	eventSourceFailed        = "mtls_source_failed"
	eventSourceRecovered     = "mtls_source_recovered"
)

var eventNames = []string{
	eventClientRefused, eventTokenIssued, eventCertificateExpiring, eventKeysRotated, eventSourceFailed, eventSourceRecovered, eventClientChanged,
}

const (
	// droppedEvery is how often a log line may say that events were dropped.
	droppedEvery = time.Minute
	// startPoll is how often it is looked whether Caddy has started all apps.
	startPoll = 100 * time.Millisecond
	// maxText bounds each text in the data of an event, in bytes, and maxHost the host that
	// a caller names.
	maxText = 1024
	maxHost = 128
)

// Config is what an [Emitter] is given.
type Config struct {
	// Context is that of the app whose events they are.
	Context caddy.Context
	Logger  *zap.Logger
	// Running returns the emitter of the running configuration, or nil.
	Running func() *Emitter
	// OnDrop is called for every event that is dropped.
	OnDrop func()
}

// Emitter tells Caddy's event handlers what happens in a configuration. It waits for
// nothing. What happens after the end of the configuration, whose handlers are no longer
// called, is an event of the next one. A nil Emitter emits nothing.
type Emitter struct {
	config  Config
	queue   *Queue
	failing failingSources
}

// NewEmitter returns an emitter whose events wait for [Emitter.Start].
func NewEmitter(config Config) *Emitter {
	queue := NewQueue(eventNames...)
	queue.OnDrop = config.OnDrop
	return &Emitter{config: config, queue: queue}
}

// Start has Caddy's events app call the handlers of events until the configuration ends.
// All apps are provisioned.
func (e *Emitter) Start() {
	var app *caddyevents.App // nil if no other app uses it and nobody can listen
	if module, err := e.config.Context.AppIfConfigured("events"); err == nil {
		app = module.(*caddyevents.App)
	}
	go e.run(app)
}

// run reports dropped events from time to time, because a handler may never return.
func (e *Emitter) run(app *caddyevents.App) {
	ctx := e.config.Context
	var reported atomic.Uint64
	report := func() {
		dropped := e.queue.Dropped()
		if before := reported.Swap(dropped); dropped > before {
			e.config.Logger.Warn("events dropped; their handlers are too slow", zap.Uint64("dropped", dropped-before))
		}
	}
	go source.Poll(ctx, droppedEvery, func(context.Context) error { report(); return nil }, nil)
	e.queue.Run(ctx, e.handlers(app))
	report()
}

// handlers returns the handlers once Caddy has started all apps, because the events app
// does not know them before.
func (e *Emitter) handlers(app *caddyevents.App) Handlers {
	if app == nil {
		return Handlers{ShouldEmit: func(string) bool { return false }}
	}
	started, endWait := context.WithCancel(e.config.Context)
	source.Poll(started, startPoll, func(context.Context) error {
		if e.config.Running() == e {
			endWait()
		}
		return nil
	}, nil)
	return Handlers{
		ShouldEmit: app.ShouldEmit,
		Emit:       func(name string, data map[string]any) { app.Emit(e.config.Context, name, data) },
		Report: func(name string, err error) {
			e.config.Logger.Error("event handler failed", zap.String("event", name), zap.Error(err))
		},
	}
}

// Flush waits as [Queue.Flush] does.
func (e *Emitter) Flush(ctx context.Context) { e.queue.Flush(ctx) }

// Len returns how many events wait.
func (e *Emitter) Len() int { return e.queue.Len() }

// emit has the handlers of an event called, if there are any, with what data returns.
func (e *Emitter) emit(name string, data func() map[string]any) {
	if e != nil && e.config.Context.Err() != nil {
		e = e.config.Running()
	}
	if e == nil || !e.queue.Wants(name) {
		return
	}
	values := data()
	for name, value := range values {
		if text, ok := value.(string); ok { // a stranger may have chosen it
			values[name] = source.Text(text, maxText)
		}
	}
	if !e.queue.Add(name, values) {
		if next := e.config.Running(); next != nil && next != e {
			next.queue.Add(name, values)
		}
	}
}

// Refused tells about refusals as the log does: about the first one at once, and how many
// followed.
func (e *Emitter) Refused(record *refusals.Record, times int, several bool) {
	certificate := record.Certificate
	if certificate == nil {
		certificate = new(refusals.Certificate)
	}
	e.emit(eventClientRefused, func() map[string]any {
		return map[string]any{
			"realm": record.Realm, "directive": record.Directive, "reason": record.Reason, "message": record.Message, "detail": record.Detail,
			"error_id": record.ErrorID, "times": times, "several": several, "report_only": record.ReportOnly, "client_id": record.ClientID, "client_id_claimed": record.Claimed,
			"thumbprint": certificate.Thumbprint, "subject": certificate.Subject, "issuer": certificate.Issuer, "hint": record.Hint,
			"remote_ip": record.RemoteIP, "forwarded": record.Forwarded, "host": record.Host, "uri": record.URI,
		}
	})
}

// Counted tells about refusals that have had no event.
func (e *Emitter) Counted(counted *refusals.Counted) {
	last := refusals.Record{
		Realm: counted.Realm, Directive: counted.Directive, Message: counted.Message, Reason: counted.Reason,
		ErrorID: counted.Last.ErrorID, ReportOnly: counted.Last.ReportOnly,
	}
	if !counted.Several {
		last.ClientID, last.RemoteIP = counted.Last.ClientID, counted.Last.RemoteIP
		last.Certificate = &refusals.Certificate{Thumbprint: counted.Last.Thumbprint}
	}
	e.Refused(&last, counted.Times, counted.Several)
}

// Realm tells what happens in a realm.
type Realm struct {
	emitter *Emitter
	name    string
}

// Realm returns the emitter of a realm.
func (e *Emitter) Realm(name string) Realm { return Realm{e, name} }

// emit adds the realm to the data of an event.
func (r Realm) emit(name string, data func() map[string]any) {
	r.emitter.emit(name, func() map[string]any {
		values := data()
		values["realm"] = r.name
		return values
	})
}

// TokenIssued tells that a client got an access token, but not which.
func (r Realm) TokenIssued(id *authn.Identity, token *tokens.TokenResponse, remoteIP, host string) {
	r.emit(eventTokenIssued, func() map[string]any {
		return map[string]any{
			"client_id": id.Client().ID, "credential": string(id.Credential.Kind), "thumbprint": validators.ThumbprintOf(id.Leaf.Raw).String(),
			"token_id": token.ID, "scope": token.Scope, "audience": strings.Join(token.Audience, " "), "expires_in": token.ExpiresIn,
			"remote_ip": remoteIP, "host": strings.Clone(authn.LogText(host, maxHost)),
		}
	})
}

// ClientChanged tells that a client was changed on the admin API.
func (r Realm) ClientChanged(change clientsapi.Changed) {
	r.emit(eventClientChanged, func() map[string]any {
		return map[string]any{
			"client_id": change.ClientID, "action": change.Action, "source": change.Source,
			"members": strings.Join(change.Members, " "), "in_force": change.InForce,
			"remote_ip": change.By.RemoteIP, "admin": change.By.Certificate, "admin_thumbprint": change.By.Thumbprint,
		}
	})
}

// KeysRotated tells that a signing key was announced or retired, or signs from now on.
func (r Realm) KeysRotated(change keyring.Change) {
	r.emit(eventKeysRotated, func() map[string]any {
		return map[string]any{
			"kid": change.Key.ID, "alg": string(change.Key.Algorithm), "change": change.Kind, "by": change.By,
			"signs_from": timeText(change.Key.SignsFrom),
		}
	})
}

// timeText returns a time for the data of an event, "" for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
