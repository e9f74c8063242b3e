package authn

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// clientBook makes registries that differ in single clients and share the others.
type clientBook struct {
	t         testing.TB
	directory *directory.Directory
	pages     []*clientPage
}

// clientPage is a source with one client, or none.
type clientPage struct {
	name string
	id   string // of its client
	sink clients.Sink
}

func (p *clientPage) Info() clients.SourceInfo { return clients.SourceInfo{Name: p.name} }

func (p *clientPage) Load(ctx context.Context, sink clients.Sink) error {
	p.sink = sink
	return sink.Replace(ctx, func(func(clients.Entry, error) bool) {})
}

func (*clientPage) Watch(context.Context, clients.Sink) {}

func newClientBook(t testing.TB, records ...clients.Record) *clientBook {
	t.Helper()
	book := &clientBook{t: t}
	var config directory.Config
	for i := range 4 {
		page := &clientPage{name: fmt.Sprint(i)}
		book.pages, config.Sources = append(book.pages, page), append(config.Sources, page)
	}
	var err error
	if book.directory, err = directory.New(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	book.with(records...)
	return book
}

func (b *clientBook) registry() *clients.Registry { return b.directory.Registry() }

// with returns a registry in which these clients have changed or come.
func (b *clientBook) with(records ...clients.Record) *clients.Registry {
	for _, record := range records {
		text, err := json.Marshal(record)
		if err != nil {
			b.t.Fatal(err)
		}
		b.change(record.ClientID, text).id = record.ClientID
	}
	return b.registry()
}

// without returns a registry without these clients.
func (b *clientBook) without(ids ...string) *clients.Registry {
	for _, id := range ids {
		b.change(id, nil).id = ""
	}
	return b.registry()
}

func (b *clientBook) change(id string, record []byte) *clientPage {
	i := slices.IndexFunc(b.pages, func(p *clientPage) bool { return p.id == id })
	if i < 0 {
		i = slices.IndexFunc(b.pages, func(p *clientPage) bool { return p.id == "" })
	}
	if err := b.pages[i].sink.Update(b.t.Context(), []clients.Entry{{ID: id, Record: record}}); err != nil {
		b.t.Fatal(err)
	}
	return b.pages[i]
}

// testAuthenticatorOf returns an authenticator with these clients and one CA.
func testAuthenticatorOf(registry *clients.Registry, ca *testpki.CA) *Authenticator {
	clock := testenv.NewClockAt(time.Now())
	return New(Config{Registry: registry, Trust: validators.NewTrustPool(ca.Pool(), ca.Cert), Now: clock.Now})
}

// TestVerdictSurvivesOtherClients checks that a certificate is not examined again,
// neither its chain nor whether it is revoked, when clients change that it does not
// belong to.
func TestVerdictSurvivesOtherClients(t *testing.T) {
	ca, pin := testpki.MustCA(t), testpki.MustSelfSigned(t)
	book := newClientBook(t, pinned("pin", pin), named("name", "CN=client,O=company"), pinned("other", testpki.MustSelfSigned(t)))
	auth := testAuthenticatorOf(book.registry(), ca)
	callers := map[string]*testpki.Leaf{
		"pin": pin, "name": testpki.MustIssue(t, ca, company("client")), "[certificate_untrusted]": testpki.MustSelfSigned(t),
		"[certificate_unknown]": testpki.MustIssue(t, ca),
	}
	changed := pinned("other", testpki.MustSelfSigned(t))
	changed.Scope = "api"
	for step, change := range []func() *clients.Registry{
		book.registry,
		func() *clients.Registry { return book.with(named("new", "CN=new,O=company")) },
		func() *clients.Registry { return book.with(changed) },
		func() *clients.Registry { return book.without("new") },
		func() *clients.Registry { return book.without("other") },
	} {
		auth = auth.WithRegistry(change())
		for want, leaf := range callers {
			if _, _, remembered := auth.Decide(t.Context(), leaf.Presented(), ""); remembered != (step > 0) {
				t.Errorf("step %d: %s is remembered: %t", step, want, remembered)
			}
			if got := auth.ask(leaf.Presented(), ""); got != want {
				t.Errorf("step %d: %s, want %s", step, got, want)
			}
		}
	}
}

// ownChanges returns changes of clients that change the answer about a certificate,
// with that certificate and the answers before and after.
func ownChanges(t *testing.T, ca *testpki.CA) map[string]ownChange {
	leaf, issued, pin := testpki.MustSelfSigned(t), testpki.MustIssue(t, ca, company("client")), testpki.MustSelfSigned(t)
	others := testpki.MustIssue(t, ca, company("pki"))
	spiffe := testpki.MustIssue(t, ca, testpki.URIs("spiffe://a.example/one", "https://a.example"))
	off, shared, alsoShared := pinned("a", leaf), pinned("a", leaf), pinned("b", leaf)
	off.Disabled, shared.SharedCredential, alsoShared.SharedCredential = true, true, true
	narrow, chained, named := named("a", "CN=client,O=company"), pinned("a", issued), named("a", "CN=client,O=company")
	narrow.IssuedBy = clients.Strings{testpki.HashOf(leaf.Cert.Raw)}
	chained.RequireChain = true
	ended := pinned("a", leaf)
	ended.Thumbprints[0] += " until 2020-01-01T00:00:00Z"
	listed, listsIssued := clients.Record{ClientID: "a", JWKS: testpki.JWKS(t, leaf)}, clients.Record{ClientID: "b", JWKS: testpki.JWKS(t, issued)}
	workload := clients.Record{ClientID: "w", SANURI: clients.Strings{"spiffe://a.example/*"}}
	return map[string]ownChange{
		"disabled":             {leaf, pinned("a", leaf), "a", off, "[client_disabled]"},
		"enabled":              {leaf, off, "[client_disabled]", pinned("a", leaf), "a"},
		"thumbprint removed":   {leaf, pinned("a", leaf, pin), "a", pinned("a", pin), "[certificate_untrusted]"},
		"thumbprint added":     {leaf, pinned("a", pin), "[certificate_untrusted]", pinned("a", leaf, pin), "a"},
		"thumbprint ended":     {leaf, pinned("a", leaf), "a", ended, "[certificate_untrusted]"},
		"another client":       {leaf, pinned("z", pin), "[certificate_untrusted]", pinned("a", leaf), "a"},
		"another client's":     {leaf, shared, "a", alsoShared, "[certificate_ambiguous]"},
		"subject registered":   {issued, pinned("z", pin), "[certificate_unknown]", named, "a"},
		"issued_by added":      {issued, named, "a", narrow, "[certificate_untrusted]"},
		"issued_by removed":    {issued, narrow, "[certificate_untrusted]", named, "a"},
		"pin before the name":  {others, pinned("b", pin), "pki", pinned("b", others), "b"},
		"require_chain of one": {issued, pinned("a", issued), "a", chained, "a"},
		"listed by a JWKS":     {leaf, pinned("z", pin), "[certificate_untrusted]", listed, "a"},
		"declared by another":  {leaf, listed, "a", pinned("b", leaf), "b"},
		"named by another":     {issued, listsIssued, "b", named, "a"},
		"a SPIFFE ID":          {spiffe, pinned("z", pin), "[certificate_unknown]", workload, "[certificate_unsuitable]"},
	}
}

type ownChange struct {
	leaf   *testpki.Leaf
	before clients.Record
	was    string
	after  clients.Record
	is     string
}

// TestVerdictFollowsItsClient checks that the next request with a certificate is
// decided anew when a client changes that it belongs to, has belonged to or comes to
// belong to, and when the change is taken back.
func TestVerdictFollowsItsClient(t *testing.T) {
	ca := testpki.MustCA(t)
	for name, test := range ownChanges(t, ca) {
		t.Run(name, func(t *testing.T) {
			book := newClientBook(t, test.before, named("pki", "CN=pki,O=company"))
			before := testAuthenticatorOf(book.registry(), ca)
			after := before.WithRegistry(book.with(test.after))
			for i := range 3 { // requests of before are on their way
				if got := before.ask(test.leaf.Presented(), ""); got != test.was {
					t.Errorf("before, request %d: %s, want %s", i, got, test.was)
				}
				id, refusal, remembered := after.Decide(t.Context(), test.leaf.Presented(), "")
				if got := answer(id, refusal); got != test.is || remembered && i == 0 {
					t.Errorf("after, request %d: %s, remembered %t; want %s", i, got, remembered, test.is)
				}
				if refusal == nil && id.Client() != after.config.Registry.Client(test.is) {
					t.Errorf("after, request %d: the client is not that of the registry", i)
				}
			}
			back := after.WithRegistry(before.config.Registry)
			if got := back.ask(test.leaf.Presented(), ""); got != test.was {
				t.Errorf("taken back: %s, want %s", got, test.was)
			}
		})
	}
}

// TestClientsWithNamesComeAndGo checks that the first client with a name changes the
// answer about certificates of unknown CAs, which are unknown before, and that the last
// one changes it back.
func TestClientsWithNamesComeAndGo(t *testing.T) {
	ca, stranger := testpki.MustCA(t), testpki.MustSelfSigned(t)
	book := newClientBook(t, pinned("pin", testpki.MustSelfSigned(t)))
	auth := testAuthenticatorOf(book.registry(), ca)
	for range 2 {
		for _, step := range []struct {
			registry *clients.Registry
			want     string
		}{{book.registry(), "[certificate_unknown]"}, {book.with(named("a", "CN=a")), "[certificate_untrusted]"}, {book.without("a"), "[certificate_unknown]"}} {
			auth = auth.WithRegistry(step.registry)
			if got := auth.ask(stranger.Presented(), ""); got != step.want {
				t.Errorf("%s, want %s", got, step.want)
			}
		}
	}
}

// TestChangedScopesCountAtOnce checks that an identity has the client as it is now.
func TestChangedScopesCountAtOnce(t *testing.T) {
	ca, leaf := testpki.MustCA(t), testpki.MustSelfSigned(t)
	record := pinned("a", leaf)
	record.Scope = "one two"
	book := newClientBook(t, record)
	auth := testAuthenticatorOf(book.registry(), ca)
	auth.ask(leaf.Presented(), "")
	record.Scope = "one"
	auth = auth.WithRegistry(book.with(record))
	id, refusal, _ := auth.Decide(t.Context(), leaf.Presented(), "")
	if refusal != nil || id.Client().HasScope("two") {
		t.Errorf("%v, refusal %v", id.Client(), refusal)
	}
}

// TestHintsAreAboutTheClientsNow checks that the log line of a remembered refusal knows
// a client that was registered since then.
func TestHintsAreAboutTheClientsNow(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, company("client"))
	book := newClientBook(t, named("a", "CN=a"))
	auth := testAuthenticatorOf(book.registry(), ca)
	hint := func(presented []*x509.Certificate) string {
		id, refusal, _ := auth.Decide(t.Context(), leaf.Presented(), "")
		_, hints := id.Notes.Describe(auth, presented, refusal)
		return hints.Hint
	}
	const want = "client 'b' declares the subject in reverse order"
	if got := hint(leaf.Presented()); strings.Contains(got, want) {
		t.Fatal(got)
	}
	auth = auth.WithRegistry(book.with(named("b", "O=company,CN=client")))
	_, refusal, _ := auth.Decide(t.Context(), leaf.Presented(), "")
	if id, _, remembered := auth.Decide(t.Context(), leaf.Presented(), ""); !remembered || id.Notes.Made(auth, refusal) {
		t.Errorf("remembered %t, and the notes are taken for complete", remembered)
	}
	if got := hint(leaf.Presented()); !strings.Contains(got, want) {
		t.Errorf("the hint is %q", got)
	}
	auth = auth.WithRegistry(book.without("b"))
	if got := hint(nil); !strings.Contains(got, want) {
		t.Errorf("without the certificates, the hint is %q", got)
	}
}

// TestVerdictsKeepNoRegistry checks that verdicts, which may live for years, do not keep
// the registry in memory that they were reached with.
func TestVerdictsKeepNoRegistry(t *testing.T) {
	ca, pin := testpki.MustCA(t), testpki.MustSelfSigned(t)
	book := newClientBook(t, pinned("a", pin), named("b", "CN=client,O=company"))
	auth := testAuthenticatorOf(book.registry(), ca)
	for _, leaf := range []*testpki.Leaf{pin, testpki.MustIssue(t, ca, company("client")), testpki.MustIssue(t, ca), testpki.MustSelfSigned(t)} {
		id, refusal, _ := auth.Decide(t.Context(), leaf.Presented(), "")
		if refusal != nil {
			id.Notes.Describe(auth, leaf.Presented(), refusal)
		}
	}
	old := weak.Make(auth.config.Registry)
	auth = auth.WithRegistry(book.with(named("c", "CN=c")))
	for range 10 {
		runtime.GC()
	}
	if old.Value() != nil {
		t.Error("the registry is still there")
	}
	if n := len(auth.accepted.verdicts()) + len(auth.refused.verdicts()); n != 4 {
		t.Errorf("%d verdicts are left, want 4", n)
	}
}

// TestVerdictCacheGrowsWithClientsThatCome checks that verdicts stay when the cache
// grows.
func TestVerdictCacheGrowsWithClientsThatCome(t *testing.T) {
	ca, leaf := testpki.MustCA(t), testpki.MustSelfSigned(t)
	book := newClientBook(t, pinned("a", leaf))
	auth := testAuthenticatorOf(book.registry(), ca)
	auth.accepted = newAcceptedCache(cache.Ways, maxAcceptedBytes)
	auth.ask(leaf.Presented(), "")
	grown := auth.WithRegistry(book.with(pinned("b", testpki.MustSelfSigned(t))))
	if _, refusal, remembered := grown.Decide(t.Context(), leaf.Presented(), ""); refusal != nil || !remembered {
		t.Errorf("%v, remembered %t", refusal, remembered)
	}
	if n := grown.accepted.Len(); n != acceptedSlots {
		t.Errorf("%d slots, want %d", n, acceptedSlots)
	}
	if same := grown.WithRegistry(book.registry()); same.accepted != grown.accepted {
		t.Error("a cache that is large enough is replaced")
	}
}

// TestDecideWhileClientsChange checks, with requests that are decided by old and new
// registries at the same time, that every answer is right for the registry that decides.
func TestDecideWhileClientsChange(t *testing.T) {
	ca := testpki.MustCA(t)
	var callers [][]*x509.Certificate
	var states []*clients.Registry
	for _, test := range ownChanges(t, ca) {
		book := newClientBook(t, test.before)
		states = append(states, book.registry(), book.with(named("pki", "CN=pki,O=company")), book.with(test.after), book.without("pki"))
		callers = append(callers, test.leaf.Presented())
	}
	want := make(map[*clients.Registry][]string)
	for _, registry := range states {
		for _, presented := range callers {
			want[registry] = append(want[registry], testAuthenticatorOf(registry, ca).ask(presented, ""))
		}
	}
	var current atomic.Pointer[Authenticator]
	current.Store(testAuthenticatorOf(states[0], ca))
	var workers, swapper sync.WaitGroup
	stop := make(chan struct{})
	swapper.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				current.Store(current.Load().WithRegistry(states[i%len(states)]))
				runtime.Gosched()
			}
		}
	})
	for worker := range 4 {
		workers.Go(func() {
			for i := range 3000 {
				auth, n := current.Load(), (i*(2*worker+1)+worker)%len(callers)
				if got := auth.ask(callers[n], ""); got != want[auth.config.Registry][n] {
					t.Errorf("%s, want %s", got, want[auth.config.Registry][n])
					return
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	swapper.Wait()
}
