package mtlsauth

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// copiesPoll is how soon a JWKS that has changed is stored.
const copiesPoll = 5 * time.Second

// keySetCopies returns the copies of JWK Sets in storage, nil where storage may
// not be needed.
func (realm *Realm) keySetCopies() *clients.KeySetCopies {
	if realm.app.withoutIssuers {
		return nil
	}
	return &clients.KeySetCopies{Storage: realm.storage, Realm: realm.name, Report: func(err error) {
		realm.app.logger.Error("JWKS copies cannot be read from storage; clients are refused until their JWKS have been fetched",
			zap.String("realm", realm.name), zap.Error(err))
	}}
}

// keepCopies keeps copies of JWKS in storage until the context is done.
func (realm *Realm) keepCopies(ctx context.Context) {
	logger := realm.app.logger.With(zap.String("realm", realm.name))
	source.Poll(ctx, copiesPoll, realm.directory.SaveCopies, func(err error) {
		if err != nil {
			logger.Error("JWKS copies cannot be stored; after a restart, clients are refused until their JWKS have been fetched", zap.Error(err))
			return
		}
		logger.Info("JWKS copies can be stored again")
	})
}
