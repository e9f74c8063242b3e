package directory

import (
	"cmp"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/google/btree"
	"go.uber.org/zap"

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

func (l *waitList) add(w *wait) {
	l.tree.ReplaceOrInsert(w)
	l.counts[w.client.Rank()]++
}

func (l *waitList) remove(w *wait) {
	l.tree.Delete(w)
	l.counts[w.client.Rank()]--
}

// waiting is the clients of a directory that are not in force.
type waiting struct {
	published atomic.Pointer[waitList]
	// waiters are those who wait for a client. The directory's changing guards them
	waiters map[*clients.Client]map[*clients.Client]struct{}
}

// list returns the clients that wait now.
func (w *waiting) list() *waitList { return w.published.Load() }

// change notes which clients wait after a transaction, and for whom. It returns what has
// changed.
func (w *waiting) change(t *transaction) (changed waitChange) {
	before := w.list()
	if before.tree.Len() == 0 && len(t.waits) == 0 {
		return changed
	}
	changed = w.compare(t)
	next, differs := &waitList{before.tree.Clone(), maps.Clone(before.counts)}, false
	end := func(c *clients.Client) {
		if known := next.of(c); known != nil {
			differs = true
			next.remove(known)
			w.forget(known)
		}
	}
	for c := range t.removed {
		end(c)
	}
	for c := range t.waits {
		end(c)
	}
	for c, begun := range t.waits {
		if begun != nil && !t.hasRemoved(c) {
			differs = true
			next.add(begun)
			w.remember(begun)
		}
	}
	if differs {
		w.published.Store(next)
	}
	return changed
}

func (w *waiting) remember(begun *wait) {
	if w.waiters[begun.holder] == nil {
		w.waiters[begun.holder] = make(map[*clients.Client]struct{})
	}
	w.waiters[begun.holder][begun.client] = struct{}{}
}

func (w *waiting) forget(ended *wait) {
	delete(w.waiters[ended.holder], ended.client)
	if len(w.waiters[ended.holder]) == 0 {
		delete(w.waiters, ended.holder)
	}
}

// waitChange is the clients that begin to wait, with what for, and those that are in force
// after having waited, in the order of their client_id.
type waitChange struct {
	refused  []*wait
	admitted []*clients.Client
}

// compare returns who begins and ends to wait with a transaction. A changed record that
// waits for the same client as before is not new.
func (w *waiting) compare(t *transaction) (changed waitChange) {
	before := w.list()
	for c, begun := range t.waits {
		if t.hasRemoved(c) {
			continue
		}
		if begun == nil {
			if before.of(c) != nil {
				changed.admitted = append(changed.admitted, c)
			}
			continue
		}
		if known := before.under(c.ID, c.Rank()); known == nil || known.holder.ID != begun.holder.ID {
			changed.refused = append(changed.refused, begun)
		}
	}
	slices.SortFunc(changed.refused, func(a, b *wait) int { return byID(a.client, b.client) })
	slices.SortFunc(changed.admitted, byID)
	return changed
}

func byID(a, b *clients.Client) int {
	return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Rank(), b.Rank()))
}

// report logs which records are refused because clients of a source with a higher rank
// have what they claim, and which are no longer, the first few one by one.
func (c waitChange) report(d *Directory) {
	for i, w := range c.refused {
		logger := d.sources[w.client.Rank()].logger()
		if i == maxWarnings {
			logger.Error("more client records refused", zap.Int("records", len(c.refused)-i))
			break
		}
		logger.Error("client record refused; a source of a higher rank has its client_id or credential",
			append((&clients.RecordError{Place: w.place, ClientID: w.client.ID}).Fields(),
				zap.String("holder", w.holder.ID), zap.String("holder_source", w.holder.Source()), zap.Error(w.err))...)
	}
	for i, admitted := range c.admitted {
		logger := d.sources[admitted.Rank()].logger()
		if i == maxWarnings {
			logger.Info("more client records no longer refused", zap.Int("records", len(c.admitted)-i))
			break
		}
		logger.Info("client record no longer refused", zap.String("client_id", admitted.ID))
	}
}
