package authserver

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

const (
	// RevokedPoll is how soon a node learns about tokens that other nodes have
	// revoked.
	RevokedPoll = 5 * time.Second
	// revokedTimeout bounds one refresh from storage.
	revokedTimeout = 30 * time.Second
	// revokedFirst bounds the load that a start or a reload waits for.
	revokedFirst = 10 * time.Second
)

// loadRevokedTokens reads the revoked tokens from storage.
func (s *Server) loadRevokedTokens(ctx context.Context) error {
	var before *tokens.RevokedTokens
	if s.host.Before != nil {
		before = s.host.Before.RevokedTokens
	}
	list, err := tokens.NewRevokedTokens(tokens.RevokedTokensConfig{
		Storage: s.host.Storage, Realm: s.host.Realm, Issuer: s.Config.URL, LongestToken: s.longestToken, Now: s.Config.Now,
		Report: s.reportRevocation,
	}, before)
	if err != nil {
		return err
	}
	s.RevokedTokens = list
	within, cancel := context.WithTimeout(ctx, revokedFirst)
	defer cancel()
	if err := list.Load(within); err != nil {
		s.reportRevokedTokens(err)
	}
	return nil
}

// reportRevocation logs what is wrong with the object of a revocation.
func (s *Server) reportRevocation(event, key string, err error) {
	if !s.host.Ended() { // else the deletion may have been interrupted
		s.host.Logger.Error("stored token revocation", zap.String("event", event), zap.String("key", key), zap.Error(err))
	}
}

// reportRevokedTokens reports that the revoked tokens cannot be read or, with nil, that
// they can be again.
func (s *Server) reportRevokedTokens(err error) {
	s.host.Events.SourceRead(status.SourceRevokedTokens, err)
	if err == nil {
		s.host.Logger.Info("reading revoked tokens works again")
		return
	}
	consequence := "keeping previous list"
	if !s.RevokedTokens.Known() {
		consequence = "every token counts as revoked"
	}
	s.host.Logger.Error("reading revoked tokens failed; "+consequence, zap.Error(err))
}

// keepRevokedTokens reads the tokens that other nodes have revoked, and removes
// expired ones from storage, until ctx is done.
func (s *Server) keepRevokedTokens(ctx context.Context) {
	source.Poll(ctx, RevokedPoll, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, revokedTimeout)
		defer cancel()
		if s.host.Ended() {
			return s.RevokedTokens.Load(ctx)
		}
		return s.RevokedTokens.Refresh(ctx)
	}, func(err error) {
		if !s.host.Ended() { // else the storage may have been closed too
			s.reportRevokedTokens(err)
		}
	})
}
