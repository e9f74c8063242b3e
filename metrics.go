package mtlsauth

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/version"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// maxSourceSeries bounds the series of a realm's certificate files and JWKS.
const maxSourceSeries = 1000

// caddyModule is the path of Caddy's module.
const caddyModule = "github.com/caddyserver/caddy/v2"

// The labels of sources in metrics.
const (
	sourceSigningKeys   = "keys"
	sourceRevokedTokens = "revocations"
	sourceDeny          = "deny"
)

// The names of caches in metrics.
const (
	cacheVerdicts          = "verdicts"
	cacheRefusals          = "refusals"
	cacheOCSPAnswers       = "ocsp_answers"
	cacheTokenCertificates = "token_certificates"
	cacheGatewayTokens     = "gateway_tokens"
	cacheBearerTokens      = "bearer_tokens"
)

// Describe implements prometheus.Collector for the gauges of the app.
func (a *App) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range metrics.Gauges {
		descs <- desc
	}
}

// Collect implements prometheus.Collector for the gauges of the app.
func (a *App) Collect(collected chan<- prometheus.Metric) {
	c := collector(collected)
	a.collectProcess(c)
	for _, realm := range a.Realms {
		realm.collectClients(c)
		realm.collectRevocation(c)
		realm.collectTrust(c)
		realm.collectIssuer(c)
		realm.collectCaches(c)
		realm.collectRefusals(c)
	}
	for name, entries := range a.declared.cacheEntries() {
		c.number(metrics.CacheEntries, entries, name.realm, name.cache)
	}
}

// collector takes the values of gauges.
type collector chan<- prometheus.Metric

func (c collector) number(desc *prometheus.Desc, value int, labels ...string) {
	c <- metrics.Gauge(desc, float64(value), labels...)
}

// instant takes a time, unless there is none yet.
func (c collector) instant(desc *prometheus.Desc, at time.Time, labels ...string) {
	if !at.IsZero() {
		c <- metrics.Gauge(desc, float64(at.Unix()), labels...)
	}
}

// collectProcess collects what belongs to no realm.
func (a *App) collectProcess(c collector) {
	seen := make(map[string]bool)
	for id, keys := range a.declared.allTrustedKeys() {
		if success := keys.LastSuccess(); !success.IsZero() && !seen[id.issuer] {
			seen[id.issuer] = true
			c.instant(metrics.SourceLastSuccess, success, "", "jwks:"+id.issuer)
		}
	}
	waiting := 0
	for _, realm := range a.Realms {
		if realm.shadow != nil {
			waiting += realm.shadow.Waiting()
		}
	}
	c.number(metrics.QueueLength, waiting, metrics.QueueShadow)
	c.number(metrics.QueueLength, len(a.refusals.queue), metrics.QueueRefusals)
	c.number(metrics.QueueLength, a.events.Len(), metrics.QueueEvents)
	c.number(metrics.BuildInfo, 1, version.Plugin(), version.Of(caddyModule), runtime.Version())
}

func (realm *Realm) collectClients(c collector) {
	for _, size := range realm.directory.Sizes() {
		c.number(metrics.Clients, size.Clients, realm.name, size.Source)
		c.number(metrics.ClientsRefused, size.Refused, realm.name, size.Source)
	}
	for _, state := range realm.directory.States(maxSourceSeries) {
		c.instant(metrics.SourceLastSuccess, state.Success, realm.name, state.Source)
	}
	c.number(metrics.JWKSIgnored, realm.directory.Registry().CountConflicts(), realm.name)
	for id, notAfter := range realm.metrics.Expiries {
		c.instant(metrics.CertificateExpiry, notAfter, realm.name, id)
	}
}

func (realm *Realm) collectRevocation(c collector) {
	r := realm.revocation
	if r == nil {
		return
	}
	c.number(metrics.CacheEntries, r.cache.Len(), realm.name, cacheOCSPAnswers)
	if r.deny != nil {
		c.instant(metrics.SourceLastSuccess, r.deny.LastSuccess(), realm.name, sourceDeny)
	}
	if r.crls == nil {
		return
	}
	for _, state := range r.crls.States() {
		c.instant(metrics.SourceLastSuccess, state.Loaded, realm.name, "crl:"+state.Location)
		c.instant(metrics.CRLNextUpdate, state.NextUpdate, realm.name, "crl:"+state.Location)
	}
}

func (realm *Realm) collectTrust(c collector) {
	for _, pool := range realm.trustPools {
		c.instant(metrics.SourceLastSuccess, pool.LastSuccess(), realm.name, pool.Word())
		for _, ca := range pool.Trust().ExpiringFirst() {
			c.instant(metrics.CAExpiry, ca.NotAfter, realm.name, pool.Word(), validators.FormatDN(ca.RawSubject), fmt.Sprintf("%x", sha256.Sum256(ca.Raw)))
		}
	}
	if realm.shadow != nil {
		c.number(metrics.ShadowFailingClients, realm.shadow.Failing(realm.current.Load().registry, realm.app.Now()), realm.name)
	}
}

func (realm *Realm) collectIssuer(c collector) {
	if realm.issuer == nil {
		return
	}
	count := map[string]int{keyring.StateNext: 0, keyring.StateActive: 0, keyring.StatePast: 0, keyring.StateVerify: 0}
	for _, info := range realm.issuer.keys.Infos() {
		count[info.State]++
	}
	for state, count := range count {
		c.number(metrics.SigningKeys, count, realm.name, state)
	}
	c.instant(metrics.SourceLastSuccess, realm.issuer.keys.LastRead(), realm.name, sourceSigningKeys)
	c.instant(metrics.SourceLastSuccess, realm.issuer.revokedTokens.LastRead(), realm.name, sourceRevokedTokens)
	if denied := realm.issuer.denied; denied != nil {
		c.number(metrics.CacheEntries, denied.chains.Entries(), realm.name, cacheTokenCertificates)
	}
}

func (realm *Realm) collectRefusals(c collector) {
	c.number(metrics.RecentRefusals, realm.memory.refusals.Len(), realm.name)
	c.number(metrics.Strangers, realm.memory.refusals.CountStrangers(), realm.name)
}

func (realm *Realm) collectCaches(c collector) {
	accepted, refused := realm.authenticator().Remembered()
	c.number(metrics.CacheEntries, accepted, realm.name, cacheVerdicts)
	c.number(metrics.CacheEntries, refused, realm.name, cacheRefusals)
}
