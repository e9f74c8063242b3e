package directory

import (
	"cmp"
	"iter"
	"maps"

	"github.com/google/btree"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// waitDegree is half of how many items a node of a [waitList] has at most.
const waitDegree = 32

// wait is that a client is not in force, because another one has what it claims.
type wait struct {
	client, holder *clients.Client
	place          string // of the record, if it is known
	err            error
}

// waitList is the clients that are not in force, in the order of their client_id and
// rank. It is immutable once it is published.
type waitList struct {
	tree *btree.BTreeG[*wait]
	// counts is how many there are of each rank
	counts map[int]int
}

func newWaitList() *waitList {
	return &waitList{btree.NewG(waitDegree, func(a, b *wait) bool {
		return cmp.Or(cmp.Compare(a.client.ID, b.client.ID), cmp.Compare(a.client.Rank(), b.client.Rank())) < 0
	}), make(map[int]int)}
}

// under returns what the client of a rank waits for, or nil.
func (l *waitList) under(id string, rank int) *wait {
	w, _ := l.tree.Get(&wait{client: &clients.Client{ID: id, Origin: clients.NewOrigin("", rank)}})
	return w
}

// of returns what a client waits for, or nil.
func (l *waitList) of(c *clients.Client) *wait {
	if w := l.under(c.ID, c.Rank()); w != nil && w.client == c {
		return w
	}
	return nil
}

// changeWaiting notes which clients wait after a transaction, and for whom.
func (d *Directory) changeWaiting(t *transaction) {
	before := d.waiting.Load()
	if before.tree.Len() == 0 && len(t.waits) == 0 {
		return
	}
	next, changed := &waitList{before.tree.Clone(), maps.Clone(before.counts)}, false
	end := func(c *clients.Client) {
		w := next.of(c)
		if w == nil {
			return
		}
		changed = true
		next.tree.Delete(w)
		next.counts[c.Rank()]--
		delete(d.waiters[w.holder], c)
		if len(d.waiters[w.holder]) == 0 {
			delete(d.waiters, w.holder)
		}
	}
	for c := range t.removed {
		end(c)
	}
	for c := range t.waits {
		end(c)
	}
	for c, w := range t.waits {
		if _, removed := t.removed[c]; removed || w == nil {
			continue
		}
		changed = true
		next.tree.ReplaceOrInsert(w)
		next.counts[c.Rank()]++
		if d.waiters[w.holder] == nil {
			d.waiters[w.holder] = make(map[*clients.Client]struct{})
		}
		d.waiters[w.holder][c] = struct{}{}
	}
	if changed {
		d.waiting.Store(next)
	}
}

// WaitingClient is a client that is not in force, because a client of a source with a
// higher rank has its client_id or one of its credentials.
type WaitingClient struct {
	*clients.Client
	// Holder is the other client.
	Holder *clients.Client
	// Reason says what it has.
	Reason error
}

// Waiting yields the clients that are not in force, in the order of their client_id,
// from id on.
func (d *Directory) Waiting(id string) iter.Seq[WaitingClient] {
	return func(yield func(WaitingClient) bool) {
		d.waiting.Load().tree.AscendGreaterOrEqual(&wait{client: &clients.Client{ID: id, Origin: clients.NewOrigin("", -1)}}, func(w *wait) bool {
			return yield(WaitingClient{w.client, w.holder, w.err})
		})
	}
}
