package mtlsauth

import (
	"context"
	"crypto/x509"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// maxQueuedRefusals is how many refusals may wait for their log line, and
	// maxQueuedOctets how large the certificates may be that wait with them.
	maxQueuedRefusals = 1024
	maxQueuedOctets   = 4 << 20

	// The bounds of what a caller chooses, in octets of JSON. With those of the
	// certificate in internal/authn, a line has at most 4 KiB.
	maxLoggedDetail   = 768
	maxLoggedPath     = 256
	maxLoggedHost     = 128
	maxLoggedClientID = 256
)

// What refuses, as operators call it.
const (
	directiveAuth     = "mtls_auth"
	directiveIssuer   = "mtls_issuer"
	directiveBearer   = "mtls_bearer"
	directiveVerifier = "verifier"
)

// refusedRequest is what the log line of a refused request is made of.
type refusedRequest struct {
	directive string
	message   string
	refusal   *validators.Refusal
	// reportOnly is set if the request is passed on nevertheless.
	reportOnly bool
	// failed makes it an ERROR instead of a WARN: the caller is not to blame.
	failed bool
	// presented are the certificates of the request, leaf first. notes keeps what the
	// log says about them; nil if they have not been looked at.
	presented         []*x509.Certificate
	notes             *authn.Notes
	clientID, errorID string // "" for none
	more              []zap.Field

	realm               *Realm
	at                  time.Time
	remoteIP, host, uri string
	forwarded           bool
	octets              int64 // of presented
	// ignored is the header in which the peer sent a certificate that does not count,
	// or "".
	ignored string
}

// logRefusal counts a refusal and queues its log line. r is nil for a refusal in the
// handshake.
func logRefusal(realm *Realm, r *http.Request, refused refusedRequest) {
	metrics.CountRefusal(realm.name, refused.directive, refused.refusal.Reason, refused.reportOnly)
	refused.realm, refused.at = realm, time.Now()
	if r != nil {
		// copies, because the request's own text may be part of a large header
		refused.remoteIP, refused.host, refused.uri = remoteIP(r), logCopy(r.Host, maxLoggedHost), logCopy(r.URL.Path, maxLoggedPath)
		refused.forwarded = realm.proxyCertificates.trusts(r)
		if realm.proxyCertificates != nil || refused.refusal.Reason == validators.CertificateMissing {
			refused.ignored = realm.proxyCertificates.ignoredHeader(r)
		}
	}
	refused.clientID = logCopy(refused.clientID, maxLoggedClientID)
	refused.keepPresented()
	realm.app.refusals.add(&refused)
}

// keepPresented keeps the certificates only if the line needs them.
func (refused *refusedRequest) keepPresented() {
	switch {
	case refused.notes == nil && len(refused.presented) > 0 && validators.CheckPresented(refused.presented) == nil:
		refused.notes = authn.NewNotes(refused.refusal)
	case refused.notes == nil, refused.notes.Made(refused.realm.authenticator(), refused.refusal):
		refused.presented = nil
	}
	refused.octets = int64(validators.PresentedSize(refused.presented))
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
	why := ""
	if refused.ignored != "" {
		why = "; " + refused.realm.proxyCertificates.whyIgnored(refused.ignored, refused.remoteIP)
	}
	why += refused.realm.whyUnknown(refused.refusal.Reason)
	fields := []zap.Field{
		zap.String("reason", string(refused.refusal.Reason)),
		zap.String("detail", authn.LogText(refused.refusal.Detail, maxLoggedDetail-len(why))+why),
		zap.String("directive", refused.directive),
	}
	if refused.reportOnly {
		fields = append(fields, zap.Bool("report_only", true))
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
	if refused.notes != nil {
		var hinting *authn.Authenticator
		if withHint {
			hinting = refused.realm.authenticator()
		}
		fields = append(fields, refused.notes.Fields(hinting, refused.presented, refused.refusal)...)
	}
	entry.Write(append(fields, refused.more...)...)
}

// logCopy returns a copy of the text, cut as [authn.LogText] does.
func logCopy(text string, most int) string {
	return strings.Clone(authn.LogText(text, most))
}

// refusalLog writes the log lines of refused requests off the request path: how long
// a hint takes depends on which clients are registered, and a stranger must not be
// able to measure that.
type refusalLog struct {
	queue   chan *refusedRequest
	octets  atomic.Int64 // of the certificates in the queue
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
	if l.octets.Add(refused.octets) <= maxQueuedOctets {
		select {
		case l.queue <- refused:
			return
		default:
		}
	}
	l.octets.Add(-refused.octets)
	l.dropped.Add(1)
	metrics.RefusalsDropped.Inc()
}

// run writes queued lines until the queue is closed and empty.
func (l *refusalLog) run(logger *zap.Logger) {
	defer close(l.done)
	for refused := range l.queue {
		l.octets.Add(-refused.octets)
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
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
	}
}
