package directory

import (
	"context"
	"errors"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// asideAttempts is how often an update is prepared aside before everything else waits
// for it.
const asideAttempts = 3

// concurrent is what others put in force while an update is prepared aside.
type concurrent struct {
	changes []clientChange
	// what must stay the same
	waiting   *waitList
	documents int // version
}

// clientChange is which clients a transaction has removed and added.
type clientChange struct{ removed, added []*clients.Client }

// applyAside puts all records of a source in force. Indexing many takes seconds, so it
// does not hold changing while it does that: disabling a client of another source must
// not wait. Small changes that come in between are repeated. If that is not possible, it
// begins again, and in the end is not done.
func (u *update) applyAside(ctx context.Context) (done, changed bool, err error) {
	u.directory.aside.Lock()
	defer u.directory.aside.Unlock()
	records, bad := u.records, len(u.bad)
	for range asideAttempts {
		u.records, u.bad = slices.Clone(records), u.bad[:bad]
		if done, changed, err = u.tryAside(ctx); done {
			return true, changed, err
		}
	}
	u.records, u.bad = records, u.bad[:bad]
	return false, false, nil
}

func (u *update) tryAside(ctx context.Context) (done, changed bool, err error) {
	d := u.directory
	others := new(concurrent)
	t, err := u.prepareAside(others)
	if err != nil {
		return true, false, err
	}
	defer d.changing.Unlock()
	func() {
		defer func() { // even if a check of a client panics
			d.changing.Lock()
			d.concurrent = nil
		}()
		err = u.index(ctx, t)
	}()
	switch {
	case errors.Is(err, clients.ErrLate):
		return true, false, err
	case !t.repeat(others, u.source):
		return false, false, nil
	case err != nil:
		return true, false, err
	}
	changed, err = t.finish()
	return true, changed, err
}

// prepareAside prepares a transaction, and has others noted from then on.
func (u *update) prepareAside(others *concurrent) (*transaction, error) {
	d := u.directory
	d.changing.Lock()
	defer d.changing.Unlock()
	t, err := u.prepare()
	if err == nil {
		others.waiting, others.documents = d.waiting.list(), d.documents.version
		d.concurrent = others
	}
	return t, err
}

// note notes what a transaction has changed.
func (o *concurrent) note(t *transaction) {
	if o == nil {
		return
	}
	var change clientChange
	for c := range t.removed {
		change.removed = append(change.removed, c)
	}
	for c := range t.added {
		change.added = append(change.added, c)
	}
	o.changes = append(o.changes, change)
}

// repeat repeats in a transaction what others have changed since it began. It returns
// false if they have changed more than clients of other sources that are in nobody's way.
func (t *transaction) repeat(others *concurrent, own *recordSource) bool {
	d := t.directory
	if d.waiting.list() != others.waiting || d.documents.version != others.documents {
		return false
	}
	for _, change := range others.changes {
		for _, c := range change.removed {
			if c.Rank() == own.rank || !t.edit.Has(c) {
				return false
			}
			t.free(c)
		}
		for _, c := range change.added {
			if displaced, err := t.edit.Add(c); c.Rank() == own.rank || err != nil || displaced != nil {
				return false
			}
		}
	}
	return true
}
