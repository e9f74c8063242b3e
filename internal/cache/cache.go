// Package cache provides a bounded, lock-free cache.
package cache

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"sync/atomic"
)

// Ways is how many slots one hash may choose from.
const Ways = 4

// Seed is random for every process, so that nobody can choose keys that crowd
// one slot.
var Seed = maphash.MakeSeed()

// Table is a bounded, lock-free cache. Slots are read and replaced atomically. A
// lost race costs no more than making an entry again.
type Table[E any] struct {
	slots   []atomic.Pointer[E]
	entries *atomic.Int64
}

// New returns a table of at least size slots.
func New[E any](size int) Table[E] {
	return Table[E]{slots: make([]atomic.Pointer[E], 1<<bits.Len(uint(max(size, Ways)-1))), entries: new(atomic.Int64)}
}

// Grown returns a table of at least size slots with the same entries. hash returns what
// an entry is kept under.
func (t *Table[E]) Grown(size int, hash func(*E) uint64) Table[E] {
	next, no := New[E](size), func(*E) bool { return false }
	for entry := range t.All() {
		next.Replace(hash(entry), entry, no, no)
	}
	return next
}

// Growing is a table that grows. The zero value is an empty one.
type Growing[E any] struct{ table atomic.Pointer[Table[E]] }

// For returns the table, which has at least size slots from now on. hash returns what an
// entry is kept under. An entry that is added to the table before while it grows may be
// lost.
func (g *Growing[E]) For(size int, hash func(*E) uint64) *Table[E] {
	for {
		table := g.table.Load()
		if table != nil && table.Len() >= size {
			return table
		}
		var next Table[E]
		if table == nil {
			next = New[E](size)
		} else {
			next = table.Grown(size, hash)
		}
		g.table.CompareAndSwap(table, &next)
	}
}

// Entries returns the number of entries.
func (g *Growing[E]) Entries() int {
	if table := g.table.Load(); table != nil {
		return table.Entries()
	}
	return 0
}

// Len returns the number of slots.
func (t *Table[E]) Len() int { return len(t.slots) }

// Entries returns the number of entries, those that have expired included.
func (t *Table[E]) Entries() int { return int(t.entries.Load()) }

// All yields the entries.
func (t *Table[E]) All() iter.Seq[*E] {
	return func(yield func(*E) bool) {
		for i := range t.slots {
			if entry := t.slots[i].Load(); entry != nil && !yield(entry) {
				return
			}
		}
	}
}

// set returns the slots that a hash may choose from.
func (t *Table[E]) set(hash uint64) []atomic.Pointer[E] {
	first := int(hash) & (len(t.slots) - 1) &^ (Ways - 1)
	return t.slots[first : first+Ways]
}

// Find returns the entry under the hash that fits, or nil. Entries of other keys may
// have the same hash, so fits compares the whole key.
func (t *Table[E]) Find(hash uint64, fits func(*E) bool) *E {
	set := t.set(hash)
	for i := range set {
		if entry := set[i].Load(); entry != nil && fits(entry) {
			return entry
		}
	}
	return nil
}

// Replace keeps an entry under a hash. It takes the slot of an entry for which same
// is true, if there is one, else an empty slot or that of an entry for which mayGo is
// true, and else that of any other entry.
func (t *Table[E]) Replace(hash uint64, entry *E, same, mayGo func(*E) bool) {
	set := t.set(hash)
	victim, free := &set[hash>>60&(Ways-1)], false
	for i := range set {
		old := set[i].Load()
		if old != nil && same(old) {
			victim = &set[i]
			break
		}
		if !free && (old == nil || mayGo(old)) {
			victim, free = &set[i], true
		}
	}
	if victim.Swap(entry) == nil {
		t.entries.Add(1)
	}
}
