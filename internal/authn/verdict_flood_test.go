package authn

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// copies returns certificates that differ only in their octets; creating that many
// real ones would take minutes.
func copies(leaf *testpki.Leaf, n int) [][]*x509.Certificate {
	certs := make([][]*x509.Certificate, n)
	for i := range certs {
		cert := *leaf.Cert
		cert.Raw = binary.BigEndian.AppendUint64(append([]byte{}, leaf.Cert.Raw...), uint64(i))
		certs[i] = []*x509.Certificate{&cert}
	}
	return certs
}

// TestFloodOfStrangers checks that any number of unknown certificates neither fills
// the caches nor evicts a client.
func TestFloodOfStrangers(t *testing.T) {
	t.Run("pins", func(t *testing.T) { flood(t, 100_000, "[certificate_unknown]") })
	t.Run("trust pool", func(t *testing.T) {
		flood(t, 20_000, "[certificate_untrusted]", testpki.MustCA(t))
	})
}

func flood(t *testing.T, strangers int, want string, cas ...*testpki.CA) {
	const known = 2000
	leaf := testpki.MustSelfSigned(t)
	presented := copies(leaf, known+strangers)
	records := make([]clients.Record, known)
	for i := range records {
		records[i] = clients.Record{ClientID: fmt.Sprintf("c%d", i), Thumbprints: clients.Strings{testpki.HashOf(presented[i][0].Raw)}}
	}
	if len(cas) > 0 {
		records = append(records, named("pki", "CN=client"))
	}
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), cas, records...)
	for i := range known {
		if got := auth.ask(presented[i], ""); got != records[i].ClientID {
			t.Fatalf("client %d: %s", i, got)
		}
	}
	before := auth.accepted.verdicts()
	if len(before) < known*9/10 {
		t.Fatalf("only %d of %d clients are remembered", len(before), known)
	}

	for i := known; i < len(presented); i++ {
		if got := auth.ask(presented[i], ""); got != want {
			t.Fatalf("stranger %d: %s", i, got)
		}
	}
	after := auth.accepted.verdicts()
	if len(after) != len(before) {
		t.Fatalf("%d clients are remembered after the flood, %d before", len(after), len(before))
	}
	for i := range after {
		if after[i] != before[i] {
			t.Fatal("a stranger took the place of a client")
		}
	}
	if refused := auth.refused.verdicts(); auth.refused.Len() != refusedSlots || len(refused) > refusedSlots || slices.ContainsFunc(refused, keepsOctets) {
		t.Errorf("%d slots hold %d refusals; want at most %d, without certificates", auth.refused.Len(), len(refused), refusedSlots)
	}
}

func keepsOctets(v *verdict) bool { return v.key.leaf != nil || v.key.rest != nil }

// TestFloodOfOneClient_S8 checks that a client that presents ever other certificates
// after its own neither fills the memory nor evicts other clients.
func TestFloodOfOneClient_S8(t *testing.T) {
	const known, junk = 2000, 20_000
	ca := testpki.MustCA(t)
	leaf := testpki.MustSelfSigned(t)
	presented := copies(leaf, known)
	records := make([]clients.Record, known, known+1)
	for i := range records {
		records[i] = clients.Record{ClientID: fmt.Sprintf("c%d", i), Thumbprints: clients.Strings{testpki.HashOf(presented[i][0].Raw)}}
	}
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, append(records, named("pki", "CN=pki,O=company"))...)
	for i := range known {
		auth.ask(presented[i], "")
	}
	octets := func() (n int) {
		for _, v := range auth.accepted.verdicts() {
			n += len(v.key.leaf) + len(v.key.rest)
		}
		return n
	}
	before, there := octets(), auth.accepted.verdicts()
	for client, own := range map[string][]*x509.Certificate{"c0": presented[0], "pki": testpki.MustIssue(t, ca, company("pki")).Presented()} {
		extra := *leaf.Cert
		for i := range junk {
			extra.Raw = binary.BigEndian.AppendUint64(make([]byte, 6000), uint64(i))
			if got := auth.ask(append(own[:1:1], &extra), ""); got != client {
				t.Fatalf("%s, want %s", got, client)
			}
		}
	}
	// the chain of one of the two clients counts, and is kept with its leaf
	if after := octets(); after > before+maxAcceptedBytes {
		t.Errorf("%d octets are kept, %d before", after, before)
	}
	after := auth.accepted.verdicts()
	left := 0
	for _, v := range there {
		if slices.Contains(after, v) {
			left++
		}
	}
	if left < len(there)-2 {
		t.Errorf("%d of %d clients are still remembered", left, len(there))
	}
}

// TestFloodWithLargeChains checks that a large chain is remembered by its hash, so that
// it is not verified again and again, whether it is refused or accepted.
func TestFloodWithLargeChains(t *testing.T) {
	ca := testpki.MustCA(t)
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "CN=client,O=company"))
	stranger := testpki.MustSelfSigned(t)
	chain := stranger.Presented()
	for range 100 {
		chain = append(chain, stranger.Cert)
	}
	client := append(testpki.MustIssue(t, ca, company("client")).Presented(), chain...)
	for range 40 {
		client = append(client, stranger.Cert)
	}
	for range 2 {
		if got := auth.ask(chain, ""); got != "[certificate_untrusted]" {
			t.Error(got)
		}
		if got := auth.ask(client, ""); got != "a" {
			t.Error(got)
		}
	}
	accepted, refused := auth.accepted.verdicts(), auth.refused.verdicts()
	if len(accepted) != 1 || len(accepted[0].key.rest) > 0 || len(refused) != 1 || keepsOctets(refused[0]) {
		t.Errorf("%d accepted and %d refused are remembered, want one hash of each", len(accepted), len(refused))
	}
	for _, test := range []struct {
		certificates int
		want         bool
	}{{len(client), true}, {len(client) - 1, false}} {
		if _, refusal, remembered := auth.Decide(t.Context(), client[:test.certificates], ""); refusal != nil || remembered != test.want {
			t.Errorf("%d certificates of the client: %v, remembered %v", test.certificates, refusal, remembered)
		}
	}
	other := slices.Clone(client)
	other[len(other)-1] = testpki.MustSelfSigned(t).Cert
	if _, refusal, remembered := auth.Decide(t.Context(), other, ""); refusal != nil || remembered {
		t.Errorf("other certificates behind the client's: %v, remembered %v", refusal, remembered)
	}
	if _, _, remembered := auth.Decide(context.Background(), chain[:len(chain)-1], ""); remembered {
		t.Error("another chain is taken for a remembered one")
	}
}

// TestVerdictCacheGrowsWithTheRealm checks that there is room for every client, up
// to a bound.
func TestVerdictCacheGrowsWithTheRealm(t *testing.T) {
	for records, want := range map[int]int{0: acceptedSlots, 1: acceptedSlots, acceptedSlots: 2 * acceptedSlots, maxAcceptedSlots: maxAcceptedSlots} {
		list := make([]clients.Record, records)
		for i := range list {
			sum := testpki.HashOf(fmt.Append(nil, i))
			list[i] = clients.Record{ClientID: sum, Thumbprints: clients.Strings{sum}}
		}
		auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), nil, list...)
		if got := auth.accepted.Len(); got != want {
			t.Errorf("%d clients: %d slots, want %d", records, got, want)
		}
		if got := auth.refused.Len(); got != refusedSlots {
			t.Errorf("%d clients: %d slots for refusals, want %d", records, got, refusedSlots)
		}
	}
}

// TestConcurrentAuthentication checks that concurrent requests, with verdicts that
// expire meanwhile, never get the identity of another client.
func TestConcurrentAuthentication(t *testing.T) {
	clock := testenv.NewClockAt(time.Now())
	ca := testpki.MustCA(t)
	type caller struct {
		presented []*x509.Certificate
		want      string
	}
	var callers []caller
	var records []clients.Record
	for i := range 8 {
		id := fmt.Sprintf("c%d", i)
		pin, name := testpki.MustSelfSigned(t), testpki.MustIssue(t, ca, company(id))
		records = append(records, pinned("pin-"+id, pin), named(id, "CN="+id+",O=company"))
		callers = append(callers,
			caller{pin.Presented(), "pin-" + id}, caller{name.Presented(), id},
			caller{testpki.MustSelfSigned(t, company(id)).Presented(), "[certificate_untrusted]"})
	}
	auth := newTestAuthenticator(t, clock, []*testpki.CA{ca}, records...)
	// so small that they are always in each other's way
	auth.accepted, auth.refused = newAcceptedCache(cache.Ways, 1<<20), newRefusedCache(cache.Ways)

	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 500 {
				c := callers[(i*(2*worker+1)+worker)%len(callers)]
				if got := auth.ask(c.presented, ""); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
					return
				}
				if i%100 == 0 {
					clock.Advance(time.Minute)
				}
			}
		})
	}
	group.Wait()
}
