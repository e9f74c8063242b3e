package mtlsauth

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/internal/version"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// maxExpirySeries bounds the series of the certificates of a realm's clients.
const maxExpirySeries = 1000

// maxInstant is later than a certificate can expire.
var maxInstant = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)

// caddyModule is the path of Caddy's module.
const caddyModule = "github.com/caddyserver/caddy/v2"

// The names of caches in metrics.
const (
	cacheVerdicts          = "verdicts"
	cacheRefusals          = "refusals"
	cacheOCSPAnswers       = "ocsp_answers"
	cacheTokenCertificates = "token_certificates"
	cacheGatewayTokens     = "gateway_tokens"
	cacheBearerTokens      = "bearer_tokens"
)

// collector implements prometheus.Collector for the gauges of an app.
type collector struct{ app *App }

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range metrics.Gauges {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(collected chan<- prometheus.Metric) {
	taken := gauges(collected)
	taken.process(c.app)
	for name, realm := range c.app.Realms {
		taken.clients(realm)
		taken.sources(name, realm.observed().Sources(c.app.Now()))
		taken.trust(realm)
		taken.issuer(realm)
		taken.memory(realm)
	}
	for name, entries := range c.app.declared.cacheEntries() {
		taken.number(metrics.CacheEntries, entries, name.realm, name.cache)
	}
}

// gauges takes the values of gauges.
type gauges chan<- prometheus.Metric

func (c gauges) number(desc *prometheus.Desc, value int, labels ...string) {
	c <- metrics.Gauge(desc, float64(value), labels...)
}

// instant takes a time, unless there is none yet.
func (c gauges) instant(desc *prometheus.Desc, at time.Time, labels ...string) {
	if !at.IsZero() {
		c <- metrics.Gauge(desc, float64(at.Unix()), labels...)
	}
}

// sources takes what sources report.
func (c gauges) sources(realm string, sources []status.Source) {
	for _, s := range sources {
		c.instant(metrics.SourceLastSuccess, s.LastSuccess, realm, s.Name)
		c.instant(metrics.CRLNextUpdate, s.NextUpdate, realm, s.Name)
		if s.Normal > 0 {
			c <- metrics.Gauge(metrics.SourceNormalAge, s.Normal, realm, s.Name)
		}
	}
}

// process takes what belongs to no realm.
func (c gauges) process(app *App) {
	// two directives can have different keys of one server; the oldest count
	c.sources("", slices.CompactFunc(app.Observed().Sources(app.Now()), func(a, b status.Source) bool { return a.Name == b.Name }))
	waiting := 0
	for _, realm := range app.Realms {
		if realm.shadow != nil {
			waiting += realm.shadow.Waiting()
		}
	}
	c.number(metrics.QueueLength, waiting, metrics.QueueShadow)
	c.number(metrics.QueueLength, app.refusals.Len(), metrics.QueueRefusals)
	c.number(metrics.QueueLength, app.events.Len(), metrics.QueueEvents)
	c.number(metrics.BuildInfo, 1, version.Plugin(), version.Of(caddyModule), runtime.Version())
}

func (c gauges) clients(realm *Realm) {
	for _, size := range realm.directory.Sizes() {
		c.number(metrics.Clients, size.Clients, realm.name, size.Source)
		c.number(metrics.ClientsRefused, size.Refused, realm.name, size.Source)
	}
	c.number(metrics.JWKSIgnored, realm.directory.Registry().CountConflicts(), realm.name)
	soonest, _ := realm.memory.sightings.Expiring(time.Unix(0, 0), maxInstant, maxExpirySeries)
	for _, presented := range soonest {
		c.instant(metrics.CertificateExpiry, presented.NotAfter, realm.name, presented.ClientID)
	}
}

func (c gauges) trust(realm *Realm) {
	for _, pool := range realm.trust.pools {
		for _, ca := range pool.Trust().ExpiringFirst() {
			c.instant(metrics.CAExpiry, ca.NotAfter, realm.name, pool.Word(), dn.Format(ca.RawSubject), fmt.Sprintf("%x", sha256.Sum256(ca.Raw)))
		}
	}
	if realm.shadow != nil {
		c.number(metrics.ShadowFailingClients, realm.shadow.Failing(realm.current.Load().registry, realm.app.Now()), realm.name)
	}
}

func (c gauges) issuer(realm *Realm) {
	if realm.issuer == nil {
		return
	}
	count := map[string]int{keyring.StateNext: 0, keyring.StateActive: 0, keyring.StatePast: 0, keyring.StateVerify: 0}
	for _, info := range realm.issuer.Keys.Infos() {
		count[info.State]++
	}
	for state, count := range count {
		c.number(metrics.SigningKeys, count, realm.name, state)
	}
	if denied := realm.issuer.Denied; denied != nil {
		c.number(metrics.CacheEntries, denied.Entries(), realm.name, cacheTokenCertificates)
	}
}

// memory takes what a realm remembers: refusals, and verdicts about certificates.
func (c gauges) memory(realm *Realm) {
	realm.memory.byClient.Collect(c, realm.name, declaredClients{realm.directory.Registry()}, realm.Refusals.metricsByClient())
	c.number(metrics.RecentRefusals, realm.memory.refusals.Len(), realm.name)
	c.number(metrics.Strangers, realm.memory.refusals.CountStrangers(), realm.name)
	if realm.revocation != nil {
		c.number(metrics.CacheEntries, realm.revocation.cache.Len(), realm.name, cacheOCSPAnswers)
	}
	accepted, refused := realm.authenticator().Remembered()
	c.number(metrics.CacheEntries, accepted, realm.name, cacheVerdicts)
	c.number(metrics.CacheEntries, refused, realm.name, cacheRefusals)
}

// countByClient counts a refusal of a client that is known.
func countByClient(realm *Realm, record *refusals.Record) {
	if realm.directory != nil && record.ClientID != "" && !record.Claimed {
		realm.memory.byClient.Count(record.ClientID, record.Reason, record.ReportOnly, declaredClients{realm.directory.Registry()}, realm.Refusals.metricsByClient())
	}
}

// declaredClients implements [metrics.Declared].
type declaredClients struct{ *clients.Registry }

func (d declaredClients) Declares(clientID string) bool { return d.Client(clientID) != nil }
