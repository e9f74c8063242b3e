package refusals

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a clock that a test sets.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) limits(keep int) Limits {
	return Limits{Keep: keep, Now: func() time.Time { return c.now }}
}

// stranger returns a refusal of an unknown certificate.
func (c *clock) stranger(id, thumbprint string) Record {
	return Record{
		ErrorID: id, At: c.now, Realm: "default", Directive: "mtls_auth", Message: "client refused", Reason: "certificate_unknown",
		RemoteIP: "192.0.2.1", Certificate: &Certificate{Thumbprint: thumbprint},
	}
}

// client returns a refusal of a known client.
func (c *clock) client(id, clientID string) Record {
	r := c.stranger(id, "t")
	r.Reason, r.ClientID = "client_not_allowed", clientID
	return r
}

// nobody returns a refusal of a caller without a certificate.
func (c *clock) nobody(id, ip string) Record {
	r := c.stranger(id, "")
	r.Reason, r.Certificate, r.RemoteIP = "certificate_missing", nil, ip
	return r
}

func ids(records []Record) string {
	var list []string
	for _, r := range records {
		list = append(list, r.ErrorID)
	}
	return strings.Join(list, " ")
}

// TestMemoryFindsAndLists checks that refusals of all classes are found by their error id,
// and listed by their client, reason and age, the newest first.
func TestMemoryFindsAndLists(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(0))
	start := c.now
	for i, add := range []func() Record{
		func() Record { return c.stranger("s1", "a") },
		func() Record { return c.client("c1", "billing") },
		func() Record { return c.nobody("n1", "192.0.2.1") },
		func() Record { return c.client("c2", "other") },
		func() Record { return c.stranger("s2", "b") },
		func() Record { return c.client("c3", "billing") },
	} {
		c.now = start.Add(time.Duration(i) * time.Minute)
		m.Add(add())
	}
	for _, test := range []struct {
		q    Query
		want string
	}{
		{Query{}, "c3 s2 c2 n1 c1 s1"},
		{Query{Limit: 2}, "c3 s2"},
		{Query{Limit: 100}, "c3 s2 c2 n1 c1 s1"},
		{Query{ClientID: "billing"}, "c3 c1"},
		{Query{ClientID: "billing", Limit: 1}, "c3"},
		{Query{Reason: "certificate_unknown"}, "s2 s1"},
		{Query{Reason: "certificate_unknown", ClientID: "billing"}, ""},
		{Query{Since: start.Add(3 * time.Minute)}, "c3 s2 c2"},
		{Query{Since: start.Add(time.Hour)}, ""},
	} {
		if got := ids(m.List(test.q)); got != test.want {
			t.Errorf("%+v: %q, want %q", test.q, got, test.want)
		}
	}
	for id := range strings.FieldsSeq("s1 c1 n1 c2 s2 c3") {
		if r, ok := m.Find(id); !ok || r.ErrorID != id {
			t.Errorf("%s: %v, %v", id, r, ok)
		}
	}
	for _, id := range []string{"", "x", "c1 ", strings.Repeat("c1", 1<<20), "\x00", "C1"} {
		if _, ok := m.Find(id); ok {
			t.Errorf("%.20q is found, but it never was", id)
		}
	}
	if m.Len() != 6 {
		t.Errorf("%d refusals are remembered", m.Len())
	}
}

// TestMemoryCountsRepetitions checks that a refusal says how often the same happened and
// since when, and that only refusals with the same key are the same.
func TestMemoryCountsRepetitions(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(0))
	first := c.now
	m.Add(c.client("1", "a"))
	c.now = c.now.Add(time.Hour)
	m.Add(c.client("2", "a"))
	m.Add(c.client("3", "b"))
	elsewhere := c.client("4", "a")
	elsewhere.Directive = "mtls_issuer"
	m.Add(elsewhere)
	claimed := c.client("5", "a")
	claimed.Claimed = true // anybody may have named the client
	m.Add(claimed)
	for id, want := range map[string]int{"1": 1, "2": 2, "3": 1, "4": 1, "5": 1} {
		since := c.now
		if id == "1" || id == "2" {
			since = first
		}
		if r, _ := m.Find(id); r.Times != want || !r.First.Equal(since) {
			t.Errorf("%s: %d times since %s, want %d since %s", id, r.Times, r.First, want, since)
		}
	}
}

// TestFloodLeavesOthersAlone_S3 checks that a flood of one class of callers pushes out
// neither the refusals of another class nor, if it comes from one caller, those of its own.
func TestFloodLeavesOthersAlone_S3(t *testing.T) {
	c := newClock()
	floods := map[string]func(i int) Record{
		"distinct strangers": func(i int) Record { return c.stranger(fmt.Sprint(i), fmt.Sprint("t", i)) },
		"distinct addresses": func(i int) Record { return c.nobody(fmt.Sprint(i), fmt.Sprint("2001:db8::", i)) },
		"distinct clients":   func(i int) Record { return c.client(fmt.Sprint(i), fmt.Sprint("client-", i)) },
		"one stranger":       func(i int) Record { return c.stranger(fmt.Sprint(i), "t") },
		"one address":        func(i int) Record { return c.nobody(fmt.Sprint(i), "192.0.2.9") },
		"one client":         func(i int) Record { return c.client(fmt.Sprint(i), "flood") },
		"a claimed client": func(i int) Record {
			r := c.nobody(fmt.Sprint(i), "192.0.2.9")
			r.ClientID, r.Claimed = "billing", true
			return r
		},
	}
	loses := map[string]string{"distinct strangers": "stranger", "distinct addresses": "nobody", "distinct clients": "client"}
	for name, flood := range floods {
		m := NewMemory(c.limits(0))
		m.Add(c.client("client", "billing"))
		m.Add(c.stranger("stranger", "partner"))
		m.Add(c.nobody("nobody", "192.0.2.1"))
		for i := range 3 * DefaultKeep {
			m.Add(flood(i))
		}
		for _, id := range []string{"client", "stranger", "nobody"} {
			if _, found := m.Find(id); found == (loses[name] == id) {
				t.Errorf("%s: the %s is found: %v", name, id, found)
			}
		}
		want := DefaultKeep
		if loses[name] == "" {
			want = maxRepeated + 3
		}
		if m.Len() != want || len(m.byID) != want || len(m.keys) > want {
			t.Errorf("%s: %d refusals, %d error ids and %d keys are kept, want %d", name, m.Len(), len(m.byID), len(m.keys), want)
		}
	}
}

// TestSmallMemoryKeepsClients checks that strangers push a client out of no memory, however
// little is kept.
func TestSmallMemoryKeepsClients(t *testing.T) {
	c := newClock()
	for keep := 1; keep < 8; keep++ {
		m := NewMemory(c.limits(keep))
		m.Add(c.client("client", "billing"))
		for i := range 20 {
			m.Add(c.stranger(fmt.Sprint("s", i), fmt.Sprint("t", i)))
			m.Add(c.nobody(fmt.Sprint("n", i), fmt.Sprint("2001:db8::", i)))
		}
		if _, found := m.Find("client"); !found || m.Len() != keep {
			t.Errorf("keep %d: %d are kept, the client is found: %v", keep, m.Len(), found)
		}
	}
}

// TestMemoryIsBoundedInOctets_S3 checks that large records make room in their own class.
func TestMemoryIsBoundedInOctets_S3(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(0))
	m.Add(c.client("client", "billing"))
	for i := range DefaultKeep {
		r := c.stranger(fmt.Sprint(i), fmt.Sprint("t", i))
		r.Detail = strings.Repeat("x", 16<<10)
		r.Certificate.Names = []string{strings.Repeat("n", 1000)}
		m.Add(r)
	}
	octets := 0
	for _, r := range m.List(Query{}) {
		octets += r.octets()
	}
	if octets > maxOctets || octets < maxOctets-32<<10 {
		t.Errorf("%d octets are kept, want at most %d", octets, maxOctets)
	}
	if _, found := m.Find("client"); !found {
		t.Error("the client is forgotten")
	}
}

// TestMemoryTakesWhatItSays_S3 checks that a memory that keeps as many refusals as it can takes
// little more than 32 MiB, whatever they are made of.
func TestMemoryTakesWhatItSays_S3(t *testing.T) {
	c := newClock()
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	for name, record := range map[string]func(i int) Record{
		"addresses": func(i int) Record { return c.nobody(fmt.Sprint("x", i), fmt.Sprint("2001:db8::", i)) },
		"short names": func(i int) Record {
			r := c.stranger(fmt.Sprint(i), fmt.Sprint("t", i))
			for j := range 9 {
				r.Certificate.Names = append(r.Certificate.Names, fmt.Sprint(j))
			}
			return r
		},
		"long texts": func(i int) Record {
			r := c.stranger(fmt.Sprint(i), fmt.Sprint("t", i))
			r.Certificate.Subject, r.Hint, r.Detail = fmt.Sprintf("%384d", i), fmt.Sprintf("%1024d", i), fmt.Sprintf("%768d", i)
			return r
		},
	} {
		before, m := heap(), NewMemory(c.limits(100_000))
		for i := range 60_000 {
			m.Add(record(i))
		}
		if took := int64(heap()) - int64(before); took > maxOctets+maxOctets/4 {
			t.Errorf("%s: %d refusals take %d MiB", name, m.Len(), took>>20)
		}
		runtime.KeepAlive(m)
	}
}

// TestMemoryForgetsOldRefusals checks that everything is forgotten in time, and counted
// anew after that.
func TestMemoryForgetsOldRefusals(t *testing.T) {
	c := newClock()
	limits := c.limits(0)
	limits.KeepFor = time.Hour
	m := NewMemory(limits)
	m.Add(c.client("old", "a"))
	m.Add(c.stranger("oldstranger", "s"))
	c.now = c.now.Add(30 * time.Minute)
	m.Add(c.nobody("new", "192.0.2.1"))
	c.now = c.now.Add(30*time.Minute + time.Nanosecond)
	if _, found := m.Find("old"); found {
		t.Error("an old refusal is found")
	}
	if got := ids(m.List(Query{})); got != "new" {
		t.Errorf("listed: %q", got)
	}
	if m.Len() != 1 || m.CountStrangers() != 0 {
		t.Errorf("%d refusals and %d strangers are kept", m.Len(), m.CountStrangers())
	}
	m.Add(c.client("again", "a"))
	if r, _ := m.Find("again"); r.Times != 1 || !r.First.Equal(c.now) {
		t.Errorf("%d times since %s", r.Times, r.First)
	}
}

// TestSetLimitsForgetsWhatDoesNotFit checks that smaller limits count at once, and that
// larger ones lose nothing.
func TestSetLimitsForgetsWhatDoesNotFit(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(10))
	for i := range 10 {
		m.Add(c.client(fmt.Sprint(i), fmt.Sprint("client-", i)))
	}
	m.SetLimits(c.limits(20))
	if m.Len() != 10 {
		t.Errorf("%d refusals are left", m.Len())
	}
	m.SetLimits(c.limits(3))
	if got := ids(m.List(Query{})); got != "9 8 7" {
		t.Errorf("left: %s", got)
	}
	limits := c.limits(3)
	limits.KeepFor = time.Minute
	c.now = c.now.Add(2 * time.Minute)
	m.SetLimits(limits)
	if m.Len() != 0 || len(m.keys) != 0 || len(m.byID) != 0 {
		t.Errorf("%d refusals are left", m.Len())
	}
}

// TestSameErrorIDTwice checks that of two refusals with the same error id, the newer one is
// found, and that forgetting the older one changes nothing about that.
func TestSameErrorIDTwice(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(2))
	m.Add(c.client("same", "older"))
	m.Add(c.client("same", "newer"))
	m.Add(c.client("other", "other"))
	if r, found := m.Find("same"); !found || r.ClientID != "newer" {
		t.Errorf("found %v, %v", r, found)
	}
}

// TestMemoryIsSafeForConcurrentUse is for the race detector.
func TestMemoryIsSafeForConcurrentUse(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(50))
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := range 200 {
				thumbprint := fmt.Sprint("t", i%20)
				m.Add(c.stranger(fmt.Sprint(w, "-", i), thumbprint))
				m.Find(fmt.Sprint(w, "-", i))
				m.List(Query{Limit: 5})
				m.Strangers(5)
				m.CountStrangers()
				m.Forget(thumbprint)
				m.SetLimits(c.limits(50 + i%2))
			}
		})
	}
	workers.Wait()
	if n := m.Len(); n < 50 || n > 51 {
		t.Errorf("%d refusals are kept", m.Len())
	}
}
