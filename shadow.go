package mtlsauth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// shadowQueue is how many certificates may wait to be held against the
	// shadow pool.
	shadowQueue = 256
	// maxShadowFailures bounds the certificates that are known to fail.
	maxShadowFailures = 10000
)

// The results of shadow trust, beside [resultOK].
const (
	shadowFail = "fail"
	// shadowDropped: too many waited; the certificate's next request tries again
	shadowDropped = "dropped"
)

// shadowWatch finds out, in the background, which admitted clients would fail
// if the shadow pool were the trust pool. Nothing waits for it.
type shadowWatch struct {
	realm             *Realm
	queue             chan shadowSight
	ok, fail, dropped prometheus.Counter

	mu sync.Mutex
	// pool is the one that failures are about.
	pool     *trust
	failures map[shadowKey]time.Time // to the end of the certificate
	full     bool                    // and somebody has been told
}

// shadowSight is the first sight of a certificate that was admitted.
type shadowSight struct {
	pool      *trust
	presented []*x509.Certificate
	matches   []admission
	now       time.Time
}

type shadowKey struct {
	thumbprint [sha256.Size]byte
	clientID   string
}

func newShadowWatch(realm *Realm) *shadowWatch {
	results := shadowTrust.MustCurryWith(prometheus.Labels{"realm": realm.name})
	return &shadowWatch{
		realm: realm,
		queue: make(chan shadowSight, shadowQueue),
		ok:    results.WithLabelValues(resultOK), fail: results.WithLabelValues(shadowFail), dropped: results.WithLabelValues(shadowDropped),
		failures: make(map[shadowKey]time.Time),
	}
}

// use makes failures be about this pool from now on.
func (w *shadowWatch) use(pool *trust) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pool != pool {
		w.pool, w.full = pool, false
		clear(w.failures)
	}
}

// see queues a certificate that has just been admitted, unless that has been
// done since the verdict was worked out. It waits for nothing.
func (w *shadowWatch) see(pool *trust, presented []*x509.Certificate, v *verdict, now time.Time) {
	if !v.unseen.Load() || !v.unseen.CompareAndSwap(true, false) {
		return
	}
	select {
	case w.queue <- shadowSight{pool: pool, presented: presented, matches: v.matches, now: now}:
	default:
		v.unseen.Store(true)
		w.dropped.Inc()
	}
}

// run works through the queue.
func (w *shadowWatch) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case sight := <-w.queue:
			w.judge(sight)
		}
	}
}

// judge holds a certificate against the shadow pool, for each client that it
// is by its chain.
func (w *shadowWatch) judge(sight shadowSight) {
	defer func() {
		if fault := recover(); fault != nil {
			w.realm.app.logger.Error("shadow trust could not be worked out", zap.String("realm", w.realm.name), zap.Any("fault", fault))
		}
	}()
	var chains [][]*x509.Certificate
	var err error
	verified := false
	for _, match := range sight.matches {
		if match.Client.Disabled || !byChain(match) {
			continue
		}
		if !verified {
			verified = true
			chains, err = sight.pool.pool.Verify(sight.presented[0], sight.presented[1:], sight.now)
		}
		w.note(sight, match.Client, shadowRefusal(chains, err, match.Client))
	}
}

// byChain reports whether a match counts only with a verified chain.
func byChain(match admission) bool {
	return !match.Credential.Kind.Pinned() || needsChain(match.Credential)
}

// shadowRefusal is why the client would not be admitted by these chains, or "".
func shadowRefusal(chains [][]*x509.Certificate, err error, client *clients.Client) string {
	if err != nil {
		return err.Error()
	}
	for _, chain := range chains {
		if validators.IssuedBy(chain, client.IssuedBy) {
			return ""
		}
	}
	return "no certificate of the chain is in the client's issued_by"
}

// note counts an outcome, and logs a failure that is not known yet.
func (w *shadowWatch) note(sight shadowSight, client *clients.Client, why string) {
	leaf := sight.presented[0]
	key := shadowKey{sha256.Sum256(leaf.Raw), client.ID}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pool != sight.pool {
		return // it is seen again, and held against the pool that took its place
	}
	if why == "" {
		w.ok.Inc()
		delete(w.failures, key)
		return
	}
	w.fail.Inc()
	if _, known := w.failures[key]; known {
		return
	}
	logger := w.realm.app.logger.With(zap.String("realm", w.realm.name))
	if len(w.failures) >= maxShadowFailures {
		maps.DeleteFunc(w.failures, func(_ shadowKey, end time.Time) bool { return end.Before(sight.now) })
	}
	if len(w.failures) >= maxShadowFailures {
		if !w.full {
			w.full = true
			logger.Warn("more certificates would fail under the shadow trust pool than are remembered; further ones are only counted",
				zap.Int("remembered", maxShadowFailures))
		}
		return
	}
	w.failures[key] = leaf.NotAfter
	logger.Warn("client would fail under the shadow trust pool",
		zap.String("client_id", client.ID),
		zap.String("subject", validators.FormatDN(leaf.RawSubject)),
		zap.String("issuer", validators.FormatDN(leaf.RawIssuer)),
		zap.String("serial", validators.FormatSerial(leaf.SerialNumber)),
		zap.String("thumbprint", hex.EncodeToString(key.thumbprint[:])),
		zap.Time("not_after", leaf.NotAfter),
		zap.String("why", why))
}

// failing is the number of registered clients that have presented a certificate
// which would fail and has not expired.
func (w *shadowWatch) failing(registry *clients.Registry, now time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	distinct := make(map[string]struct{})
	for key, end := range w.failures {
		if client := registry.Client(key.clientID); client != nil && !client.Disabled && now.Before(end) {
			distinct[key.clientID] = struct{}{}
		}
	}
	return len(distinct)
}

// underShadow says what would be decided about a certificate if the shadow pool
// were the trust pool.
func (s *snapshot) underShadow(presented []*x509.Certificate, clientID string) string {
	next := newAuthenticator(s.registry, s.shadow.pool, s.now)
	next.revocation = s.revocation
	id, refusal, _ := next.authenticate(presented, clientID)
	if refusal != nil {
		return fmt.Sprintf("refused: %s: %s", refusal.Reason, refusal.Detail)
	}
	return "client " + id.client().ID
}
