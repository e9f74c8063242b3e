package mtlsauth

import (
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// longestCached is how long a key must be announced so that no API is surprised by it.
// JwtBearer of ASP.NET Core, the slowest of the libraries in docs/signing-keys.md, reads
// the keys every 12 hours, whatever Cache-Control says.
const longestCached = 12 * time.Hour

// checkRotation reports what is wrong with the settings of key rotation.
func (i *IssuerConfig) checkRotation() error {
	if i.SigningKey != "" && (i.RotateEvery != 0 || i.AnnounceFor != 0) {
		return errors.New("rotate_every and announce_for apply to managed keys only; remove them, or remove signing_key")
	}
	return keyring.CheckRotation(time.Duration(i.RotateEvery), time.Duration(i.AnnounceFor))
}

// signingKeys reads the configured key, or the managed keys in storage. It creates
// none, because a configuration may be provisioned only to validate it. fixed is
// the ID of the configured key.
func signingKeys(realm *Realm, config IssuerConfig, registry *clients.Registry) (keys *keyring.Source, fixed string, err error) {
	var algorithm keyring.Algorithm
	if config.SigningAlgorithm != "" {
		if algorithm, err = keyring.ParseAlgorithm(config.SigningAlgorithm); err != nil {
			return nil, "", err
		}
	}
	if err := config.checkRotation(); err != nil {
		return nil, "", err
	}
	verify, err := readVerifyKeys(realm.logger, config.VerifyKeys)
	if err != nil {
		return nil, "", err
	}
	if config.SigningKey != "" {
		var key *keyring.Key
		text, err := os.ReadFile(config.SigningKey)
		if err == nil {
			key, err = keyring.ParsePrivateKeyPEM(text, algorithm)
		}
		if err != nil {
			return nil, "", fmt.Errorf("signing_key '%s': %w", config.SigningKey, err)
		}
		ring, err := keyring.New(key).WithVerifyKeys(verify...)
		if err != nil {
			return nil, "", fmt.Errorf("verify_key: %w", err)
		}
		keys = keyring.Fixed(ring)
		warnOwnKeys(realm.logger, keys, verify)
		return keys, key.ID, nil
	}
	if announce := time.Duration(config.AnnounceFor); announce != 0 && announce < longestCached {
		realm.logger.Warn("key is announced for less time than some libraries keep keys",
			zap.Duration("announce_for", announce), zap.Duration("libraries", longestCached))
	}
	var previous *keyring.Source // of the configuration that is about to be replaced
	if running := realm.running(); running.issuer != nil {
		previous = running.issuer.keys
	}
	keys, err = keyring.Managed(keyring.Config{
		Storage: realm.storage, Realm: realm.name, Issuer: config.URL,
		Algorithm: algorithm, RotateEvery: time.Duration(config.RotateEvery), AnnounceFor: time.Duration(config.AnnounceFor),
		LongestToken: longestToken(config, registry), VerifyKeys: verify,
		Now: realm.app.Now, Report: func(event, key string, err error) { reportKeys(realm, event, key, err) },
		ReportChange: realm.events.KeysRotated,
	}, previous)
	if err != nil {
		return nil, "", err
	}
	// a failure of storage is reported, and the background work tries again
	_, _ = keys.Load(realm.app.ctx)
	warnOwnKeys(realm.logger, keys, verify)
	return keys, "", nil
}

// warnOwnKeys warns about keys in verify_key that are the issuer's own. A JWKS that was
// saved after the switch has them.
func warnOwnKeys(logger *zap.Logger, keys *keyring.Source, verify []*keyring.VerifyKey) {
	for _, key := range verify {
		if keys.Owns(key.ID) {
			logger.Warn("verification key left out", zap.String("error", "the key '"+key.ID+"' is one of this issuer's own keys, which verify_key does not keep in force; remove it from there"))
		}
	}
}

func readVerifyKeys(logger *zap.Logger, files []string) ([]*keyring.VerifyKey, error) {
	var keys []*keyring.VerifyKey
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			var some []*keyring.VerifyKey
			var warnings []string
			some, warnings, err = keyring.ParseVerifyKeys(text)
			keys = append(keys, some...)
			for _, warning := range warnings {
				logger.Warn("verification key left out", zap.String("file", file), zap.String("error", warning))
			}
		}
		if err == nil {
			err = keyring.CheckVerifyKeys(keys)
		}
		if err != nil {
			return nil, fmt.Errorf("verify_key '%s': %w", file, err)
		}
	}
	return keys, nil
}

// longestToken returns the longest lifetime that a token of the realm can have.
func longestToken(config IssuerConfig, registry *clients.Registry) time.Duration {
	return max(time.Duration(config.TokenLifetime), registry.LongestLifetime())
}

// reportKeys logs what happens to the signing keys in storage.
func reportKeys(realm *Realm, event, key string, err error) {
	logger := realm.logger
	fields := []zap.Field{zap.String("event", event), zap.String("key", key)}
	if event == keyring.EventUnavailable || event == keyring.EventReadable {
		realm.events.SourceRead(status.SourceSigningKeys, err)
	}
	switch {
	case err == nil:
		logger.Info("signing key", fields...)
	case event == keyring.EventUnavailable:
		logger.Error("signing key storage unavailable; using keys in memory",
			append(fields, zap.Error(err))...)
	default:
		logger.Error("stored signing key", append(fields, zap.Error(err))...)
	}
}
