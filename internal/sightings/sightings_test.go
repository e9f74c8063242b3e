package sightings

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 30, 0, time.UTC)

// in returns a credential whose certificate expires that many days after noon.
func in(days int) Credential {
	return Credential{Kind: "subject", Matched: "CN=a", Thumbprint: [32]byte{byte(days)}, NotAfter: noon.AddDate(0, 0, days)}
}

func see(t *Table, id string, by Credential, at time.Time) *Mark {
	m := t.Mark(id, by)
	m.See(at.Unix())
	return m
}

func ids(list []Presented) (ids []string) {
	for _, s := range list {
		ids = append(ids, s.ClientID)
	}
	return ids
}

func TestSightings(t *testing.T) {
	table := NewTable()
	if _, known := table.Of("a"); known || table.Len() != 0 {
		t.Error("somebody was seen before anybody was")
	}
	old := see(table, "a", in(10), noon)
	got, known := table.Of("a")
	if want := (Sighting{"a", noon.Truncate(time.Minute), in(10)}); !known || got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	old.See(noon.Add(time.Hour).Unix())
	if got, _ := table.Of("a"); !got.At.Equal(noon.Add(time.Hour).Truncate(time.Minute)) {
		t.Errorf("seen at %v", got.At)
	}
	// another certificate of the same client, and then the first one again
	see(table, "a", in(20), noon.Add(2*time.Hour))
	if got, _ := table.Of("a"); got.Credential != in(20) || table.Len() != 1 {
		t.Errorf("got %v of %d clients", got, table.Len())
	}
	old.See(noon.Add(3 * time.Hour).Unix())
	if got, _ := table.Of("a"); got.Credential != in(10) {
		t.Errorf("got %v", got)
	}
	if list, _ := table.Expiring(noon, noon.AddDate(0, 0, 90), 10); len(list) != 1 || list[0].Credential != in(10) {
		t.Errorf("expiring: %v", list)
	}
	// a client that is recognized but not admitted has not been seen
	m := table.Mark("b", in(5))
	m.Present(noon.Unix())
	if _, known := table.Of("b"); known || table.Len() != 1 {
		t.Error("a client was seen that was not admitted")
	}
	if list, _ := table.Expiring(noon, noon.AddDate(0, 0, 90), 10); len(list) != 2 || list[0] != (Presented{"b", in(5)}) {
		t.Errorf("expiring: %v", list)
	}
	// nor does a certificate with which a client was not admitted change with which it was
	table.Mark("a", in(1)).Present(noon.Unix())
	if got, _ := table.Of("a"); got.Credential != in(10) {
		t.Errorf("got %v", got)
	}
	table.Forget("b")
	if m.See(noon.Unix()); table.Len() != 2 {
		t.Errorf("%d clients", table.Len())
	}
	table.Forget("b")
	table.Forget("b")
	if table.Len() != 1 {
		t.Errorf("%d clients", table.Len())
	}
	var none *Table
	none.Mark("a", in(1)).See(noon.Unix())
	none.Mark("a", in(1)).Present(noon.Unix())
	if _, known := none.Of("a"); known || none.Len() != 0 || none.Unnoted() != 0 {
		t.Error("a nil table knows somebody")
	}
}

// TestExpiringAreTheFirst checks the order and the bounds of certificates that expire.
func TestExpiringAreTheFirst(t *testing.T) {
	table := NewTable()
	table.maxExpiring = 5
	for _, days := range []int{91, 30, -1, 2, 60, 45, 3, -30} {
		see(table, fmt.Sprint("in", days), in(days), noon)
	}
	see(table, "none", Credential{Kind: "token"}, noon)
	list, more := table.Expiring(noon, noon.AddDate(0, 0, 90), 2)
	if got := ids(list); !slices.Equal(got, []string{"in2", "in3"}) || more != 2 {
		t.Errorf("got %v and %d more", got, more) // of -1, 2, 3, 30 and 45
	}
	// what has expired long ago makes room
	see(table, "in60", in(60), noon.AddDate(0, 0, 7))
	list, more = table.Expiring(noon, noon.AddDate(0, 0, 90), 9)
	if got := ids(list); !slices.Equal(got, []string{"in2", "in3", "in30", "in45", "in60"}) || more != 0 {
		t.Errorf("got %v and %d more", got, more)
	}
	if table.expiring.Len() != 5 {
		t.Errorf("%d are kept", table.expiring.Len())
	}
	// a renewed certificate takes the place of the one before
	see(table, "in2", in(80), noon.Add(time.Minute))
	if list, _ = table.Expiring(noon, noon.AddDate(0, 0, 90), 9); !slices.Equal(ids(list), []string{"in3", "in30", "in45", "in60", "in2"}) {
		t.Errorf("got %v", ids(list))
	}
}

// TestFullTable checks that no more clients are noted than there is room for, and that the
// others are counted, once for each mark.
func TestFullTable(t *testing.T) {
	table := NewTable()
	table.max = 3
	var marks []*Mark
	for i := range 5 {
		marks = append(marks, see(table, fmt.Sprint(i), in(i+1), noon))
	}
	for minute := range 3 {
		for _, m := range marks {
			m.See(noon.Add(time.Duration(minute) * time.Minute).Unix())
		}
	}
	if table.Len() != 3 || table.Unnoted() != 2 || table.expiring.Len() != 3 {
		t.Errorf("%d clients, %d not noted, %d expire", table.Len(), table.Unnoted(), table.expiring.Len())
	}
	if _, known := table.Of("4"); known {
		t.Error("a client was noted beyond the bound")
	}
	table.Forget("0")
	see(table, "5", in(9), noon)
	if _, known := table.Of("5"); !known {
		t.Error("a client is not noted although there is room again")
	}
}

// TestPrune checks that clients that are gone are forgotten step by step, and that one that
// comes back is noted again by the mark that it has.
func TestPrune(t *testing.T) {
	table := NewTable()
	gone := see(table, "0007", in(7), noon)
	for i := range 5000 {
		see(table, fmt.Sprintf("%04d", i), in(i), noon)
	}
	asked := 0
	registered := func(id string) bool { asked++; return id >= "2500" }
	if table.prune(registered, 2000) || asked != 2000 || table.Len() != 3000 {
		t.Errorf("%d asked, %d left", asked, table.Len())
	}
	for range 2 {
		table.prune(registered, 2000)
	}
	if asked != 5000 || table.Len() != 2500 || table.expiring.Len() != 2500 {
		t.Errorf("%d asked, %d left, %d expire", asked, table.Len(), table.expiring.Len())
	}
	if _, known := table.Of("0007"); known {
		t.Error("a client that is gone is remembered")
	}
	gone.See(noon.Unix())
	if _, known := table.Of("0007"); known {
		t.Error("within the minute, it should cost nothing to see again whom the table has forgotten")
	}
	gone.See(noon.Add(time.Minute).Unix())
	if got, known := table.Of("0007"); !known || got.Credential != in(7) {
		t.Errorf("after the client came back: %v", got)
	}
	if list, _ := table.Expiring(noon, noon.AddDate(0, 0, 90), 1); len(list) != 1 || list[0].ClientID != "0007" {
		t.Errorf("expiring: %v", list)
	}
}

// TestSeeDoesNotAllocate checks what a request costs, in the same minute and in the next.
func TestSeeDoesNotAllocate(t *testing.T) {
	table := NewTable()
	m, other := see(table, "a", in(1), noon), see(table, "a", in(2), noon)
	at := noon.Unix()
	if n := testing.AllocsPerRun(1000, func() { m.See(at); at += 60 }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	at = noon.Unix()
	if n := testing.AllocsPerRun(1000, func() { other.See(at) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestSightingsConcurrently is for the race detector.
func TestSightingsConcurrently(t *testing.T) {
	table := NewTable()
	table.maxExpiring = 10
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 500 {
				m := table.Mark(fmt.Sprint(i%50), in(worker*100+i%90))
				m.Present(noon.Unix())
				m.See(noon.Add(time.Duration(i) * time.Minute).Unix())
				m.See(noon.Add(time.Duration(i+1) * time.Minute).Unix())
				switch worker {
				case 1:
					table.Of("7")
					table.Expiring(noon, noon.AddDate(1, 0, 0), 5)
				case 2:
					table.prune(func(id string) bool { return id != "7" }, 100)
				case 3:
					table.Forget(fmt.Sprint(i % 3))
				}
			}
		})
	}
	all.Wait()
	seen := 0
	for i := range 50 {
		if _, known := table.Of(fmt.Sprint(i)); known {
			seen++
		}
	}
	if table.expiring.Len() > 10 || table.Len() != seen {
		t.Errorf("%d clients, %d expire", table.Len(), table.expiring.Len())
	}
}

func BenchmarkSee(b *testing.B) {
	m := see(NewTable(), "a", in(1), noon)
	at := noon.Unix()
	for b.Loop() {
		m.See(at)
	}
}
