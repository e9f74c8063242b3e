package cache

import (
	"slices"
	"testing"
)

func TestTableSize(t *testing.T) {
	for size, want := range map[int]int{0: 4, 1: 4, 4: 4, 5: 8, 1000: 1024, 1024: 1024, 1025: 2048} {
		table := New[int](size)
		if table.Len() != want {
			t.Errorf("a table of %d has %d slots, want %d", size, table.Len(), want)
		}
	}
	// the slots that a hash chooses from are always there
	table := New[int](1024)
	for _, hash := range []uint64{0, 1, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		if got := len(table.set(hash)); got != Ways {
			t.Errorf("hash %x has %d slots", hash, got)
		}
	}
}

// TestTableReplaces checks that an entry takes the slot of the same one, else an empty
// slot or that of an entry that may go, and only then that of another entry.
func TestTableReplaces(t *testing.T) {
	table := New[int](Ways)
	never := func(*int) bool { return false }
	put := func(n int, mayGo func(*int) bool) { table.Replace(uint64(n)<<60, &n, never, mayGo) }
	for n := range Ways {
		put(n, never)
	}
	if got := slices.Collect(values(&table)); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Fatalf("a table with room holds %v", got)
	}
	put(5, func(old *int) bool { return *old == 2 })
	if got := slices.Collect(values(&table)); !slices.Equal(got, []int{0, 1, 5, 3}) {
		t.Errorf("after an entry that may go, the table holds %v", got)
	}
	put(7, never)
	if got := slices.Collect(values(&table)); !slices.Equal(got, []int{0, 1, 5, 7}) {
		t.Errorf("a full table holds %v", got)
	}
	eight := 8
	table.Replace(0, &eight, func(old *int) bool { return *old == 7 }, func(old *int) bool { return *old == 0 })
	if got := slices.Collect(values(&table)); !slices.Equal(got, []int{0, 1, 5, 8}) {
		t.Errorf("after the same entry, the table holds %v", got)
	}
	if found := table.Find(0, func(n *int) bool { return *n == 5 }); found == nil || *found != 5 {
		t.Errorf("found %v", found)
	}
	if found := table.Find(0, func(n *int) bool { return *n == 2 }); found != nil {
		t.Errorf("the replaced entry is found: %v", *found)
	}
}

// TestTableCountsEntries checks that an entry that takes the slot of another is not
// counted, and that a grown table counts those that it took over.
func TestTableCountsEntries(t *testing.T) {
	var growing Growing[int]
	if got := growing.Entries(); got != 0 {
		t.Errorf("without a table: %d entries", got)
	}
	hash, never := func(n *int) uint64 { return uint64(*n) }, func(*int) bool { return false }
	table := growing.For(Ways, hash)
	for n := range 2 * Ways {
		table.Replace(uint64(n), &n, never, never)
	}
	if got := growing.Entries(); got != Ways {
		t.Errorf("a full table has %d entries", got)
	}
	table = growing.For(8*Ways, hash)
	if got, found := growing.Entries(), len(slices.Collect(values(table))); got != Ways || found != got {
		t.Errorf("the grown table has %d entries, of which %d are found", got, found)
	}
}

func values(t *Table[int]) func(func(int) bool) {
	return func(yield func(int) bool) {
		for n := range t.All() {
			if !yield(*n) {
				return
			}
		}
	}
}
