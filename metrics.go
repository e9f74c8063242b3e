package mtlsauth

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// maxSourceSeries bounds the series of a realm's certificate files and JWKS.
const maxSourceSeries = 1000

// The labels of sources in metrics.
const (
	sourceSigningKeys   = "keys"
	sourceRevokedTokens = "revocations"
	sourceDeny          = "deny"
)

// Describe implements prometheus.Collector for the gauges of the app.
func (a *App) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range metrics.Gauges {
		descs <- desc
	}
}

// Collect implements prometheus.Collector for the gauges of the app.
func (a *App) Collect(collected chan<- prometheus.Metric) {
	number := func(desc *prometheus.Desc, value int, labels ...string) {
		collected <- metrics.Gauge(desc, float64(value), labels...)
	}
	instant := func(desc *prometheus.Desc, at time.Time, labels ...string) {
		if !at.IsZero() {
			collected <- metrics.Gauge(desc, float64(at.Unix()), labels...)
		}
	}
	seen := make(map[string]bool)
	for id, keys := range a.declared.allTrustedKeys() {
		if success := keys.LastSuccess(); !success.IsZero() && !seen[id.issuer] {
			seen[id.issuer] = true
			instant(metrics.SourceLastSuccess, success, "", "jwks:"+id.issuer)
		}
	}
	for name, realm := range a.Realms {
		for _, size := range realm.directory.Sizes() {
			number(metrics.Clients, size.Clients, name, size.Source)
			number(metrics.ClientsRefused, size.Refused, name, size.Source)
		}
		for _, state := range realm.directory.States(maxSourceSeries) {
			instant(metrics.SourceLastSuccess, state.Success, name, state.Source)
		}
		number(metrics.JWKSIgnored, realm.directory.Registry().CountConflicts(), name)
		for id, notAfter := range realm.metrics.Expiries {
			instant(metrics.CertificateExpiry, notAfter, name, id)
		}
		if r := realm.revocation; r != nil && r.deny != nil {
			instant(metrics.SourceLastSuccess, r.deny.LastSuccess(), name, sourceDeny)
		}
		if r := realm.revocation; r != nil && r.crls != nil {
			for _, state := range r.crls.States() {
				instant(metrics.SourceLastSuccess, state.Loaded, name, "crl:"+state.Location)
				instant(metrics.CRLNextUpdate, state.NextUpdate, name, "crl:"+state.Location)
			}
		}
		for _, pool := range realm.trustPools {
			instant(metrics.SourceLastSuccess, pool.LastSuccess(), name, pool.Word())
			for _, ca := range pool.Trust().ExpiringFirst() {
				instant(metrics.CAExpiry, ca.NotAfter, name, pool.Word(), validators.FormatDN(ca.RawSubject), fmt.Sprintf("%x", sha256.Sum256(ca.Raw)))
			}
		}
		if realm.shadow != nil {
			number(metrics.ShadowFailingClients, realm.shadow.Failing(realm.current.Load().registry, a.Now()), name)
		}
		if realm.issuer == nil {
			continue
		}
		count := map[string]int{keyring.StateNext: 0, keyring.StateActive: 0, keyring.StatePast: 0, keyring.StateVerify: 0}
		for _, info := range realm.issuer.keys.Infos() {
			count[info.State]++
		}
		for state, count := range count {
			number(metrics.SigningKeys, count, name, state)
		}
		instant(metrics.SourceLastSuccess, realm.issuer.keys.LastRead(), name, sourceSigningKeys)
		instant(metrics.SourceLastSuccess, realm.issuer.revokedTokens.LastRead(), name, sourceRevokedTokens)
	}
}
