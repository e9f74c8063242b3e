package mtlsauth

import (
	"context"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// startBackground starts the background work of a realm. Each kind of work has a
// goroutine of its own, so that a slow one does not hold up the others.
func (realm *Realm) startBackground(ctx context.Context) {
	if realm.issuer != nil {
		go realm.issuer.keys.Keep(ctx)
		go keepRevokedTokens(ctx, realm.logger, realm.issuer.revokedTokens)
	}
	if r := realm.revocation; r != nil && r.deny != nil {
		go look(ctx, r.pollDenyFile)
	}
	if r := realm.revocation; r != nil && r.crls != nil {
		go look(ctx, r.pollCRLs)
	}
	go look(ctx, realm.directory.Poll)
	go keepCopies(ctx, realm)
	for _, pool := range realm.trustPools {
		pool.Watch(ctx)
	}
	if realm.shadow != nil {
		go realm.shadow.Run(ctx)
	}
}

// look calls poll as often as watched files are looked at, until ctx is done.
func look(ctx context.Context, poll func(context.Context)) {
	source.Poll(ctx, source.LookInterval, func(ctx context.Context) error { poll(ctx); return nil }, nil)
}
