package mtlsauth

import (
	"math/bits"
	"sync/atomic"
)

// memoryWays is how many slots one hash may choose from.
const memoryWays = 4

// slotTable is a bounded, lock-free store. A slot is read and replaced
// atomically; a lost race costs the work to make an entry again and nothing
// else.
type slotTable[E any] struct {
	slots []atomic.Pointer[E]
}

// newSlotTable makes a table of at least size slots.
func newSlotTable[E any](size int) slotTable[E] {
	return slotTable[E]{slots: make([]atomic.Pointer[E], 1<<bits.Len(uint(max(size, memoryWays)-1)))}
}

func (t *slotTable[E]) set(hash uint64) []atomic.Pointer[E] {
	first := int(hash) & (len(t.slots) - 1) &^ (memoryWays - 1)
	return t.slots[first : first+memoryWays]
}

// find returns the entry that fits, or nil. The hash only finds the place.
func (t *slotTable[E]) find(hash uint64, fits func(*E) bool) *E {
	set := t.set(hash)
	for i := range set {
		if entry := set[i].Load(); entry != nil && fits(entry) {
			return entry
		}
	}
	return nil
}

// replace keeps an entry: in an empty slot or that of an entry which may go if
// there is one, else in the place of another.
func (t *slotTable[E]) replace(hash uint64, entry *E, mayGo func(*E) bool) {
	set := t.set(hash)
	victim := &set[hash>>60&(memoryWays-1)]
	for i := range set {
		if old := set[i].Load(); old == nil || mayGo(old) {
			victim = &set[i]
			break
		}
	}
	victim.Store(entry)
}
