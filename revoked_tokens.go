package mtlsauth

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

const (
	// revokedPoll is how soon a node learns about tokens that other nodes have
	// revoked.
	revokedPoll = 5 * time.Second
	// revokedTimeout bounds one refresh from storage.
	revokedTimeout = 30 * time.Second
	// revokedFirst bounds the load that a start or a reload waits for.
	revokedFirst = 10 * time.Second
)

// loadRevokedTokens reads the revoked tokens from storage. It changes nothing
// there, because a configuration may be provisioned only to validate it.
func loadRevokedTokens(realm *Realm, issuer string, longest func() time.Duration) (*tokens.RevokedTokens, error) {
	var before *tokens.RevokedTokens
	if running := realm.running(); running.issuer != nil {
		before = running.issuer.revokedTokens
	}
	list, err := tokens.NewRevokedTokens(tokens.RevokedTokensConfig{
		Storage: realm.storage, Realm: realm.name, Issuer: issuer, LongestToken: longest, Now: realm.app.Now,
		Report: func(event, key string, err error) {
			realm.logger.Error("stored token revocation", zap.String("event", event), zap.String("key", key), zap.Error(err))
		},
	}, before)
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(realm.app.ctx, revokedFirst)
	defer cancel()
	if err := list.Load(within); err != nil {
		reportRevokedTokens(realm, list, err)
	}
	return list, nil
}

func reportRevokedTokens(realm *Realm, list *tokens.RevokedTokens, err error) {
	realm.events.SourceRead(status.SourceRevokedTokens, err)
	consequence := "keeping previous list"
	if !list.Known() {
		consequence = "every token counts as revoked"
	}
	realm.logger.Error("reading revoked tokens failed; "+consequence, zap.Error(err))
}

// keepRevokedTokens reads the tokens that other nodes have revoked, and removes
// expired ones from storage, until ctx is done.
func keepRevokedTokens(ctx context.Context, realm *Realm) {
	list := realm.issuer.revokedTokens
	source.Poll(ctx, revokedPoll, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, revokedTimeout)
		defer cancel()
		if realm.app.stopped.Load() {
			return list.Load(ctx)
		}
		return list.Refresh(ctx)
	}, func(err error) {
		if realm.app.stopped.Load() {
			return // the storage may have been closed too
		}
		if err != nil {
			reportRevokedTokens(realm, list, err)
			return
		}
		realm.events.SourceRead(status.SourceRevokedTokens, nil)
		realm.logger.Info("reading revoked tokens works again")
	})
}
