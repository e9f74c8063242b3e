package refusals

import (
	"fmt"
	"testing"
	"time"
)

// told are the lines that a test has seen.
type told struct {
	*clock
	fold           *Fold
	lines, refused int // how many lines, and how many refusals they stand for
}

func newTold() *told { return &told{clock: newClock(), fold: NewFold()} }

func (l *told) add(r Record) bool {
	r.At = l.now
	l.tell(l.fold.Due(l.now))
	own := l.fold.Add(&r)
	if own {
		l.lines++
		l.refused++
	}
	return own
}

func (l *told) tell(counts []Counted) []Counted {
	for _, counted := range counts {
		l.lines++
		l.refused += counted.Times
	}
	return counts
}

func (l *told) later(d time.Duration) []Counted {
	l.now = l.now.Add(d)
	return l.tell(l.fold.Due(l.now))
}

// TestFoldTellsTheFirstAndCountsTheRest checks that one caller has a line at once and then
// one a minute, for as long as it goes on.
func TestFoldTellsTheFirstAndCountsTheRest(t *testing.T) {
	l := newTold()
	if !l.add(l.client("1", "billing")) {
		t.Fatal("the first refusal has no line")
	}
	for i := range 3 {
		l.now = l.now.Add(10 * time.Second)
		if l.add(l.client(fmt.Sprint(i+2), "billing")) {
			t.Errorf("repetition %d has a line", i)
		}
	}
	if due := l.later(30*time.Second - time.Nanosecond); due != nil {
		t.Errorf("told early: %v", due)
	}
	due := l.later(time.Nanosecond)
	if len(due) != 1 || due[0].Times != 3 || due[0].Last.ErrorID != "4" || due[0].Last.ClientID != "billing" || due[0].Several {
		t.Fatalf("told: %+v", due)
	}
	want := Group{"default", "mtls_auth", "client refused", "client_not_allowed"}
	if due[0].Group != want {
		t.Errorf("told: %+v, want %+v", due[0].Group, want)
	}
	if l.add(l.client("5", "billing")) {
		t.Error("a caller who goes on has a line of its own")
	}
	if due = l.later(time.Minute); len(due) != 1 || due[0].Times != 1 {
		t.Errorf("told: %+v", due)
	}
	if due = l.later(time.Minute); due != nil || len(l.fold.groups) != 0 || l.fold.known != [Classes]int{} {
		t.Errorf("told after a minute of silence: %+v", due)
	}
	if !l.add(l.client("6", "billing")) {
		t.Error("the first refusal after a minute of silence has no line")
	}
}

// TestFoldTellsCallersApart checks that whatever differs makes a refusal a first one.
func TestFoldTellsCallersApart(t *testing.T) {
	l := newTold()
	base := l.client("1", "billing")
	different := []func(*Record){
		func(*Record) {},
		func(r *Record) { r.Realm = "other" },
		func(r *Record) { r.Directive = "mtls_issuer" },
		func(r *Record) { r.Message = "client would be refused" },
		func(r *Record) { r.Reason = "scope_missing" },
		func(r *Record) { r.ClientID = "other" },
		func(r *Record) { r.Claimed = true },
		func(r *Record) { r.ClientID = "" }, // by its certificate, as the one before
		func(r *Record) { r.ClientID, r.Certificate = "", &Certificate{Thumbprint: "billing"} },
		func(r *Record) { r.ClientID, r.Certificate, r.RemoteIP = "", nil, "billing" },
	}
	for i, differ := range different {
		r := base
		differ(&r)
		if own := l.add(r); own == (i == 7) {
			t.Errorf("refusal %d has a line: %v", i, own)
		}
		r.ErrorID, r.Detail, r.RemoteIP = "2", "other", "192.0.2.200"
		if r.Certificate != nil && l.add(r) {
			t.Errorf("refusal %d has a second line", i)
		}
	}
}

// TestFloodIsFolded_S3 checks that ten thousand strangers in a minute are at most 101
// lines, and that nothing is lost: the lines stand for all refusals.
func TestFloodIsFolded_S3(t *testing.T) {
	for name, test := range map[string]struct {
		record func(l *told, i int) Record
		times  int // that each comes
		lines  int
	}{
		"strangers":       {func(l *told, i int) Record { return l.stranger("x", fmt.Sprint("t", i)) }, 1, maxLines + 1},
		"strangers twice": {func(l *told, i int) Record { return l.stranger("x", fmt.Sprint("t", i)) }, 2, 2*maxLines + 1},
		"addresses":       {func(l *told, i int) Record { return l.nobody("x", fmt.Sprint("2001:db8::", i)) }, 1, maxLines + 1},
		"one stranger":    {func(l *told, i int) Record { return l.stranger("x", "t") }, 3, 2},
		"strangers, in two": {func(l *told, i int) Record {
			r := l.stranger("x", fmt.Sprint("t", i))
			r.Reason += fmt.Sprint(i % 2)
			return r
		}, 1, 2 * (maxLines + 1)},
	} {
		l := newTold()
		for range test.times {
			for i := range 10_000 {
				l.add(test.record(l, i))
			}
		}
		several := 0
		for _, counted := range l.later(time.Minute) {
			if counted.Several {
				several++
			}
		}
		if l.lines != test.lines || l.refused != 10_000*test.times || several > 2 {
			t.Errorf("%s: %d lines stand for %d refusals, want %d for %d", name, l.lines, l.refused, test.lines, 10_000*test.times)
		}
	}
}

// TestLongFloodIsBounded_S3 checks that a flood of callers who all come again and again
// has a bounded number of lines in each minute, takes bounded memory and loses no count.
func TestLongFloodIsBounded_S3(t *testing.T) {
	l := newTold()
	sent := 0
	for minute := range 60 {
		before := l.lines
		for range 2 {
			for i := range 100 * (minute + 1) { // 100 more each minute, and all before them
				l.add(l.stranger("x", fmt.Sprint("t", i)))
				sent++
			}
			l.later(30 * time.Second)
		}
		if lines := l.lines - before; lines > 2*maxLines+1 {
			t.Fatalf("%d lines in minute %d", lines, minute)
		}
		if known := len(l.fold.groups[Group{"default", "mtls_auth", "client refused", "certificate_unknown"}].callers); known > maxFolded || known != l.fold.known[WithCertificate] {
			t.Fatalf("%d callers are known, or %d", known, l.fold.known[WithCertificate])
		}
	}
	if known := l.fold.known[WithCertificate]; known != maxFolded {
		t.Errorf("%d callers are known, so the bound has not been tried", known)
	}
	l.tell(l.fold.Pending())
	if l.refused != sent {
		t.Errorf("the lines stand for %d refusals, want %d", l.refused, sent)
	}
}

// TestFloodTakesNoLinesFromClients_S3 checks that a known client has its lines during a flood
// of strangers who are refused for the same reason, and after strangers who all come again
// and again have filled the table.
func TestFloodTakesNoLinesFromClients_S3(t *testing.T) {
	l := newTold()
	for minute := range 45 {
		for half := range 2 {
			l.later(time.Duration(half) * 30 * time.Second)
			for i := range 100 * (minute + 1) {
				l.add(l.stranger("x", fmt.Sprint("t", i)))
			}
		}
		expired := l.stranger("y", "t")
		expired.ClientID = fmt.Sprint("client-", minute)
		if !l.add(expired) {
			t.Fatalf("a client has no line in minute %d", minute)
		}
		l.add(expired)
		told := false
		for _, counted := range l.later(30 * time.Second) {
			told = told || counted.Last.ClientID == expired.ClientID && counted.Times == 1 && !counted.Several
		}
		if !told {
			t.Fatalf("the repetition of a client has no line in minute %d", minute)
		}
	}
	if known := l.fold.known[WithCertificate]; known != maxFolded {
		t.Errorf("%d strangers are known, so the table was not full", known)
	}
}

// TestCountNamesNoClaimedClient checks that the count of a caller who names one client after
// the other is not said to be that of the last.
func TestCountNamesNoClaimedClient(t *testing.T) {
	l := newTold()
	for _, name := range []string{"a", "b"} {
		r := l.nobody("x", "192.0.2.1")
		r.ClientID, r.Claimed = name, true
		l.add(r)
	}
	told := l.fold.Pending()
	if len(told) != 1 || told[0].Times != 1 || told[0].Last.ClientID != "" || told[0].Last.RemoteIP != "192.0.2.1" {
		t.Errorf("told: %+v", told)
	}
}

// TestPendingTellsEverythingOnce checks that what has not been told at the end can be.
func TestPendingTellsEverythingOnce(t *testing.T) {
	l := newTold()
	for i := range 3 * maxLines {
		l.add(l.stranger("x", fmt.Sprint("t", i%(2*maxLines))))
	}
	l.tell(l.fold.Pending())
	if l.refused != 3*maxLines {
		t.Errorf("the lines stand for %d refusals, want %d", l.refused, 3*maxLines)
	}
	if again := l.fold.Pending(); again != nil {
		t.Errorf("told again: %v", again)
	}
}
