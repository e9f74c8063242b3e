package authn

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// verdicts returns the entries.
func (m *acceptedCache) verdicts() []*verdict { return slices.Collect(m.All()) }

func (m *refusedCache) verdicts() []*verdict { return slices.Collect(m.All()) }

func hashAll(presented []*x509.Certificate) uint64 {
	return hashPresented(hashLeaf(presented), presented)
}

// fakeCert returns a certificate that only the cache can use, without the cost of a
// real one.
func fakeCert(n int) *x509.Certificate {
	raw := make([]byte, 400)
	binary.BigEndian.PutUint64(raw, uint64(n))
	return &x509.Certificate{Raw: raw, NotAfter: time.Now().AddDate(1, 0, 0)}
}

// TestVerdictCacheKey checks that a verdict applies to all presented certificates
// in their order, and one that depends on the leaf alone whatever comes after it.
func TestVerdictCacheKey(t *testing.T) {
	leaf, one, two := fakeCert(1), fakeCert(2), fakeCert(3)
	joined := &x509.Certificate{Raw: append(append([]byte{}, leaf.Raw...), one.Raw...)}
	now := time.Now()
	known := []*x509.Certificate{leaf, one, two}
	soon := func() *verdict { return &verdict{until: now.Add(time.Minute)} }
	accepted, pins, refused := newAcceptedCache(4, 1<<20), newAcceptedCache(4, 1<<20), newRefusedCache(4)
	accepted.put(hashLeaf(known), known, soon(), now)
	pin := soon()
	pin.leafAlone = true
	pins.put(hashLeaf(known), known, pin, now)
	refused.put(hashAll(known), known, soon(), now)
	for name, test := range map[string]struct {
		presented []*x509.Certificate
		want      bool
		wantPin   bool
	}{
		"the same":               {known, true, true},
		"equal ones":             {[]*x509.Certificate{fakeCert(1), fakeCert(2), fakeCert(3)}, true, true},
		"the leaf alone":         {known[:1], false, true},
		"one less":               {known[:2], false, true},
		"one more":               {append(known[:3:3], leaf), false, true},
		"another order":          {[]*x509.Certificate{leaf, two, one}, false, true},
		"another leaf":           {[]*x509.Certificate{one, leaf, two}, false, false},
		"two joined into one":    {[]*x509.Certificate{joined, two}, false, false},
		"one octet is different": {[]*x509.Certificate{leaf, one, {Raw: append(two.Raw[:399:399], 1)}}, false, true},
		"one ends earlier":       {[]*x509.Certificate{leaf, one, {Raw: two.Raw[:399]}}, false, true},
	} {
		// whatever their hash is: it only finds the place
		for _, hash := range []uint64{hashLeaf(known), hashLeaf(test.presented)} {
			if got := accepted.get(hash, test.presented, now) != nil; got != test.want {
				t.Errorf("%s, accepted: %t", name, got)
			}
			if got := pins.get(hash, test.presented, now) != nil; got != test.wantPin {
				t.Errorf("%s, accepted by the leaf alone: %t", name, got)
			}
		}
		if got := refused.get(hashAll(test.presented), test.presented, now) != nil; got != test.want {
			t.Errorf("%s, refused: %t", name, got)
		}
		if name == "two joined into one" {
			continue // DER has lengths, and these certificates are not DER
		}
		copied := slices.Clone(test.presented)
		other := *copied[0]
		copied[0] = &other
		if got := refused.get(hashAll(known), copied, now) != nil; got != test.want {
			t.Errorf("%s, refused, with the hash of the known ones and parsed again: %t", name, got)
		}
	}
}

func TestVerdictCacheForgets(t *testing.T) {
	now := time.Now()
	presented := []*x509.Certificate{fakeCert(1)}
	hash := hashLeaf(presented)
	accepted, refused := newAcceptedCache(4, 400), newRefusedCache(4)
	accepted.put(hash, presented, &verdict{until: now.Add(time.Minute)}, now)
	refused.put(hash, presented, &verdict{until: now.Add(time.Minute)}, now)
	for after, want := range map[time.Duration]bool{0: true, time.Minute - 1: true, time.Minute: false, time.Hour: false} {
		if got := accepted.get(hash, presented, now.Add(after)) != nil; got != want {
			t.Errorf("accepted, after %s: %t", after, got)
		}
		if got := refused.get(hash, presented, now.Add(after)) != nil; got != want {
			t.Errorf("refused, after %s: %t", after, got)
		}
	}
	large := []*x509.Certificate{fakeCert(2), fakeCert(3)}
	accepted.put(hashLeaf(large), large, &verdict{until: now.Add(time.Minute)}, now)
	if v := accepted.get(hashLeaf(large), large, now); v == nil || len(v.key.leaf)+len(v.key.rest) > 400 {
		t.Error("a large chain is forgotten, or more of its octets are remembered than a verdict may have")
	}
	accepted = newAcceptedCache(4, 399)
	if accepted.put(hash, presented, &verdict{until: now.Add(time.Minute)}, now); len(accepted.verdicts()) != 0 {
		t.Error("a large leaf is remembered")
	}
}

// TestVerdictCacheReplaces checks that a new verdict takes the slot of the previous
// one on the same leaf, or else an empty or expired slot, or else that of another
// verdict.
func TestVerdictCacheReplaces(t *testing.T) {
	now := time.Now()
	m := newAcceptedCache(cache.Ways, 800)
	put := func(n int, until time.Time, more ...*x509.Certificate) {
		presented := append([]*x509.Certificate{fakeCert(n)}, more...)
		m.put(hashLeaf(presented), presented, &verdict{until: until}, now)
	}
	has := func(n int, more ...*x509.Certificate) bool {
		presented := append([]*x509.Certificate{fakeCert(n)}, more...)
		return m.get(hashLeaf(presented), presented, now) != nil
	}
	for n := range cache.Ways {
		put(n, now.Add(time.Minute))
		put(n, now.Add(time.Hour), fakeCert(100))
		put(n, now.Add(time.Hour))
	}
	for n := range cache.Ways {
		if !has(n) {
			t.Fatalf("certificate %d was replaced while there was room", n)
		}
		if has(n, fakeCert(100)) {
			t.Errorf("certificate %d has two verdicts", n)
		}
	}
	put(cache.Ways, now.Add(time.Hour))
	if got := len(m.verdicts()); got != cache.Ways || !has(cache.Ways) {
		t.Errorf("%d verdicts, the newest among them: %t", got, has(cache.Ways))
	}

	m = newAcceptedCache(cache.Ways, 400)
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

// TestRefusalEndsWhenItHeals checks that a refusal is forgotten at the moment at which
// a certificate becomes valid that could make the chain verify.
func TestRefusalEndsWhenItHeals(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	const wait = 5 * time.Second
	old := testpki.Validity(start.Add(-time.Hour), start.Add(time.Hour))
	ahead := testpki.Validity(start.Add(wait), start.Add(time.Hour))
	plain, chained := named("a", "CN=client,O=company"), clients.Record{ClientID: "a", RequireChain: true}
	for name, test := range map[string]struct {
		root, sub, leaf testpki.Option
		record          clients.Record
		before          string
	}{
		"leaf":                    {old, old, ahead, plain, "[certificate_expired]"},
		"intermediate":            {old, ahead, old, plain, "[certificate_untrusted]"},
		"CA of the pool":          {ahead, old, old, plain, "[certificate_untrusted]"},
		"intermediate of a pin":   {old, ahead, old, chained, "[certificate_untrusted]"},
		"CA of the pool of a pin": {ahead, old, old, chained, "[certificate_untrusted]"},
	} {
		t.Run(name, func(t *testing.T) {
			clock := testenv.NewClockAt(start)
			root := testpki.MustCA(t, test.root)
			leaf := testpki.MustIssue(t, testpki.MustIntermediate(t, root, test.sub), test.leaf, company("client"))
			if test.record.RequireChain {
				test.record.Thumbprints = clients.Strings{testpki.HashOf(leaf.Cert.Raw)}
			}
			auth := newTestAuthenticator(t, clock, []*testpki.CA{root}, test.record)
			for _, step := range []struct {
				ahead time.Duration
				want  string
			}{{0, test.before}, {wait - 1, test.before}, {1, "a"}, {time.Minute, "a"}} {
				clock.Advance(step.ahead)
				if got := auth.ask(leaf.Presented(), ""); got != step.want {
					t.Errorf("%s later: %s, want %s", step.ahead, got, step.want)
				}
			}
		})
	}
}

// TestVerdictEndsWhenAnotherClientMatches checks that a verdict that admits one of two
// clients by its issuer ends when the chain of the other one begins to verify.
func TestVerdictEndsWhenAnotherClientMatches(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	clock := testenv.NewClockAt(start)
	key := testpki.MustKey(t, testpki.P256)
	one := testpki.MustCA(t, testpki.CommonName("One"))
	two := testpki.MustCA(t, testpki.CommonName("Two"))
	sub := testpki.MustIntermediate(t, one, testpki.Key(key), testpki.CommonName("Sub"))
	cross := testpki.MustIntermediate(t, two, testpki.Key(key), testpki.CommonName("Sub"), testpki.Validity(start.Add(5*time.Second), start.Add(time.Hour)))
	leaf := testpki.MustIssue(t, sub, company("client"))
	var records []clients.Record
	for id, ca := range map[string]*testpki.CA{"a": one, "b": two} {
		record := named(id, "CN=client,O=company")
		record.SharedCredential, record.IssuedBy = true, clients.Strings{testpki.HashOf(ca.Cert.Raw)}
		records = append(records, record)
	}
	auth := newTestAuthenticator(t, clock, []*testpki.CA{one, two}, records...)
	presented := []*x509.Certificate{leaf.Cert, sub.Cert, cross.Cert}
	if got := auth.ask(presented, "b"); got != "[client_mismatch]" {
		t.Errorf("before: %s", got)
	}
	clock.Advance(5 * time.Second)
	if got := auth.ask(presented, "b"); got != "b" {
		t.Errorf("after: %s", got)
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
	if got, want := len(auth.accepted.verdicts()), 1; got != want {
		t.Errorf("%d verdicts on one leaf, want %d", got, want)
	}
}
