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
func keySetCopies(realm *Realm) *clients.KeySetCopies {
	if realm.app.withoutIssuers {
		return nil
	}
	return &clients.KeySetCopies{Storage: realm.storage, Realm: realm.name, Report: func(err error) {
		realm.logger.Error("reading JWKS copies failed; waiting for fetches", zap.Error(err))
	}}
}

// keepCopies keeps copies of JWKS in storage until the context is done.
func keepCopies(ctx context.Context, realm *Realm) {
	source.Poll(ctx, copiesPoll, realm.directory.SaveCopies, func(err error) {
		if err != nil {
			realm.logger.Error("storing JWKS copies failed", zap.Error(err))
			return
		}
		realm.logger.Info("storing JWKS copies works again")
	})
}
