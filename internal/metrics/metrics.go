// Package metrics has the counters of the process, and the descriptions of the
// gauges that a configuration reports about itself.
package metrics

import (
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	prefix   = "caddy_mtls_"
	resultOK = "ok"
)

var durationBuckets = []float64{1e-6, 5e-6, 25e-6, 100e-6, 250e-6, 1e-3, 5e-3, 25e-3, 100e-3, 1, 5}

// Counters belong to the process, so that they go on counting across reloads;
// each configuration registers them in its own registry. Gauges show a
// configuration and come from its app.
var (
	authentications = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "authentications_total",
		Help: "Decisions about client certificates, by result: ok or the refusal reason.",
	}, []string{"realm", "result"})
	authenticationDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    prefix + "authentication_duration_seconds",
		Help:    "Time to find the client of a certificate.",
		Buckets: durationBuckets,
	}, []string{"realm"})
	handlerDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    prefix + "handler_duration_seconds",
		Help:    "Time that a directive adds to a request, without the upstream and without waiting for the body.",
		Buckets: durationBuckets,
	}, []string{"realm", "directive"})
	refusals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "refusals_total",
		Help: "Refusals, by what refused and why. With report_only, the request was passed on nevertheless.",
	}, []string{"realm", "directive", "reason", "report_only"})
	cacheLookups = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "cache_total",
		Help: "Certificates whose verdict was cached (hit) or had to be worked out (miss).",
	}, []string{"realm", "outcome"})
	tokensIssued = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "tokens_issued_total",
		Help: "Access tokens issued.",
	}, []string{"realm"})
	tokenErrors = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "token_errors_total",
		Help: "Refused requests for tokens, introspection and revocation, by OAuth error code.",
	}, []string{"realm", "error"})
	shadowTrust = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "shadow_trust_total",
		Help: "Certificates admitted by their chain, at first sight, by the verdict of the shadow trust pool: ok, fail, or dropped because too many were waiting.",
	}, []string{"realm", "result"})
	introspections = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "introspections_total",
		Help: "Introspection requests answered, by result: active or inactive.",
	}, []string{"realm", "result"})
	tokenRevocations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "revocations_total",
		Help: "Token revocation requests answered, by result: revoked, or ignored because the token is invalid or another client's.",
	}, []string{"realm", "result"})
	clientSourceFailures = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "client_source_failures_total",
		Help: "Attempts to read a source of clients, or to put a change of it in force, that failed.",
	}, []string{"realm", "source"})
	dropped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "dropped_total",
		Help: "What a full queue had no room for.",
	}, []string{"queue"})
	bearerRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "bearer_total",
		Help: "Decisions about access tokens, by result: ok or the refusal reason.",
	}, []string{"realm", "result"})
)

// What full queues had no room for.
var (
	// RefusalsDropped counts refusals that are counted, but neither logged nor remembered.
	RefusalsDropped = dropped.WithLabelValues(QueueRefusals)
	// EventsDropped counts events that no handler has seen.
	EventsDropped = dropped.WithLabelValues(QueueEvents)
	shadowDropped = dropped.WithLabelValues(QueueShadow)
)

// The queues, as their metrics call them.
const (
	QueueRefusals = "refusals"
	QueueShadow   = "shadow"
	QueueEvents   = "events"
)

// The gauges of a configuration. Sources are called by their kind and, if there
// are several of a kind, their location.
var (
	Clients = prometheus.NewDesc(prefix+"clients",
		"Registered clients, by where they are declared.", []string{"realm", "source"}, nil)
	ClientsRefused = prometheus.NewDesc(prefix+"clients_refused",
		"Client records that are not in force, because a source of a higher rank has what they claim, or because they are wrong and skipped.", []string{"realm", "source"}, nil)
	CertificateExpiry = prometheus.NewDesc(prefix+"certificate_expiry_timestamp_seconds",
		"When the certificate that a client last presented expires; at most 1000 clients of a realm.", []string{"realm", "client_id"}, nil)
	CAExpiry = prometheus.NewDesc(prefix+"ca_certificate_expiry_timestamp_seconds",
		"When a CA certificate of a trust pool expires; of each pool, the 100 that expire first.", []string{"realm", "source", "subject", "thumbprint"}, nil)
	SourceLastSuccess = prometheus.NewDesc(prefix+"source_last_success_timestamp_seconds",
		"When a source, such as a clients file, a CRL, a trust pool or the signing keys, was last read without an error.", []string{"realm", "source"}, nil)
	SourceNormalAge = prometheus.NewDesc(prefix+"source_normal_age_seconds",
		"How old the last success of a source in order gets at most.", []string{"realm", "source"}, nil)
	CRLNextUpdate = prometheus.NewDesc(prefix+"crl_next_update_timestamp_seconds",
		"When the CRL in force expires and no longer vouches for any certificate.", []string{"realm", "source"}, nil)
	JWKSIgnored = prometheus.NewDesc(prefix+"jwks_ignored_certificates",
		"Certificates in the JWKS of clients that are ignored because they are credentials of others.", []string{"realm"}, nil)
	ShadowFailingClients = prometheus.NewDesc(prefix+"shadow_trust_failing_clients",
		"Clients that presented an unexpired certificate which would fail under the shadow trust pool.", []string{"realm"}, nil)
	QueueLength = prometheus.NewDesc(prefix+"queue_length",
		"What waits in a queue of work that no request waits for.", []string{"queue"}, nil)
	CacheEntries = prometheus.NewDesc(prefix+"cache_entries",
		"Entries of a cache, those that have expired included.", []string{"realm", "cache"}, nil)
	RecentRefusals = prometheus.NewDesc(prefix+"recent_refusals",
		"Refusals that are remembered.", []string{"realm"}, nil)
	Strangers = prometheus.NewDesc(prefix+"strangers",
		"Certificates of nobody that were refused lately.", []string{"realm"}, nil)
	BuildInfo = prometheus.NewDesc(prefix+"build_info",
		"Always 1, with the versions of the plugin, of Caddy and of Go.", []string{"version", "caddy_version", "go_version"}, nil)
	SigningKeys = prometheus.NewDesc(prefix+"signing_keys",
		"Keys in the JWKS, by state: active signs, next will sign, past has signed, verify belongs to a server that is being replaced.", []string{"realm", "state"}, nil)
)

// Gauges are all gauges.
var Gauges = []*prometheus.Desc{Clients, ClientsRefused, CertificateExpiry, CAExpiry, SourceLastSuccess, SourceNormalAge, CRLNextUpdate, JWKSIgnored, ShadowFailingClients, QueueLength, CacheEntries, clientRefusals, RecentRefusals, Strangers, BuildInfo, SigningKeys}

// Gauge returns a value of one of the [Gauges]. The labels may be any text.
func Gauge(desc *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "?") // a path may be anything
	}
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

// Register makes the counters and the gauges of a configuration visible in its
// registry.
func Register(registry *prometheus.Registry, gauges prometheus.Collector) error {
	for _, collector := range []prometheus.Collector{
		authentications, authenticationDuration, handlerDuration, refusals, cacheLookups, tokensIssued, tokenErrors, introspections, tokenRevocations, shadowTrust, bearerRequests, clientSourceFailures, dropped, gauges,
	} {
		if err := registry.Register(collector); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return err
		}
	}
	return nil
}
