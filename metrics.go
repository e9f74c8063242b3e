package mtlsauth

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	metricsPrefix = "caddy_mtls_"
	resultOK      = "ok"
	// maxExpirySeries bounds the certificate expiry series of one realm.
	maxExpirySeries = 1000
	// maxSourceSeries bounds those of its certificate files and JWKS.
	maxSourceSeries = 1000
)

// Counters belong to the process, so that they go on counting across reloads;
// each configuration registers them in its own registry. Gauges show a
// configuration and come from its app.
var (
	authentications = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricsPrefix + "authentications_total",
		Help: "Decisions about client certificates, by result: ok or the refusal reason.",
	}, []string{"realm", "result"})
	authenticationDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    metricsPrefix + "authentication_duration_seconds",
		Help:    "Time to work out whose a client certificate is.",
		Buckets: []float64{1e-6, 5e-6, 25e-6, 100e-6, 250e-6, 1e-3, 5e-3, 25e-3, 100e-3, 1, 5},
	}, []string{"realm"})
	cacheLookups = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricsPrefix + "cache_total",
		Help: "Certificates that were remembered (hit) or had to be examined (miss).",
	}, []string{"realm", "outcome"})
	tokensIssued = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricsPrefix + "tokens_issued_total",
		Help: "Access tokens issued.",
	}, []string{"realm"})
	tokenErrors = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricsPrefix + "token_errors_total",
		Help: "Requests for tokens, introspection and revocation refused, by OAuth error code.",
	}, []string{"realm", "error"})
	shadowTrust = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricsPrefix + "shadow_trust_total",
		Help: "Certificates admitted by their chain, at first sight, by what the shadow trust pool says: ok, fail, or dropped because too many waited.",
	}, []string{"realm", "result"})
	introspections = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricsPrefix + "introspections_total",
		Help: "Introspection requests answered, by result: active or inactive.",
	}, []string{"realm", "result"})
	revocations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricsPrefix + "revocations_total",
		Help: "Revocation requests answered, by result: revoked, or ignored because the token is not valid or another client's.",
	}, []string{"realm", "result"})

	bearerRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricsPrefix + "bearer_total",
		Help: "Decisions about access tokens, by result: ok or the refusal reason.",
	}, []string{"realm", "result"})

	clientsDesc = prometheus.NewDesc(metricsPrefix+"clients",
		"Registered clients, by where they are declared.", []string{"realm", "source"}, nil)
	expiryDesc = prometheus.NewDesc(metricsPrefix+"certificate_expiry_timestamp_seconds",
		"When the certificate that a client presented last expires; at most 1000 clients of a realm.", []string{"realm", "client_id"}, nil)
	sourceDesc = prometheus.NewDesc(metricsPrefix+"source_last_success_timestamp_seconds",
		"When a source, such as one of clients, a CRL, a trust pool or the signing keys or those of another issuer, was last read without an error.", []string{"realm", "source"}, nil)
	nextUpdateDesc = prometheus.NewDesc(metricsPrefix+"crl_next_update_timestamp_seconds",
		"When the CRL in force ends, after which it says of nobody any more that they are good.", []string{"realm", "source"}, nil)
	ignoredDesc = prometheus.NewDesc(metricsPrefix+"jwks_ignored_certificates",
		"Certificates in the JWKS of clients that are ignored because they are credentials of others.", []string{"realm"}, nil)
	shadowFailingDesc = prometheus.NewDesc(metricsPrefix+"shadow_trust_failing_clients",
		"Clients that presented a certificate, still valid, which would fail under the shadow trust pool.", []string{"realm"}, nil)
	signingKeysDesc = prometheus.NewDesc(metricsPrefix+"signing_keys",
		"Keys in the JWKS, by state: active signs, next will, past has signed, verify is of a server that is being replaced.", []string{"realm", "state"}, nil)
)

// Describe implements prometheus.Collector for the gauges of the app.
func (a *App) Describe(descs chan<- *prometheus.Desc) {
	descs <- clientsDesc
	descs <- expiryDesc
	descs <- signingKeysDesc
	descs <- sourceDesc
	descs <- nextUpdateDesc
	descs <- shadowFailingDesc
	descs <- ignoredDesc
}

// Collect implements prometheus.Collector for the gauges of the app.
func (a *App) Collect(metrics chan<- prometheus.Metric) {
	seen := make(map[string]bool)
	for key, remote := range a.declared.remoteIssuers() {
		if success := remote.LastSuccess(); !success.IsZero() && !seen[key.issuer] {
			seen[key.issuer] = true
			metrics <- prometheus.MustNewConstMetric(sourceDesc, prometheus.GaugeValue, float64(success.Unix()), "", "jwks:"+key.issuer)
		}
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		for i := range labels {
			labels[i] = strings.ToValidUTF8(labels[i], "?") // a path may be anything
		}
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for name, realm := range a.Realms {
		for _, size := range realm.directory.Sizes() {
			gauge(clientsDesc, float64(size.Clients), name, size.Source)
		}
		for _, state := range realm.directory.States(maxSourceSeries) {
			if !state.Success.IsZero() {
				gauge(sourceDesc, float64(state.Success.Unix()), name, state.Source)
			}
		}
		gauge(ignoredDesc, float64(len(realm.directory.Registry().Conflicts())), name)
		realm.metrics.expiry.Range(func(id, notAfter any) bool {
			gauge(expiryDesc, float64(notAfter.(time.Time).Unix()), name, id.(string))
			return true
		})
		if realm.revocation != nil {
			realm.revocation.collect(func(desc *prometheus.Desc, at time.Time, source string) {
				if !at.IsZero() {
					gauge(desc, float64(at.Unix()), name, source)
				}
			})
		}
		for _, pool := range realm.trustPools {
			gauge(sourceDesc, float64(pool.LastSuccess().Unix()), name, pool.Word())
		}
		if realm.shadow != nil {
			gauge(shadowFailingDesc, float64(realm.shadow.Failing(realm.current.Load().parts.registry, a.Now())), name)
		}
		if realm.authority == nil {
			continue
		}
		for state, count := range realm.authority.countKeys() {
			gauge(signingKeysDesc, float64(count), name, state)
		}
		if read := realm.authority.keys.LastRead(); !read.IsZero() {
			gauge(sourceDesc, float64(read.Unix()), name, keysSource)
		}
		if read := realm.authority.revocations.LastRead(); !read.IsZero() {
			gauge(sourceDesc, float64(read.Unix()), name, "revocations")
		}
	}
}

// collect tells of the sources of revocations.
func (r *certificateRevocation) collect(gauge func(desc *prometheus.Desc, at time.Time, source string)) {
	if r.deny != nil {
		gauge(sourceDesc, r.deny.LastSuccess(), "deny")
	}
	if r.crls == nil {
		return
	}
	for _, state := range r.crls.States() {
		gauge(sourceDesc, state.Loaded, "crl:"+state.Location)
		gauge(nextUpdateDesc, state.NextUpdate, "crl:"+state.Location)
	}
}

// register makes the metrics of this configuration visible.
func (a *App) registerMetrics(registry *prometheus.Registry) error {
	for _, collector := range []prometheus.Collector{
		authentications, authenticationDuration, cacheLookups, tokensIssued, tokenErrors, introspections, revocations, shadowTrust, bearerRequests, a,
	} {
		if err := registry.Register(collector); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return err
		}
	}
	return nil
}

// newShadow returns a realm's shadow trust, which counts and logs what it finds.
func newShadow(realm *Realm) *authn.Shadow {
	results := shadowTrust.MustCurryWith(prometheus.Labels{"realm": realm.name})
	return authn.NewShadow(authn.ShadowConfig{
		Logger:  realm.app.logger.With(zap.String("realm", realm.name)),
		OK:      results.WithLabelValues(resultOK),
		Fail:    results.WithLabelValues("fail"),
		Dropped: results.WithLabelValues("dropped"),
	})
}

// bearerMetrics are the series of mtls_bearer in one realm, looked up once.
type bearerMetrics struct {
	results map[validators.Reason]prometheus.Counter
}

func newBearerMetrics(realm string) *bearerMetrics {
	m := &bearerMetrics{results: map[validators.Reason]prometheus.Counter{"": bearerRequests.WithLabelValues(realm, resultOK)}}
	for _, reason := range bearerReasons() {
		m.results[reason] = bearerRequests.WithLabelValues(realm, string(reason))
	}
	return m
}

// decided counts one decision: "" for a token that is admitted.
func (m *bearerMetrics) decided(reason validators.Reason) { m.results[reason].Inc() }

// realmMetrics are the series of one realm, looked up once.
type realmMetrics struct {
	results      map[string]prometheus.Counter
	duration     prometheus.Observer
	hit, miss    prometheus.Counter
	issued       prometheus.Counter
	active       prometheus.Counter
	inactive     prometheus.Counter
	revoked      prometheus.Counter
	notRevoked   prometheus.Counter
	tokenErrors  *prometheus.CounterVec
	expiry       sync.Map // client_id -> time.Time
	expirySeries sync.Mutex
	expiryCount  int
}

func newRealmMetrics(realm string) *realmMetrics {
	m := &realmMetrics{
		results:     make(map[string]prometheus.Counter, len(validators.Reasons)+1),
		duration:    authenticationDuration.WithLabelValues(realm),
		hit:         cacheLookups.WithLabelValues(realm, "hit"),
		miss:        cacheLookups.WithLabelValues(realm, "miss"),
		issued:      tokensIssued.WithLabelValues(realm),
		active:      introspections.WithLabelValues(realm, "active"),
		inactive:    introspections.WithLabelValues(realm, "inactive"),
		revoked:     revocations.WithLabelValues(realm, "revoked"),
		notRevoked:  revocations.WithLabelValues(realm, "ignored"),
		tokenErrors: tokenErrors.MustCurryWith(prometheus.Labels{"realm": realm}),
	}
	m.results[resultOK] = authentications.WithLabelValues(realm, resultOK)
	for _, reason := range validators.Reasons {
		m.results[string(reason)] = authentications.WithLabelValues(realm, string(reason))
	}
	return m
}

// decided counts one decision of a directive: "" for an admitted client.
func (m *realmMetrics) decided(reason validators.Reason) {
	if reason == "" {
		m.results[resultOK].Inc()
		return
	}
	m.results[string(reason)].Inc()
}

// tokenError counts a refused token request; the code is from a closed list.
func (m *realmMetrics) tokenError(err *tokens.Error) {
	m.tokenErrors.WithLabelValues(strings.ToValidUTF8(err.Code, "")).Inc()
}

// observeExpiry notes when the certificate of a client expires, at its first
// sight.
func (m *realmMetrics) observeExpiry(clientID string, notAfter time.Time) {
	if _, known := m.expiry.Load(clientID); !known {
		m.expirySeries.Lock()
		defer m.expirySeries.Unlock()
		if m.expiryCount >= maxExpirySeries {
			return
		}
		m.expiryCount++
	}
	m.expiry.Store(clientID, notAfter)
}
