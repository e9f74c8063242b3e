package refusals

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func thumbprints(list []Stranger) string {
	var names []string
	for _, s := range list {
		names = append(names, s.Thumbprint)
	}
	return strings.Join(names, " ")
}

// TestStrangersAreThoseNobodyKnows checks which refusals are about strangers.
func TestStrangersAreThoseNobodyKnows(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(0))
	untrusted, expired, claimed := c.stranger("2", "untrusted"), c.stranger("3", "expired"), c.stranger("4", "claimed")
	untrusted.Reason, expired.Reason = "certificate_untrusted", "certificate_expired"
	claimed.ClientID, claimed.Claimed = "billing", true
	known := c.stranger("5", "known")
	known.ClientID = "billing"
	for _, r := range []Record{c.stranger("1", "unknown"), untrusted, expired, claimed, known, c.nobody("6", "192.0.2.1"), c.client("7", "billing")} {
		c.now = c.now.Add(time.Second)
		r.At = c.now
		m.Add(r)
	}
	list, more := m.Strangers(0)
	if got := thumbprints(list); got != "claimed untrusted unknown" || more != 0 {
		t.Errorf("strangers: %s, %d more", got, more)
	}
}

// TestStrangerIsDescribed checks what is known about a stranger after two refusals, and
// that the last refused is listed first.
func TestStrangerIsDescribed(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(0))
	first := c.now
	m.Add(c.stranger("1", "a"))
	c.now = c.now.Add(time.Minute)
	m.Add(c.stranger("2", "b"))
	m.Add(c.stranger("3", "c"))
	c.now = c.now.Add(time.Minute)
	again := c.stranger("4", "a")
	again.Reason, again.Detail, again.RemoteIP, again.Hint, again.Register = "certificate_untrusted", "why", "192.0.2.2", "near", "client"
	m.Add(again)
	list, more := m.Strangers(2)
	if got := thumbprints(list); got != "a c" || more != 1 {
		t.Fatalf("strangers: %s, %d more", got, more)
	}
	want := Stranger{
		Certificate: Certificate{Thumbprint: "a"}, Reason: "certificate_untrusted", Detail: "why", RemoteIP: "192.0.2.2", ErrorID: "4",
		Hint: "near", Register: "client", Times: 2, First: first, Last: c.now,
	}
	if got := list[0]; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestStrangersWhoComeOnceHideNobody_S3 checks that strangers are bounded, and that any
// number of those who come once takes no room of those who came twice.
func TestStrangersWhoComeOnceHideNobody_S3(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(0))
	m.Add(c.stranger("p1", "partner"))
	m.Add(c.stranger("p2", "partner"))
	for i := range 20_000 {
		m.Add(c.stranger(fmt.Sprint(i), fmt.Sprint("t", i)))
	}
	list, _ := m.Strangers(0)
	if len(list) != maxStrangers || m.CountStrangers() != maxStrangers || len(m.strangers.byThumbprint) != maxStrangers {
		t.Errorf("%d strangers, want %d", len(list), maxStrangers)
	}
	if !strings.Contains(thumbprints(list), "partner") {
		t.Error("the partner is hidden")
	}
	// those who come twice leave room for new ones
	for i := range 2000 {
		m.Add(c.stranger(fmt.Sprint("r", i), fmt.Sprint("r", i)))
		m.Add(c.stranger(fmt.Sprint("R", i), fmt.Sprint("r", i)))
	}
	for i := range maxStrangers {
		m.Add(c.stranger(fmt.Sprint("o", i), fmt.Sprint("o", i)))
	}
	list, _ = m.Strangers(0)
	regulars := 0
	for _, s := range list {
		if s.Times > 1 {
			regulars++
		}
	}
	if len(list) != maxStrangers || regulars != maxRegulars {
		t.Errorf("%d strangers, %d of them regulars, want %d and %d", len(list), regulars, maxStrangers, maxRegulars)
	}
}

// TestFloodDoesNotHideWhoBeginsInIt_S3 checks that one who calls for the first time during a
// flood of ten thousand strangers a second, and then each minute, is among the strangers from
// the second time on, although there has been no room in between, and that few others are
// taken for one who has come before.
func TestFloodDoesNotHideWhoBeginsInIt_S3(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(100))
	s, next := &m.strangers, 0
	template := c.stranger("x", "")
	flood := func(strangers int) (again int) {
		for range strangers {
			next++
			template.Certificate = &Certificate{Thumbprint: fmt.Sprint("t", next)}
			s.add(&template, time.Time{})
			if s.byThumbprint[template.Certificate.Thumbprint].Value.(*Record).Times > 1 {
				again++
			}
		}
		return again
	}
	flood(10_000)
	for minute, strangers := range []int{600_000, 50_000, 50_000} {
		partner := c.stranger(fmt.Sprint("call-", minute), "partner")
		m.Add(partner)
		if again := flood(strangers); again > strangers/500 {
			t.Errorf("minute %d: %d of %d are taken for somebody who has come before", minute, again, strangers)
		}
		if found := s.byThumbprint["partner"] != nil; found != (minute > 0) {
			t.Errorf("minute %d: the partner is among the strangers: %v", minute, found)
		}
		c.now = c.now.Add(time.Minute)
	}
	if s.once.Len()+s.regulars.Len() > maxStrangers || s.regulars.Len() > maxRegulars {
		t.Errorf("%d and %d are remembered", s.once.Len(), s.regulars.Len())
	}
}

// TestLastRefusalOfAStrangerIsFound_S3 checks that the error id that a stranger got last leads
// to the refusal although a flood has pushed it out of the memory, until it is too old.
func TestLastRefusalOfAStrangerIsFound_S3(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(100))
	first := c.now
	for _, id := range []string{"one", "two"} {
		r := c.stranger(id, "partner")
		r.Host, r.URI = "api.example.com", "/orders"
		m.Add(r)
		c.now = c.now.Add(time.Minute)
	}
	for i := range 3 * maxStrangers {
		m.Add(c.stranger(fmt.Sprint("flood-", i), fmt.Sprint("t", i)))
	}
	found, ok := m.Find("two")
	if !ok || found.Certificate.Thumbprint != "partner" || found.URI != "/orders" || found.Times != 2 || !found.First.Equal(first) {
		t.Errorf("found %+v, %v", found, ok)
	}
	if _, ok := m.Find("one"); ok {
		t.Error("the flood has pushed nothing out")
	}
	if m.Forget("partner"); m.CountStrangers() == 0 {
		t.Error("the others are forgotten")
	}
	if _, ok := m.Find("two"); ok {
		t.Error("it is found although the stranger has been admitted")
	}
	c.now = c.now.Add(DefaultKeepFor + time.Second)
	if _, ok := m.Find(fmt.Sprint("flood-", 3*maxStrangers-1)); ok {
		t.Error("it is found although it is too old")
	}
}

// TestForgetStranger checks that an admitted certificate is no stranger any more.
func TestForgetStranger(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(0))
	m.Forget("a")
	m.Add(c.stranger("1", "a"))
	m.Add(c.stranger("2", "a"))
	m.Add(c.stranger("3", "b"))
	m.Forget("a")
	m.Forget("never")
	list, more := m.Strangers(10)
	if got := thumbprints(list); got != "b" || more != 0 || m.CountStrangers() != 1 {
		t.Errorf("strangers: %s, %d more, %d in all", got, more, m.CountStrangers())
	}
	if _, found := m.Find("2"); !found {
		t.Error("the refusal is forgotten, too")
	}
	m.Add(c.stranger("4", "a"))
	if list, _ := m.Strangers(1); list[0].Times != 1 {
		t.Errorf("%d times, want 1", list[0].Times)
	}
}

// TestStrangersAreForgottenInTime checks that keep_for counts for strangers, too.
func TestStrangersAreForgottenInTime(t *testing.T) {
	c := newClock()
	m := NewMemory(c.limits(0))
	m.Add(c.stranger("1", "regular"))
	m.Add(c.stranger("2", "regular"))
	m.Add(c.stranger("3", "once"))
	c.now = c.now.Add(DefaultKeepFor)
	if m.CountStrangers() != 2 {
		t.Errorf("%d strangers, want 2", m.CountStrangers())
	}
	c.now = c.now.Add(time.Nanosecond)
	if list, more := m.Strangers(0); len(list) != 0 || more != 0 || m.CountStrangers() != 0 {
		t.Errorf("%d strangers and %d more are left", len(list), more)
	}
}
