package authn

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// verdicts returns the entries.
func (m *verdictCache) verdicts() []*verdict {
	return slices.Collect(m.All())
}

// fakeCert returns a certificate that only the cache can use, without the cost of a
// real one.
func fakeCert(n int) *x509.Certificate {
	raw := make([]byte, 400)
	binary.BigEndian.PutUint64(raw, uint64(n))
	return &x509.Certificate{Raw: raw, NotAfter: time.Now().AddDate(1, 0, 0)}
}

// TestVerdictCacheKey checks that a verdict applies to all presented certificates
// in their order.
func TestVerdictCacheKey(t *testing.T) {
	leaf, one, two := fakeCert(1), fakeCert(2), fakeCert(3)
	joined := &x509.Certificate{Raw: append(append([]byte{}, leaf.Raw...), one.Raw...)}
	now := time.Now()
	known := []*x509.Certificate{leaf, one, two}
	m := newVerdictCache(4, 1<<20)
	m.put(hashPresented(known), known, &verdict{until: now.Add(time.Minute)}, now)
	for name, test := range map[string]struct {
		presented []*x509.Certificate
		want      bool
	}{
		"the same":               {known, true},
		"equal ones":             {[]*x509.Certificate{fakeCert(1), fakeCert(2), fakeCert(3)}, true},
		"the leaf alone":         {known[:1], false},
		"one less":               {known[:2], false},
		"one more":               {append(known[:3:3], leaf), false},
		"another order":          {[]*x509.Certificate{leaf, two, one}, false},
		"another leaf":           {[]*x509.Certificate{one, leaf, two}, false},
		"two joined into one":    {[]*x509.Certificate{joined, two}, false},
		"one octet is different": {[]*x509.Certificate{leaf, one, {Raw: append(two.Raw[:399:399], 1)}}, false},
		"one ends earlier":       {[]*x509.Certificate{leaf, one, {Raw: two.Raw[:399]}}, false},
		"none":                   {nil, false},
	} {
		// whatever their hash is: it only finds the place
		if got := m.get(hashPresented(known), test.presented, now) != nil; got != test.want {
			t.Errorf("%s, with the hash of the known ones: %t", name, got)
		}
		if got := m.get(hashPresented(test.presented), test.presented, now) != nil; got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestVerdictCacheForgets(t *testing.T) {
	now := time.Now()
	presented := []*x509.Certificate{fakeCert(1)}
	hash := hashPresented(presented)
	m := newVerdictCache(4, 400)
	m.put(hash, presented, &verdict{until: now.Add(time.Minute)}, now)
	for after, want := range map[time.Duration]bool{0: true, time.Minute - 1: true, time.Minute: false, time.Hour: false} {
		if got := m.get(hash, presented, now.Add(after)) != nil; got != want {
			t.Errorf("after %s: %t", after, got)
		}
	}
	large := []*x509.Certificate{fakeCert(2), fakeCert(3)}
	m.put(hashPresented(large), large, &verdict{until: now.Add(time.Minute)}, now)
	if m.get(hashPresented(large), large, now) != nil || len(m.verdicts()) != 1 {
		t.Error("more octets are remembered than a verdict may have")
	}
}

// TestVerdictCacheReplaces checks that a new verdict takes the slot of the previous
// one on the same certificates, or else an empty or expired slot, or else that of
// another verdict.
func TestVerdictCacheReplaces(t *testing.T) {
	now := time.Now()
	m := newVerdictCache(cache.Ways, 400)
	put := func(n int, until time.Time) {
		presented := []*x509.Certificate{fakeCert(n)}
		m.put(hashPresented(presented), presented, &verdict{until: until}, now)
	}
	has := func(n int) bool {
		presented := []*x509.Certificate{fakeCert(n)}
		return m.get(hashPresented(presented), presented, now) != nil
	}
	for n := range cache.Ways {
		put(n, now.Add(time.Minute))
		put(n, now.Add(time.Hour))
	}
	for n := range cache.Ways {
		if !has(n) {
			t.Fatalf("certificate %d was replaced while there was room", n)
		}
	}
	put(cache.Ways, now.Add(time.Hour))
	if got := len(m.verdicts()); got != cache.Ways || !has(cache.Ways) {
		t.Errorf("%d verdicts, the newest among them: %t", got, has(cache.Ways))
	}

	m = newVerdictCache(cache.Ways, 400)
	for n := range cache.Ways - 1 {
		put(n, now.Add(time.Hour))
	}
	put(cache.Ways, now) // expired by the time the next one comes
	put(cache.Ways+1, now.Add(time.Hour))
	for _, n := range []int{0, 1, 2, cache.Ways + 1} {
		if !has(n) {
			t.Errorf("certificate %d made room for another though one had expired", n)
		}
	}
}

// TestRefusalsAreForgotten checks that a refusal is remembered for a minute: a
// stranger costs little, and an operator who fixes something does not wait for
// long.
func TestRefusalsAreForgotten(t *testing.T) {
	ca := testpki.MustCA(t)
	for name, leaf := range map[string]*testpki.Leaf{
		"unknown": testpki.MustIssue(t, ca, company("x")), "untrusted": testpki.MustSelfSigned(t),
		"unsuitable": testpki.MustSelfSigned(t, testpki.EKU(x509.ExtKeyUsageServerAuth)),
	} {
		clock := testenv.NewClockAt(time.Now())
		auth := newTestAuthenticator(t, clock, []*testpki.CA{ca}, named("a", "CN=a"))
		for _, step := range []struct {
			ahead      time.Duration
			remembered bool
		}{{0, false}, {0, true}, {59 * time.Second, true}, {time.Second, false}, {0, true}} {
			clock.Advance(step.ahead)
			if _, refusal, remembered := auth.Decide(context.Background(), leaf.Presented(), ""); refusal == nil || remembered != step.remembered {
				t.Errorf("%s, %s later: remembered is %t (%v)", name, step.ahead, remembered, refusal)
			}
		}
	}
}

// TestVerdictEndsWithTheChain checks that a verdict expires with the first
// certificate of the chain that does.
func TestVerdictEndsWithTheChain(t *testing.T) {
	clock := testenv.NewClockAt(time.Now())
	from, hour := clock.Now().Add(-time.Hour), clock.Now().Add(time.Hour).Truncate(time.Second)
	day := hour.AddDate(0, 0, 1)
	soon, late := testpki.Validity(from, hour), testpki.Validity(from, day)
	for name, test := range map[string]struct {
		root, sub, leaf testpki.Option
		after           string
	}{
		"leaf":         {late, late, soon, "[certificate_expired]"},
		"intermediate": {late, soon, late, "[certificate_untrusted]"},
		"root":         {soon, late, late, "[certificate_untrusted]"},
	} {
		t.Run(name, func(t *testing.T) {
			clock := testenv.NewClockAt(time.Now())
			root := testpki.MustCA(t, test.root)
			leaf := testpki.MustIssue(t, testpki.MustIntermediate(t, root, test.sub), test.leaf, company("client"))
			auth := newTestAuthenticator(t, clock, []*testpki.CA{root}, named("a", "CN=client,O=company"))
			if v := auth.examine(context.Background(), leaf.Presented(), clock.Now()); !v.until.Equal(hour) {
				t.Errorf("the verdict ends at %s, want %s", v.until, hour)
			}
			if got := auth.ask(leaf.Presented(), ""); got != "a" {
				t.Fatal(got)
			}
			clock.Advance(time.Until(hour) - time.Minute)
			if _, _, remembered := auth.Decide(context.Background(), leaf.Presented(), ""); !remembered {
				t.Error("forgotten too early")
			}
			clock.Advance(2 * time.Minute)
			if got := auth.ask(leaf.Presented(), ""); got != test.after {
				t.Errorf("%s, want %s", got, test.after)
			}
		})
	}
}

// TestRememberedCertificateExpires_C1 checks that validity counts on every request,
// to the second.
func TestRememberedCertificateExpires_C1(t *testing.T) {
	clock := testenv.NewClockAt(time.Now())
	start := clock.Now().Truncate(time.Second)
	leaf := testpki.MustSelfSigned(t, testpki.Validity(start.Add(-time.Minute), start.Add(time.Minute)))
	auth := newTestAuthenticator(t, clock, nil, pinned("a", leaf))
	for _, step := range []struct {
		at   time.Time
		want string
	}{
		{start, "a"},
		{start.Add(time.Minute), "a"}, // both ends belong to it
		{start.Add(time.Minute + 1), "[certificate_expired]"},
		{start.Add(-time.Minute), "a"},
		{start.Add(-time.Minute - 1), "[certificate_expired]"},
		{start, "a"},
	} {
		clock.Advance(step.at.Sub(clock.Now()))
		if got := auth.ask(leaf.Presented(), ""); got != step.want {
			t.Errorf("at %s: %s, want %s", step.at, got, step.want)
		}
	}
}

// TestAcceptedKeepsWhatWasPresented checks that the verdict on a leaf with its
// chain does not apply to the leaf alone.
func TestAcceptedKeepsWhatWasPresented(t *testing.T) {
	root := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, root)
	leaf := testpki.MustIssue(t, sub, company("client"))
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{root}, named("a", "CN=client,O=company"))
	if got := auth.ask(leaf.Presented(), ""); got != "a" {
		t.Fatal(got)
	}
	if got := auth.ask(leaf.Presented()[:1], ""); !strings.HasPrefix(got, "["+string(validators.CertificateUntrusted)) {
		t.Errorf("the leaf alone: %s", got)
	}
	if got := auth.ask(append(leaf.Presented(), root.Cert), ""); got != "a" {
		t.Errorf("with the root: %s", got)
	}
	if got, want := len(auth.accepted.verdicts()), 2; got != want {
		t.Errorf("%d verdicts, want %d", got, want)
	}
}
