package mtlsauth

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// maxLoggedNames is how many alternative names of a certificate are logged.
	maxLoggedNames = 8
	// maxQueuedRefusals is how many refusals may wait for their log line.
	maxQueuedRefusals = 1024
)

// refusedRequest is what the log line of a refused request is made of.
type refusedRequest struct {
	message string
	refusal *validators.Refusal
	// failed makes it an ERROR instead of a WARN: the caller is not to blame.
	failed bool
	// presented are the certificates of the request, leaf first.
	presented         []*x509.Certificate
	clientID, errorID string // "" for none
	more              []zap.Field

	realm               *Realm
	at                  time.Time
	remoteIP, host, uri string
	forwarded           bool
}

// logRefusal queues the log line of a refusal. r is nil for a refusal in the
// handshake.
func logRefusal(realm *Realm, r *http.Request, refused refusedRequest) {
	refused.realm, refused.at = realm, time.Now()
	if r != nil {
		refused.remoteIP, refused.host, refused.uri = remoteIP(r), r.Host, r.URL.Path
		refused.forwarded = realm.proxyCertificates.trusts(r)
	}
	realm.app.refusals.add(&refused)
}

// log writes the line. Text from a certificate is escaped: a stranger chose it.
func (refused *refusedRequest) log(withHint bool) {
	level := zap.WarnLevel
	if refused.failed {
		level = zap.ErrorLevel
	}
	entry := refused.realm.logger.Check(level, refused.message)
	if entry == nil {
		return
	}
	entry.Time = refused.at
	fields := []zap.Field{
		zap.String("reason", string(refused.refusal.Reason)),
		zap.String("detail", refused.refusal.Detail),
	}
	if refused.remoteIP != "" {
		fields = append(fields, zap.String("remote_ip", refused.remoteIP), zap.String("host", refused.host), zap.String("uri", refused.uri))
	}
	if refused.forwarded {
		fields = append(fields, zap.Bool("forwarded", true)) // and remote_ip is the proxy's
	}
	if refused.errorID != "" {
		fields = append(fields, zap.String("error_id", refused.errorID))
	}
	if refused.clientID != "" {
		fields = append(fields, zap.String("client_id", refused.clientID))
	}
	if len(refused.presented) > 0 {
		fields = append(fields, authn.CertificateFields(refused.presented[0])...)
		if names := loggedNames(refused.presented[0]); len(names) > 0 {
			fields = append(fields, zap.Strings("names", names))
		}
		if withHint {
			fields = append(fields, refused.hintFields()...)
		}
	}
	entry.Write(append(fields, refused.more...)...)
}

// hintFields says what the certificate comes close to, and which client block would
// admit it if that would help. The block contains nothing from the certificate but
// its hash, because an operator may paste it.
func (refused *refusedRequest) hintFields() (fields []zap.Field) {
	current := refused.realm.current.Load()
	if current == nil {
		return nil // mtls_bearer takes only tokens of other servers, which have the clients
	}
	if hint := current.Hint(refused.presented, refused.refusal); hint != "" {
		fields = append(fields, zap.String("hint", hint))
	}
	if leaf := refused.presented[0]; current.Registrable(leaf, refused.refusal.Reason) {
		fields = append(fields, zap.String("register", fmt.Sprintf("client \"CHANGE-ME\" {\n\tthumbprint %q\n}", validators.ThumbprintOf(leaf.Raw))))
	}
	return fields
}

// loggedNames returns the first alternative names of a certificate, as a client would
// declare them.
func loggedNames(cert *x509.Certificate) (names []string) {
	shown, err := validators.ShowNames(cert)
	if err != nil {
		return nil
	}
	for _, name := range shown {
		if name.Kind == "" {
			continue
		}
		if len(names) == maxLoggedNames {
			return append(names, "…")
		}
		names = append(names, string(name.Kind)+" "+name.Text)
	}
	return names
}

// refusalLog writes the log lines of refused requests off the request path: how long
// a hint takes depends on which clients are registered, and a stranger must not be
// able to measure that.
type refusalLog struct {
	queue   chan *refusedRequest
	dropped atomic.Int64
	done    chan struct{} // closed when the queue has been worked off

	mu     sync.RWMutex
	closed bool // then lines are written at once
}

// add queues a line. It never blocks: if the queue is full, the line is dropped and
// counted. After close, add writes the line itself, without a hint.
func (l *refusalLog) add(refused *refusedRequest) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		refused.log(false)
		return
	}
	select {
	case l.queue <- refused:
	default:
		l.dropped.Add(1)
	}
}

// run writes queued lines until the queue is closed and empty.
func (l *refusalLog) run(logger *zap.Logger) {
	defer close(l.done)
	for refused := range l.queue {
		if err := refused.logSafely(); err != nil {
			logger.Error("refusal could not be logged", zap.String("error_id", refused.errorID), zap.Error(err))
		}
		if len(l.queue) == 0 {
			if dropped := l.dropped.Swap(0); dropped > 0 {
				logger.Warn("too many refusals at once; some were not logged", zap.Int64("dropped", dropped))
			}
		}
	}
}

// logSafely turns a panic over a hostile certificate into an error; outside of a
// request, it would end the process.
func (refused *refusedRequest) logSafely() (err error) {
	defer source.Recover("the log line", &err)
	refused.log(true)
	return nil
}

// close ends the worker and waits until it has written all lines or the context is
// done.
func (l *refusalLog) close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	close(l.queue)
	l.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
	}
}
