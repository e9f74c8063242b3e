package storagesource

import (
	"bytes"
	"hash/maphash"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// applied is what the sink has got.
type applied struct {
	shards map[string]*appliedShard
	seed   maphash.Seed
	index  string // the key of the index
}

// appliedShard is a shard that the sink has got. Of the records, it has only what is
// needed to find out which ones of a later object are others.
type appliedShard struct {
	object string
	ids    []string // in order
	sums   []uint64 // of the texts of the records
}

func (a *applied) sum(text []byte) uint64 { return maphash.Bytes(a.seed, text) }

// summary returns what is kept of a shard.
func (a *applied) summary(shard shardRead) *appliedShard {
	known := &appliedShard{object: shard.entry.Object, ids: make([]string, len(shard.lines)), sums: make([]uint64, len(shard.lines))}
	for i, l := range shard.lines {
		known.ids[i], known.sums[i] = l.id, a.sum(l.text)
	}
	return known
}

// differences returns the records of a shard that the sink does not have, or has and
// must not.
func (a *applied) differences(shard shardRead) (entries []clients.Entry) {
	known := a.shards[shard.name]
	if known == nil {
		known = new(appliedShard)
	}
	removed := func(id string) { entries = append(entries, clients.Entry{ID: id, Place: a.index}) }
	k := 0
	for i, l := range shard.lines {
		for k < len(known.ids) && known.ids[k] < l.id {
			removed(known.ids[k])
			k++
		}
		if k < len(known.ids) && known.ids[k] == l.id {
			k++
			if known.sums[k-1] == a.sum(l.text) {
				continue
			}
		}
		e := shard.record(i)
		e.Record = bytes.Clone(e.Record) // the rest of the shard is not kept
		entries = append(entries, e)
	}
	for ; k < len(known.ids); k++ {
		removed(known.ids[k])
	}
	return entries
}

// set notes that the sink has got a record, without text if it was removed.
func (a *applied) set(shard string, l line) {
	known := a.shards[shard]
	if known == nil {
		known = new(appliedShard)
		a.shards[shard] = known
	}
	i, found := slices.BinarySearch(known.ids, l.id)
	switch {
	case l.text == nil && found:
		known.ids, known.sums = slices.Delete(known.ids, i, i+1), slices.Delete(known.sums, i, i+1)
	case l.text != nil && found:
		known.sums[i] = a.sum(l.text)
	case l.text != nil:
		known.ids, known.sums = slices.Insert(known.ids, i, l.id), slices.Insert(known.sums, i, a.sum(l.text))
	}
}
