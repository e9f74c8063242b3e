package mtlsauth

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

const (
	// copiesPoll is how soon a JWKS that has changed is stored.
	copiesPoll = time.Second
	// copiesPause is how long storage is left alone after it has failed.
	copiesPause = 30 * time.Second
	// copiesSweep is how often storage is looked through for copies that nobody
	// needs.
	copiesSweep = 24 * time.Hour
)

func (realm *Realm) copyStore() *clients.CopyStore {
	return &clients.CopyStore{
		Storage: realm.storage, Realm: realm.name, Now: realm.app.Now,
		Report: func(object string, err error) {
			realm.app.logger.Error("the copy of a JWKS in storage cannot be used; its client is refused until the JWKS has been fetched",
				zap.String("realm", realm.name), zap.String("key", object), zap.Error(err))
		},
	}
}

// recallCopies reads the copies of JWKS of some clients. Without them, these
// clients are refused until their JWKS have been fetched.
func (realm *Realm) recallCopies(clientIDs []string) []clients.Copy {
	if realm.app.withoutIssuers {
		return nil // nor may storage be needed
	}
	ctx, cancel := context.WithTimeout(realm.app.ctx, revokedFirst)
	defer cancel()
	copies, err := realm.copyStore().Load(ctx, clientIDs)
	if err != nil {
		realm.reportCopies(err)
	}
	return copies
}

func (realm *Realm) reportCopies(err error) {
	realm.app.logger.Error("the copies of JWKS cannot be read from storage or written there; after a restart, clients are refused until their JWKS have been fetched",
		zap.String("realm", realm.name), zap.Error(err))
}

// keepCopies keeps copies of JWKS in storage. A failure is logged when it
// begins.
func (realm *Realm) keepCopies(ctx context.Context) {
	store := realm.copyStore()
	var swept time.Time
	failing := false
	for {
		err := realm.directory.SaveCopies(ctx, store)
		if time.Since(swept) > copiesSweep {
			failed := realm.sweepCopies(ctx, store)
			if failed == nil {
				swept = time.Now()
			}
			err = errors.Join(err, failed)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			realm.reportCopies(err)
		} else if err == nil && failing {
			realm.app.logger.Info("the copies of JWKS can be stored again", zap.String("realm", realm.name))
		}
		failing = err != nil
		wait := copiesPoll
		if failing {
			wait = copiesPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// sweepCopies removes the copies that nobody needs any more, and has those
// stored again that are missing.
func (realm *Realm) sweepCopies(ctx context.Context, store *clients.CopyStore) error {
	copied, possible := realm.directory.Copied()
	lost, err := store.Sweep(ctx, copied, possible)
	realm.directory.CopiesLost(lost)
	if len(copied)+len(possible) == 0 {
		return nil // without a JWKS, storage need not answer
	}
	return err
}
