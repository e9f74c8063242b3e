package authserver

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// longestCached is how long a key must be announced so that no API is surprised by it.
// JwtBearer of ASP.NET Core, the slowest of the libraries in docs/signing-keys.md, reads
// the keys every 12 hours, whatever Cache-Control says.
const longestCached = 12 * time.Hour

// loadKeys reads the configured key, or the managed keys in storage, where it creates
// none.
func (s *Server) loadKeys(ctx context.Context) error {
	verify, err := readVerifyKeys(s.host.Logger, s.VerifyKeys)
	if err != nil {
		return err
	}
	if s.SigningKey != "" {
		err = s.readSigningKey(verify)
	} else {
		err = s.loadManagedKeys(ctx, verify)
	}
	if err == nil {
		warnOwnKeys(s.host.Logger, s.Keys, verify)
	}
	return err
}

func (s *Server) readSigningKey(verify []*keyring.VerifyKey) error {
	var key *keyring.Key
	text, err := os.ReadFile(s.SigningKey)
	if err == nil {
		key, err = keyring.ParsePrivateKeyPEM(text, s.Algorithm)
	}
	if err != nil {
		return fmt.Errorf("signing_key '%s': %w", s.SigningKey, err)
	}
	ring, err := keyring.New(key).WithVerifyKeys(verify...)
	if err != nil {
		return fmt.Errorf("verify_key: %w", err)
	}
	s.Keys, s.FixedKey = keyring.Fixed(ring), key.ID
	return nil
}

func (s *Server) loadManagedKeys(ctx context.Context, verify []*keyring.VerifyKey) (err error) {
	if s.AnnounceFor != 0 && s.AnnounceFor < longestCached {
		s.host.Logger.Warn("key is announced for less time than some libraries keep keys",
			zap.Duration("announce_for", s.AnnounceFor), zap.Duration("libraries", longestCached))
	}
	var running *keyring.Source // of the configuration that is about to be replaced
	if s.host.Before != nil {
		running = s.host.Before.Keys
	}
	s.Keys, err = keyring.Managed(keyring.Config{
		Storage: s.host.Storage, Realm: s.host.Realm, Issuer: s.Config.URL,
		Algorithm: s.Algorithm, RotateEvery: s.RotateEvery, AnnounceFor: s.AnnounceFor,
		LongestToken: s.longestToken(), VerifyKeys: verify,
		Now: s.Config.Now, Report: s.reportKeys, ReportChange: s.host.Events.KeysRotated,
	}, running)
	if err == nil {
		// a failure of storage is reported, and the background work tries again
		_, _ = s.Keys.Load(ctx)
	}
	return err
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

// longestToken returns the longest lifetime that a token can have.
func (s *Server) longestToken() time.Duration {
	return max(s.Config.Lifetime, s.host.Registry().LongestLifetime())
}

// reportKeys logs what happens to the signing keys in storage.
func (s *Server) reportKeys(event, key string, err error) {
	if err != nil && s.host.Ended() { // the storage may have been closed too
		return
	}
	fields := []zap.Field{zap.String("event", event), zap.String("key", key)}
	if event == keyring.EventUnavailable || event == keyring.EventReadable {
		s.host.Events.SourceRead(status.SourceSigningKeys, err)
	}
	switch {
	case err == nil:
		s.host.Logger.Info("signing key", fields...)
	case event == keyring.EventUnavailable:
		s.host.Logger.Error("signing key storage unavailable; using keys in memory",
			append(fields, zap.Error(err))...)
	default:
		s.host.Logger.Error("stored signing key", append(fields, zap.Error(err))...)
	}
}
