package clients

import (
	"cmp"
	"sync"
	"time"

	"github.com/google/btree"
)

// totals says what all clients have together.
type totals struct {
	// loose is how many clients with PKI credentials have no issued_by
	loose     int
	scopes    tally[string]
	claims    tally[string]
	lifetimes tally[time.Duration]
	ranks     tally[int]
	// scopeList returns the scopes, sorted. It is shared as long as they stay the same
	scopeList func() []string
}

func newTotals() totals {
	return totals{
		scopes: newTally[string](), claims: newTally[string](), lifetimes: newTally[time.Duration](), ranks: newTally[int](),
		scopeList: func() []string { return nil },
	}
}

func (t *totals) clone() totals {
	return totals{t.loose, t.scopes.clone(), t.claims.clone(), t.lifetimes.clone(), t.ranks.clone(), t.scopeList}
}

// count adds a client, or with -1 subtracts it.
func (t *totals) count(c *Client, change int) {
	t.ranks.add(c.rank, change)
	changed := false
	for _, scope := range c.Scopes {
		changed = t.scopes.add(scope, change) || changed
	}
	if changed {
		t.scopeList = t.scopes.values()
	}
	for _, name := range c.ClaimNames() {
		t.claims.add(name, change)
	}
	if c.TokenLifetime != 0 {
		t.lifetimes.add(c.TokenLifetime, change)
	}
	if c.HasPKI() && len(c.IssuedBy) == 0 {
		t.loose += change
	}
}

// highestRank returns the highest rank of a client, which is the smallest number.
func (t *totals) highestRank() int {
	highest, _ := t.ranks.Min()
	return highest.value
}

// Scopes returns all scopes that clients are registered for, sorted.
func (t *totals) Scopes() []string { return t.scopeList() }

// HasScope reports whether any client is registered for the scope.
func (t *totals) HasScope(scope string) bool { return t.scopes.has(scope) }

// HasClaim reports whether any client has the claim.
func (t *totals) HasClaim(name string) bool { return t.claims.has(name) }

// LongestLifetime returns the longest token_lifetime of all clients, zero if none has
// one.
func (t *totals) LongestLifetime() time.Duration {
	longest, _ := t.lifetimes.Max()
	return longest.value
}

// LooseClients returns how many clients with PKI credentials have no issued_by, so that
// every CA of the trust pool can issue their names.
func (t *totals) LooseClients() int { return t.loose }

// tally counts how often clients have each value. It is shared like the trees.
type tally[K cmp.Ordered] struct{ *btree.BTreeG[counted[K]] }

type counted[K cmp.Ordered] struct {
	value K
	count int
}

func newTally[K cmp.Ordered]() tally[K] {
	return tally[K]{btree.NewG(treeDegree, func(a, b counted[K]) bool { return a.value < b.value })}
}

func (t tally[K]) clone() tally[K] { return tally[K]{t.Clone()} }

func (t tally[K]) has(value K) bool { return t.Has(counted[K]{value: value}) }

// add adds to the count of a value, and reports whether the set of values has changed.
func (t tally[K]) add(value K, change int) bool {
	entry, known := t.Get(counted[K]{value: value})
	entry.value = value
	if entry.count += change; entry.count == 0 {
		t.Delete(entry)
		return true
	}
	t.ReplaceOrInsert(entry)
	return !known
}

// values returns a function that returns the values, sorted, and collects them once.
func (t tally[K]) values() func() []K {
	return sync.OnceValue(func() []K {
		list := make([]K, 0, t.Len())
		t.Ascend(func(entry counted[K]) bool {
			list = append(list, entry.value)
			return true
		})
		return list
	})
}
