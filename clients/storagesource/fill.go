package storagesource

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// Fill stores the first clients of a realm: many at once, each as [Source.Change] would
// store it. It fails if storage has clients of the realm already. Records are not
// checked beyond their client_id.
func Fill(ctx context.Context, storage certmagic.Storage, realm string, records iter.Seq2[clients.Entry, error]) (err error) {
	shards := make(map[string][]line)
	for e, err := range records {
		if err != nil {
			return err
		}
		id, err := recordID(e.Record)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Place, err)
		}
		text, err := oneLine(id, e.Record)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Place, err)
		}
		name := shardOf(id)
		shards[name] = append(shards[name], line{id, text})
	}
	o := newObjects(storage, realm)
	if err := o.lock(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.unlock(ctx)) }()
	x, err := o.readIndex(ctx)
	if err != nil {
		return err
	}
	if x.Revision > 0 {
		return fmt.Errorf("'%s' exists; change its clients one by one", o.key(indexName))
	}
	if err := o.store(ctx, indexName, x.encode()); err != nil {
		return err
	}
	x.Revision = 1
	for name, lines := range shards {
		slices.SortFunc(lines, func(a, b line) int { return compareID(a, b.id) })
		for i := range lines[1:] {
			if lines[i].id == lines[i+1].id {
				return fmt.Errorf("client '%s' has two records; keep one", lines[i].id)
			}
		}
		text := encodeShard(lines)
		entry := shardEntry{newObjectName(name, x.Revision, text), len(lines), len(text)}
		if err := o.store(ctx, entry.Object, text); err != nil {
			return err
		}
		x.Shards[name] = entry
	}
	return o.store(ctx, indexName, x.encode())
}
