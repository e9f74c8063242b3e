package metrics

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Results counts decisions by their outcome: "" for one that admits, else the
// refusal reason.
type Results map[validators.Reason]prometheus.Counter

func newResults(vec *prometheus.CounterVec, realm string, reasons []validators.Reason) Results {
	results := Results{"": vec.WithLabelValues(realm, resultOK)}
	for _, reason := range append(slices.Clone(reasons), validators.ConfigurationEnded) {
		results[reason] = vec.WithLabelValues(realm, string(reason))
	}
	return results
}

// NewBearerResults returns the counters of access tokens in one realm. The
// reasons are all that a token can be refused for.
func NewBearerResults(realm string, reasons []validators.Reason) Results {
	return newResults(bearerRequests, realm, reasons)
}

// Count counts one decision.
func (r Results) Count(reason validators.Reason) { r[reason].Inc() }

// Realm is the series of one realm, looked up once.
type Realm struct {
	// Certificates counts decisions about client certificates.
	Certificates Results
	// Duration is how long it took to find the client of a certificate.
	Duration prometheus.Observer
	// CacheHit and CacheMiss count certificates whose verdict was cached or not.
	CacheHit, CacheMiss prometheus.Counter
	// TokensIssued counts access tokens.
	TokensIssued prometheus.Counter
	// Active and Inactive count introspected tokens.
	Active, Inactive prometheus.Counter
	// Revoked counts revoked tokens, RevocationIgnored requests that revoked none.
	Revoked, RevocationIgnored prometheus.Counter
	// ShadowOK, ShadowFail and ShadowDropped count the verdicts of the shadow
	// trust pool.
	ShadowOK, ShadowFail, ShadowDropped prometheus.Counter

	tokenErrors          *prometheus.CounterVec
	clientSourceFailures *prometheus.CounterVec
}

// NewRealm returns the series of the realm of that name.
func NewRealm(realm string) *Realm {
	return &Realm{
		Certificates:      newResults(authentications, realm, validators.Reasons),
		Duration:          authenticationDuration.WithLabelValues(realm),
		CacheHit:          cacheLookups.WithLabelValues(realm, "hit"),
		CacheMiss:         cacheLookups.WithLabelValues(realm, "miss"),
		TokensIssued:      tokensIssued.WithLabelValues(realm),
		Active:            introspections.WithLabelValues(realm, "active"),
		Inactive:          introspections.WithLabelValues(realm, "inactive"),
		Revoked:           tokenRevocations.WithLabelValues(realm, "revoked"),
		RevocationIgnored: tokenRevocations.WithLabelValues(realm, "ignored"),
		tokenErrors:       tokenErrors.MustCurryWith(prometheus.Labels{"realm": realm}),

		clientSourceFailures: clientSourceFailures.MustCurryWith(prometheus.Labels{"realm": realm}),
	}
}

// AddClientSource adds the series of a source of clients.
func (m *Realm) AddClientSource(name string) { m.failures(name).Add(0) }

// ClientSourceFailed counts a failure of a source of clients.
func (m *Realm) ClientSourceFailed(name string) { m.failures(name).Inc() }

func (m *Realm) failures(source string) prometheus.Counter {
	return m.clientSourceFailures.WithLabelValues(strings.ToValidUTF8(source, "?")) // a path may be anything
}

// AddShadow adds the series of the shadow trust pool.
func (m *Realm) AddShadow(realm string) {
	m.ShadowOK = shadowTrust.WithLabelValues(realm, resultOK)
	m.ShadowFail = shadowTrust.WithLabelValues(realm, "fail")
	m.ShadowDropped = both{shadowTrust.WithLabelValues(realm, "dropped"), shadowDropped}
}

// both are two counters of the same thing.
type both struct {
	prometheus.Counter
	also prometheus.Counter
}

// Inc implements prometheus.Counter.
func (b both) Inc() {
	b.Counter.Inc()
	b.also.Inc()
}

// CountTokenError counts a refused request at an endpoint of the issuer, by its
// OAuth error code, which is one of a closed list.
func (m *Realm) CountTokenError(code string) {
	m.tokenErrors.WithLabelValues(code).Inc()
}
