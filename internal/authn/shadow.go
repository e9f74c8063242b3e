package authn

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// shadowQueue is how many certificates may wait to be verified under the shadow
	// pool.
	shadowQueue = 256
	// maxShadowFailures is how many failing certificates are remembered.
	maxShadowFailures = 10000
	// maxShadowWhy bounds the reason that is remembered for each, in octets of JSON.
	maxShadowWhy = 256
)

// Counter counts outcomes.
type Counter interface{ Inc() }

// ShadowConfig configures a [Shadow].
type ShadowConfig struct {
	Logger *zap.Logger
	// OK and Fail count certificates by whether they verify under the shadow pool.
	// Dropped counts those that were not checked because too many were waiting; they
	// are tried again on their next request.
	OK, Fail, Dropped Counter
}

// Shadow finds out in the background which admitted clients would be refused if the
// shadow pool were the trust pool. No request waits for it.
type Shadow struct {
	config ShadowConfig
	queue  chan shadowSight

	mu sync.Mutex
	// pool is the one that failures belong to.
	pool     *validators.TrustPool
	failures map[shadowKey]shadowFailure
}

// shadowSight is an admitted certificate that was seen for the first time.
type shadowSight struct {
	pool      *validators.TrustPool
	presented []*x509.Certificate
	matches   []admission
	now       time.Time
}

type shadowKey struct {
	thumbprint [sha256.Size]byte
	clientID   string
}

// shadowFailure is a certificate that fails. Its texts are bounded.
type shadowFailure struct {
	subject, why string
	end          time.Time // notAfter
}

// NewShadow returns a Shadow without a pool; see [Shadow.Use] and [Shadow.Run].
func NewShadow(config ShadowConfig) *Shadow {
	return &Shadow{config: config, queue: make(chan shadowSight, shadowQueue), failures: make(map[shadowKey]shadowFailure)}
}

// Use sets the shadow pool. If it differs from the previous one, all failures are
// forgotten.
func (w *Shadow) Use(pool *validators.TrustPool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pool != pool {
		w.pool = pool
		clear(w.failures)
	}
}

// see queues an admitted certificate, once for each verdict. It never blocks.
func (w *Shadow) see(pool *validators.TrustPool, presented []*x509.Certificate, v *verdict, now time.Time) {
	if !v.unseen.Load() || !v.unseen.CompareAndSwap(true, false) {
		return
	}
	select {
	case w.queue <- shadowSight{pool: pool, presented: presented, matches: v.matches, now: now}:
	default:
		v.unseen.Store(true)
		w.config.Dropped.Inc()
	}
}

// Run verifies queued certificates until the context is done.
func (w *Shadow) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case sight := <-w.queue:
			if err := w.judge(sight); err != nil {
				w.config.Logger.Error("checking the shadow trust pool failed", zap.Error(err))
			}
		}
	}
}

// judge verifies a certificate under the shadow pool, for each client that it
// identifies by its chain.
func (w *Shadow) judge(sight shadowSight) (err error) {
	defer source.Recover("the shadow trust pool", &err)
	var chains [][]*x509.Certificate
	var failure error
	verified := false
	for _, match := range sight.matches {
		if match.Client.Disabled || !match.NeedsChain() {
			continue
		}
		if !verified {
			verified = true
			chains, failure = sight.pool.Verify(sight.presented[0], sight.presented[1:], sight.now)
		}
		w.note(sight, match.Client, shadowRefusal(chains, failure, match.Client))
	}
	return nil
}

// shadowRefusal returns why the client would be refused with these chains, or "".
func shadowRefusal(chains [][]*x509.Certificate, err error, client *clients.Client) string {
	if err != nil {
		return err.Error()
	}
	if !slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return validators.IssuedBy(chain, client.IssuedBy) }) {
		return "no certificate of the chain is in the client's issued_by"
	}
	return ""
}

// note counts an outcome and logs a new failure.
func (w *Shadow) note(sight shadowSight, client *clients.Client, why string) {
	leaf := sight.presented[0]
	key := shadowKey{sha256.Sum256(leaf.Raw), client.ID}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pool != sight.pool {
		return // it will be seen again and verified under the current pool
	}
	if why == "" {
		w.config.OK.Inc()
		delete(w.failures, key)
		return
	}
	w.config.Fail.Inc()
	if _, known := w.failures[key]; known {
		return
	}
	if len(w.failures) >= maxShadowFailures {
		maps.DeleteFunc(w.failures, func(_ shadowKey, f shadowFailure) bool { return f.end.Before(sight.now) })
	}
	if len(w.failures) >= maxShadowFailures {
		return // it is only counted
	}
	key.clientID = strings.Clone(key.clientID) // it may be part of a record, which would be kept
	w.failures[key] = shadowFailure{
		subject: LogText(dn.Format(leaf.RawSubject), maxLoggedDN), why: LogText(why, maxShadowWhy), end: leaf.NotAfter,
	}
	w.config.Logger.Warn("client would fail under the shadow trust pool", append(
		CertificateFields(describe(leaf)), zap.String("client_id", client.ID), zap.Time("not_after", leaf.NotAfter), zap.String("why", why))...)
}

// Waiting returns how many certificates wait to be verified.
func (w *Shadow) Waiting() int { return len(w.queue) }

// Failing returns the number of registered clients with an unexpired certificate
// that would fail.
func (w *Shadow) Failing(registry *clients.Registry, now time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	distinct := make(map[string]struct{})
	for key, failure := range w.failures {
		if failure.concerns(registry, key.clientID, now) {
			distinct[key.clientID] = struct{}{}
		}
	}
	return len(distinct)
}

// concerns reports whether the client is registered and could still use the certificate.
func (f shadowFailure) concerns(registry *clients.Registry, clientID string, now time.Time) bool {
	client := registry.Client(clientID)
	return client != nil && !client.Disabled && now.Before(f.end)
}

// ShadowFailure is an unexpired certificate of a registered client that would fail.
type ShadowFailure struct {
	ClientID, Subject, Why string
	Thumbprint             [sha256.Size]byte
	NotAfter               time.Time
}

// Failures returns those that are known, in the order of the clients, at most limit, and
// how many more there are.
func (w *Shadow) Failures(registry *clients.Registry, now time.Time, limit int) (list []ShadowFailure, more int) {
	w.mu.Lock()
	for key, failure := range w.failures {
		if failure.concerns(registry, key.clientID, now) {
			list = append(list, ShadowFailure{key.clientID, failure.subject, failure.why, key.thumbprint, failure.end})
		}
	}
	w.mu.Unlock()
	slices.SortFunc(list, func(a, b ShadowFailure) int {
		return cmp.Or(cmp.Compare(a.ClientID, b.ClientID), a.NotAfter.Compare(b.NotAfter), bytes.Compare(a.Thumbprint[:], b.Thumbprint[:]))
	})
	more = max(len(list)-limit, 0)
	return list[:len(list)-more], more
}
