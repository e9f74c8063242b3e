package directory

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// transaction is a change of clients. Nothing is in force before it is committed.
type transaction struct {
	directory *Directory
	edit      *clients.Edit
	plan      *plan
	documents documentChanges // whose contents change

	// added and removed are the clients that sources have now, and no longer have
	added, removed map[*clients.Client]struct{}
	// replaced is the source that has handed over all of its records, if any, and all
	// are its clients now
	replaced *recordSource
	all      map[*clients.Client]struct{}
	// waits says what clients wait for now, nil if they are in force. Waiters are
	// those that wait for a client, and newcomers the added ones
	waits     map[*clients.Client]*wait
	waiters   map[*clients.Client][]*clients.Client
	newcomers map[newcomer]*clients.Client
	// freed are clients that are no longer in force, so that others may be
	freed []*clients.Client
}

// newcomer is a client_id in a source.
type newcomer struct {
	id   string
	rank int
}

// begin begins a change. The caller holds changing until it has been committed or
// dropped.
func (p *plan) begin() *transaction {
	return &transaction{
		directory: p.directory, edit: p.directory.Registry().Edit(), plan: p,
		added: make(map[*clients.Client]struct{}), removed: make(map[*clients.Client]struct{}),
		waits: make(map[*clients.Client]*wait), waiters: make(map[*clients.Client][]*clients.Client), newcomers: make(map[newcomer]*clients.Client),
	}
}

// waitOf returns why a client is not in force, or nil.
func (t *transaction) waitOf(c *clients.Client) *wait {
	if w, changed := t.waits[c]; changed {
		return w
	}
	return t.directory.waiting.list().of(c)
}

// hold has a client wait.
func (t *transaction) hold(c, holder *clients.Client, place string, err error) {
	t.waits[c] = &wait{c, holder, place, err}
	t.waiters[holder] = append(t.waiters[holder], c)
}

// remove removes a client that its source no longer has.
func (t *transaction) remove(c *clients.Client) {
	if t.hasRemoved(c) {
		return
	}
	t.removed[c] = struct{}{}
	if t.waitOf(c) == nil {
		t.free(c)
	}
}

// hasRemoved reports whether a client has been removed.
func (t *transaction) hasRemoved(c *clients.Client) bool {
	_, removed := t.removed[c]
	return removed
}

// free takes a client out of force.
func (t *transaction) free(c *clients.Client) {
	t.edit.Remove(c)
	t.freed = append(t.freed, c)
}

// add adds a client. It waits if a client of a higher rank is in its way. One of the
// same rank is an error, and so is anything that is wrong with the client itself.
func (t *transaction) add(c *clients.Client, place string) error {
	s := t.directory.sources[c.Rank()]
	if other := t.directory.waiting.list().under(c.ID, c.Rank()); other != nil {
		if !t.hasRemoved(other.client) {
			return twice(c.ID, s)
		}
	}
	if t.newcomers[newcomer{c.ID, c.Rank()}] != nil {
		return twice(c.ID, s)
	}
	err := t.put(c)
	if conflict := new(clients.ConflictError); errors.As(err, &conflict) && conflict.Holder.Rank() < c.Rank() {
		t.hold(c, conflict.Holder, place, conflict)
		t.newcomers[newcomer{c.ID, c.Rank()}] = c
		err = nil
	}
	if err == nil {
		t.added[c] = struct{}{}
	}
	return err
}

// twice says that a source has two records of a client.
func twice(id string, s *recordSource) error {
	return fmt.Errorf("client '%s' is twice in %s; keep one", id, s.name)
}

// put puts a client in force. Those of lower ranks in its way wait.
func (t *transaction) put(c *clients.Client) error {
	displaced, err := t.edit.Add(c)
	for _, lower := range displaced {
		t.hold(lower, c, "", fmt.Errorf("client '%s' of %s has its client_id or one of its credentials", c.ID, c.Source()))
		t.freed = append(t.freed, lower)
	}
	return err
}

// drop takes back the addition of a client that is in force.
func (t *transaction) drop(c *clients.Client) {
	delete(t.added, c)
	t.free(c)
}

// restore takes back the removal of a client. It returns the client of the same source
// that has been added in its place and is in its way, if any.
func (t *transaction) restore(c *clients.Client) (newcomer *clients.Client) {
	if !t.hasRemoved(c) {
		return nil
	}
	if t.waitOf(c) == nil {
		err := t.put(c)
		if conflict := new(clients.ConflictError); errors.As(err, &conflict) {
			if conflict.Holder.Rank() == c.Rank() {
				return conflict.Holder
			}
			t.hold(c, conflict.Holder, "", err)
		}
	}
	delete(t.removed, c)
	return nil
}

// settle puts clients in force that have waited for those that are gone. The highest
// rank comes first.
func (t *transaction) settle() {
	for len(t.freed) > 0 && len(t.directory.waiting.waiters)+len(t.waiters) > 0 {
		var list []*clients.Client
		for _, holder := range t.freed {
			list = append(slices.AppendSeq(list, maps.Keys(t.directory.waiting.waiters[holder])), t.waiters[holder]...)
		}
		t.freed = nil
		slices.SortFunc(list, byRank)
		for _, c := range slices.Compact(list) {
			w := t.waitOf(c)
			if t.hasRemoved(c) || w == nil {
				continue
			}
			err := t.put(c)
			if conflict := new(clients.ConflictError); errors.As(err, &conflict) {
				t.hold(c, conflict.Holder, w.place, err)
			} else {
				t.waits[c] = nil
			}
		}
	}
}

func byRank(a, b *clients.Client) int {
	return cmp.Or(cmp.Compare(a.Rank(), b.Rank()), cmp.Compare(a.ID, b.ID))
}
