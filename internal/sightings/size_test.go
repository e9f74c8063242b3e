package sightings

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestSizeOfSightings checks that a client that has been seen takes no more memory than
// maxClients says, whatever belongs to its certificate is forgotten.
func TestSizeOfSightings(t *testing.T) {
	const clients = 100_000
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before, table := heap(), NewTable()
	for i := range clients {
		record := strings.Repeat("x", 4096) + fmt.Sprintf("client-%07d CN=client %d,O=Partner", i, i) // what the texts are part of
		by := in(i % 90)
		by.Matched = record[4096+15:]
		table.Mark(record[4096:4096+14], by).See(noon.Unix())
	}
	each := (heap() - before) / clients
	if t.Logf("%d bytes each", each); each > 320 {
		t.Errorf("a client takes %d bytes", each)
	}
	runtime.KeepAlive(table)
}
