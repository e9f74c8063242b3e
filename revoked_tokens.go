package mtlsauth

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

const (
	// revokedPoll is how soon a node learns of the tokens that other nodes
	// have revoked.
	revokedPoll = 5 * time.Second
	// revokedTimeout bounds one look at storage.
	revokedTimeout = 30 * time.Second
	// revokedFirst bounds the look that a start or a reload waits for.
	revokedFirst = 10 * time.Second
)

// loadRevocations reads which tokens have been revoked, without changing
// anything: a configuration may be provisioned only to validate it.
func (realm *Realm) loadRevocations(issuer string) (*tokens.Revocations, error) {
	logger := realm.app.logger
	var before *tokens.Revocations
	if running := realm.running(); running != nil && running.issuer != nil {
		before = running.issuer.revokedTokens
	}
	list, err := tokens.NewRevocations(tokens.RevocationsConfig{
		Storage: realm.storage, Realm: realm.name, Issuer: issuer, Now: realm.app.Now,
		Report: func(event, key string, err error) {
			logger.Error("revoked token in storage", zap.String("realm", realm.name), zap.String("event", event), zap.String("key", key), zap.Error(err))
		},
	}, before)
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(realm.app.ctx, revokedFirst)
	defer cancel()
	if err := list.Load(within); err != nil {
		realm.reportRevocations(list, err)
	}
	return list, nil
}

func (realm *Realm) reportRevocations(list *tokens.Revocations, err error) {
	consequence := "what is known of them stays in force"
	if !list.Known() {
		consequence = "until that works every token counts as revoked"
	}
	realm.app.logger.Error("reading the revoked tokens from storage; "+consequence, zap.String("realm", realm.name), zap.Error(err))
}

// keepRevocations learns of the tokens that other nodes have revoked, and
// removes from storage what has expired. A failure is logged when it begins.
func (realm *Realm) keepRevocations(ctx context.Context) {
	list := realm.issuer.revokedTokens
	ticker := time.NewTicker(revokedPoll)
	defer ticker.Stop()
	failing := false
	for {
		within, cancel := context.WithTimeout(ctx, revokedTimeout)
		err := list.Refresh(within)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			realm.reportRevocations(list, err)
		case err == nil && failing:
			realm.app.logger.Info("the revoked tokens can be read from storage again", zap.String("realm", realm.name))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
