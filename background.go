package mtlsauth

import (
	"context"
	"time"
)

// upkeepInterval is how often watched files are looked at, at the cost of one
// system call each.
const upkeepInterval = 250 * time.Millisecond

// startUpkeep begins what a realm does in the background. What is slow of one
// kind must not hold up another, so each has its own turn.
func (realm *Realm) startUpkeep(ctx context.Context) {
	if realm.issuer != nil {
		go realm.issuer.keys.Keep(ctx)
		go realm.keepRevocations(ctx)
	}
	if r := realm.revocation; r != nil && r.deny != nil {
		go keep(ctx, r.pollDenyFile)
	}
	if r := realm.revocation; r != nil && r.crls != nil {
		go keep(ctx, r.pollCRLs)
	}
	go keep(ctx, realm.directory.Poll)
	go realm.keepCopies(ctx)
	for _, pool := range realm.trustPools {
		pool.Watch(ctx)
	}
	if realm.shadow != nil {
		go realm.shadow.Run(ctx)
	}
}

// keep calls poll now and then until the context is done.
func keep(ctx context.Context, poll func(context.Context)) {
	ticker := time.NewTicker(upkeepInterval)
	defer ticker.Stop()
	for {
		poll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
