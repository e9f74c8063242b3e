package clients

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// modelLeaf is a certificate, and what it can be declared by.
type modelLeaf struct {
	*testpki.Leaf
	file, sha256, sha1, key string
	names                   []string // "kind text"
}

// model is what a registry should be. It compares everything with everything.
type model struct {
	leaves  []modelLeaf
	clients []*Client
}

func newModel(t *testing.T) *model {
	t.Helper()
	m := new(model)
	dir := t.TempDir()
	for i, options := range [][]testpki.Option{
		{testpki.CommonName("a"), testpki.DNSNames("x.a.example", "y.b.example"), testpki.Emails("a@a.example")},
		{testpki.CommonName("A"), testpki.URIs("spiffe://d.example/ns/a/sa/b"), testpki.IPs(net.ParseIP("192.0.2.1"))},
		{testpki.CommonName("b"), testpki.URIs("https://h.example/a/b", "https://h.example/c"), testpki.DNSNames("y.a.example")},
		{testpki.CommonName("c"), testpki.URIs("spiffe://e.example/ns/a")},
		nil, // with the key of the one before
	} {
		if options == nil {
			options = []testpki.Option{testpki.CommonName("c"), testpki.Key(m.leaves[i-1].Key)}
		}
		leaf := testpki.MustSelfSigned(t, options...)
		file, _, err := leaf.WriteFiles(dir, fmt.Sprint("leaf", i))
		if err != nil {
			t.Fatal(err)
		}
		old := sha1.Sum(leaf.Cert.Raw)
		one := modelLeaf{Leaf: leaf, file: file, sha256: sha256Text(leaf.Cert.Raw), sha1: hex.EncodeToString(old[:]), key: sha256Text(leaf.Cert.RawSubjectPublicKeyInfo)}
		for _, name := range leaf.Cert.DNSNames {
			one.names = append(one.names, "san_dns "+name)
		}
		for _, name := range leaf.Cert.URIs {
			one.names = append(one.names, "san_uri "+name.String())
		}
		for _, name := range leaf.Cert.IPAddresses {
			one.names = append(one.names, "san_ip "+name.String())
		}
		for _, name := range leaf.Cert.EmailAddresses {
			one.names = append(one.names, "san_email "+name)
		}
		m.leaves = append(m.leaves, one)
	}
	return m
}

// randomClient is a client with one to three credentials out of few, so that clients
// often conflict.
func (m *model) randomClient(t *testing.T, random *rand.Rand) *Client {
	t.Helper()
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	r := Record{
		ClientID: fmt.Sprint("c", random.IntN(12)), SharedCredential: random.IntN(2) == 0, Disabled: random.IntN(5) == 0,
		Scope: pick("", "s1", "s1 s2", "s3"), TokenLifetime: caddy.Duration(random.IntN(4)) * caddy.Duration(time.Minute),
	}
	if random.IntN(3) == 0 {
		r.Claims = map[string]json.RawMessage{pick("k1", "k2"): json.RawMessage("1")}
	}
	if random.IntN(3) == 0 {
		r.IssuedBy = Strings{sha256Hex}
	}
	for range 1 + random.IntN(3) {
		leaf := m.leaves[random.IntN(len(m.leaves))]
		switch random.IntN(9) {
		case 0:
			r.Thumbprints = append(r.Thumbprints, leaf.sha256+pick("", "", " until 2090-01-01T00:00:00Z", " until 2020-01-01T00:00:00Z"))
		case 1:
			r.Thumbprints = append(r.Thumbprints, strings.ToUpper(leaf.sha1))
		case 2:
			r.PublicKeys = append(r.PublicKeys, leaf.key)
		case 3:
			r.CertificateFiles = append(r.CertificateFiles, leaf.file)
		case 4:
			r.SubjectDN = append(r.SubjectDN, pick("CN=a", "cn=A", "CN=b", "CN=c"))
		case 5:
			r.SANDNS = append(r.SANDNS, pick("x.a.example", "y.a.example", "*.a.example", "*.b.example", "y.b.example", "z.b.example"))
		case 6:
			r.SANURI = append(r.SANURI, pick("https://h.example/a/b", "https://h.example/a/*", "https://h.example/*/b", "https://h.example/**", "https://h.example/c", "https://h.example/a/**", "https://h.example/a/b?c"))
		case 7:
			r.SANURI = append(r.SANURI, "spiffe://"+pick("d.example", "d.example", "e.example")+pick("/ns/a/sa/b", "/ns/*/sa/b", "/ns/**", "/ns/a"))
		case 8:
			r.SANIP, r.SANEmail = Strings{pick("192.0.2.1", "192.0.2.2")}, Strings{pick("a@a.example", "b@a.example")}
		}
		if random.IntN(4) == 0 {
			r.JWKS = testpki.JWKS(t, leaf.Leaf, m.leaves[random.IntN(len(m.leaves))].Leaf)
		}
	}
	if !r.HasCredential() {
		r.SubjectDN = Strings{"CN=a"}
	}
	client, _, err := makeClient(r)
	if err != nil {
		if strings.Contains(err.Error(), "another SPIFFE trust domain") {
			return m.randomClient(t, random)
		}
		t.Fatal(err)
	}
	client.Origin = &Origin{"config", random.IntN(3)}
	return client
}

// patternsOverlap reports whether some text without wildcards fits both patterns. One
// without wildcards fits itself.
func patternsOverlap(kind Kind, a, b string) bool {
	segments := func(text string) []string {
		if kind == KindSANDNS {
			label, parent, _ := strings.Cut(text, ".")
			return []string{parent, label}
		}
		if kind != KindSANURI || strings.ContainsAny(text, "?#") {
			return []string{text}
		}
		return strings.Split(strings.Replace(text, "://", ":", 1), "/")
	}
	var overlap func(a, b []string) bool
	overlap = func(a, b []string) bool {
		switch {
		case len(a) == 0 || len(b) == 0:
			return len(a) == len(b)
		case a[0] == "**" || b[0] == "**":
			return true
		}
		return (a[0] == b[0] || a[0] == "*" || b[0] == "*") && overlap(a[1:], b[1:])
	}
	return overlap(segments(a), segments(b))
}

// fits reports whether a certificate fits a declared credential, as pin or by name, and
// the name that fits.
func (l modelLeaf) fits(cred *Credential) (pinned bool, names []string) {
	switch cred.Kind {
	case KindThumbprint, KindCertificate:
		return cred.Value == l.sha256 || cred.Value == l.sha1, nil
	case KindPublicKey:
		return cred.Value == l.key, nil
	case KindSubject:
		if strings.EqualFold(cred.Value, "CN="+l.Cert.Subject.CommonName) {
			return false, []string{cred.Value}
		}
	}
	for _, name := range l.names {
		kind, text, _ := strings.Cut(name, " ")
		if Kind(kind) == cred.Kind && patternsOverlap(cred.Kind, cred.Value, text) {
			names = append(names, text)
		}
	}
	return false, names
}

// lists reports whether the JWKS of a client has the certificate.
func (l modelLeaf) lists(client *Client) bool {
	return slices.ContainsFunc(client.listed(), func(cred Credential) bool { return cred.Value == l.sha256 })
}

// declares reports whether a client declares the certificate, and by which credential
// first.
func (l modelLeaf) declares(client *Client) bool {
	for _, cred := range client.declared() {
		if pinned, names := l.fits(cred); pinned || len(names) > 0 {
			return true
		}
	}
	return false
}

// outranked reports whether a certificate is not that of a client because one of a higher
// rank declares it, too.
func (m *model) outranked(leaf modelLeaf, client *Client) bool {
	return slices.ContainsFunc(m.clients, func(other *Client) bool {
		return other.rank < client.rank && leaf.declares(other) && !(other.SharedCredential && client.SharedCredential)
	})
}

// declared returns the credentials of a client but its JWKS.
func (c *Client) declared() (list []*Credential) {
	for i := range c.Credentials {
		if cred := &c.Credentials[i]; cred.Kind != KindJWKS {
			list = append(list, cred)
		}
	}
	return list
}

// conflict reports whether two clients cannot both be in force.
func (m *model) conflict(a, b *Client) bool {
	if a.ID == b.ID || a.trustDomain() != "" && b.trustDomain() != "" && a.trustDomain() != b.trustDomain() {
		return true
	}
	if a.SharedCredential && b.SharedCredential {
		return false
	}
	for _, one := range a.declared() {
		for _, other := range b.declared() {
			if m.credentialsConflict(one, other) || m.credentialsConflict(other, one) {
				return true
			}
		}
	}
	return false
}

func (m *model) credentialsConflict(a, b *Credential) bool {
	switch {
	case a.Kind == KindSubject:
		return b.Kind == KindSubject && strings.EqualFold(a.Value, b.Value)
	case !a.Kind.Pinned():
		return a.Kind == b.Kind && patternsOverlap(a.Kind, a.Value, b.Value)
	case a.Kind == KindPublicKey && b.Kind == KindPublicKey:
		return a.Value == b.Value
	case a.Kind == KindCertificate: // which is known, and another hash of it is the same
		return slices.ContainsFunc(m.leaves, func(leaf modelLeaf) bool {
			pinned, _ := leaf.fits(b)
			return leaf.sha256 == a.Value && pinned
		})
	}
	return a.Kind != KindPublicKey && b.Kind.Pinned() && b.Kind != KindPublicKey && a.Value == b.Value
}

// lines returns all that can be asked of a registry, sorted.
func (m *model) lines() string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	hasPKI, hasPins, hasNames, loose := false, false, false, 0
	scopes, claims, longest := map[string]struct{}{}, map[string]struct{}{}, time.Duration(0)
	for _, client := range m.clients {
		add("client %p %s", client, client.ID)
		for _, cred := range client.declared() {
			hasPKI, hasPins, hasNames = hasPKI || !cred.Kind.Pinned(), hasPins || cred.Kind.Pinned(), hasNames || cred.isName()
		}
		hasPins = hasPins || len(client.listed()) > 0
		if client.HasPKI() && len(client.IssuedBy) == 0 {
			loose++
		}
		for _, scope := range client.Scopes {
			scopes[scope] = struct{}{}
		}
		for _, name := range client.ClaimNames() {
			claims[name] = struct{}{}
		}
		longest = max(longest, client.TokenLifetime)
	}
	add("PKI %t, pins %t, names %t, loose %d, longest %s, scopes %v, claims %v", hasPKI, hasPins, hasNames, loose, longest,
		slices.Sorted(maps.Keys(scopes)), slices.Sorted(maps.Keys(claims)))
	for i, leaf := range m.leaves {
		var ambiguous []string
		allShared := true
		for _, client := range m.clients {
			for _, cred := range client.declared() {
				if m.outranked(leaf, client) {
					break
				}
				pinned, names := leaf.fits(cred)
				if pinned {
					add("leaf %d is pinned by %s: %s until %s", i, client.ID, cred.Value, cred.Until())
				}
				for _, name := range names {
					add("leaf %d is named by %s: %s as %s", i, client.ID, cred.Value, name)
				}
			}
			if !leaf.lists(client) {
				continue
			}
			if slices.ContainsFunc(m.clients, func(other *Client) bool { return other != client && leaf.declares(other) }) {
				add("leaf %d is not listed by %s", i, client.ID)
				continue
			}
			add("leaf %d is listed by %s", i, client.ID)
			ambiguous, allShared = append(ambiguous, client.ID), allShared && client.SharedCredential
		}
		if len(ambiguous) > 1 && !allShared {
			slices.Sort(ambiguous)
			add("leaf %d is ambiguous: %v", i, ambiguous)
		}
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

// linesOf is lines, as a registry has it.
func (m *model) linesOf(r *Registry) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	last := ""
	for client := range r.All() {
		if client.ID <= last || r.Client(client.ID) != client {
			add("client %s is out of order, or is not found", client.ID)
		}
		last = client.ID
		add("client %p %s", client, client.ID)
		for _, cred := range r.Listed(client) {
			if !slices.ContainsFunc(m.leaves, func(leaf modelLeaf) bool { return cred.Value == leaf.sha256 && leaf.lists(client) }) {
				add("client %s lists %s", client.ID, cred.Value)
			}
		}
	}
	var claims []string
	for _, name := range []string{"k1", "k2"} {
		if r.HasClaim(name) {
			claims = append(claims, name)
		}
	}
	add("PKI %t, pins %t, names %t, loose %d, longest %s, scopes %v, claims %v", r.HasPKI(), r.HasPins(), r.HasNames(), r.LooseClients(), r.LongestLifetime(), r.Scopes(), claims)
	for i, leaf := range m.leaves {
		for _, pin := range r.Pins(leaf.Cert, sha256.Sum256(leaf.Cert.Raw)) {
			if pin.Kind == KindJWKS {
				add("leaf %d is listed by %s", i, pin.Client.ID)
				continue
			}
			add("leaf %d is pinned by %s: %s until %s", i, pin.Client.ID, pin.Value, pin.Until())
		}
		names, _ := r.Names(leaf.Cert)
		for _, name := range names {
			add("leaf %d is named by %s: %s as %s", i, name.Client.ID, name.Value, name.Matched)
		}
		for _, c := range r.Conflicts() {
			if c.Thumbprint == leaf.sha256 {
				add("leaf %d is not listed by %s", i, c.Client.ID)
				if c.Holder.Client == c.Client || r.Client(c.Client.ID) != c.Client || r.Client(c.Holder.Client.ID) != c.Holder.Client {
					add("leaf %d: the holder is %s", i, c.Holder.Client.ID)
				}
			}
		}
		for _, a := range r.allAmbiguities() {
			if a.Thumbprint == leaf.sha256 {
				add("leaf %d is ambiguous: %v", i, a.ClientIDs)
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

// add is [Edit.Add].
func (m *model) add(client *Client) (inTheWay []*Client, possible bool) {
	possible = true
	for _, other := range m.clients {
		if m.conflict(client, other) {
			inTheWay = append(inTheWay, other)
			possible = possible && other.rank > client.rank
		}
	}
	if possible {
		m.clients = append(slices.DeleteFunc(m.clients, func(c *Client) bool { return slices.Contains(inTheWay, c) }), client)
	}
	return inTheWay, possible
}

// step changes a registry and the model in the same way, at random.
func (m *model) step(t *testing.T, e *Edit, random *rand.Rand) string {
	t.Helper()
	if random.IntN(3) == 0 && len(m.clients) > 0 {
		i := random.IntN(len(m.clients))
		client := m.clients[i]
		m.clients = slices.Delete(m.clients, i, i+1)
		e.Remove(client)
		return "remove " + client.Record()
	}
	client := m.randomClient(t, random)
	inTheWay, possible := m.add(client)
	displaced, err := e.Add(client)
	conflict := new(ConflictError)
	switch {
	case possible && (err != nil || ids(displaced) != ids(inTheWay)):
		t.Fatalf("add %s, rank %d: displaced %s, %v; want %s", client.Record(), client.rank, ids(displaced), err, ids(inTheWay))
	case !possible && (!errors.As(err, &conflict) || displaced != nil || !slices.Contains(inTheWay, conflict.Holder) || conflict.Holder.rank > client.rank):
		t.Fatalf("add %s, rank %d: displaced %s, %v; in the way are %s", client.Record(), client.rank, ids(displaced), err, ids(inTheWay))
	}
	return "add " + client.Record()
}

// TestRegistryIsItsModel_B10: after any changes, a registry finds, refuses and reports
// what one would that is made from scratch, and registries of before stay as they are.
func TestRegistryIsItsModel_B10(t *testing.T) {
	sequences, steps := 60, 40
	if testing.Short() {
		sequences = 10
	}
	m := newModel(t)
	type state struct {
		registry *Registry
		lines    string
	}
	for seed := range sequences {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		m.clients = nil
		states := []state{{NewRegistry(), m.lines()}}
		var said []string
		for range steps {
			e := states[len(states)-1].registry.Edit()
			for range 1 + random.IntN(3) {
				said = append(said, m.step(t, e, random))
			}
			now := state{e.Registry(), m.lines()}
			if got := m.linesOf(now.registry); got != now.lines {
				t.Fatalf("seed %d: after\n%s\nit is\n%s\nwant\n%s", seed, strings.Join(said, "\n"), got, now.lines)
			}
			states = append(states, now)
		}
		for i, before := range states {
			if got := m.linesOf(before.registry); got != before.lines {
				t.Fatalf("seed %d: the registry after %d changes has become\n%s\nit was\n%s", seed, i, got, before.lines)
			}
		}
		e := states[len(states)-1].registry.Edit()
		for _, client := range m.clients {
			e.Remove(client)
		}
		m.clients = nil
		if got := m.linesOf(e.Registry()); got != m.lines() || e.next.hashed.Len()+e.next.names.Len()+e.next.subjects.Len()+e.next.listedNames.Len() != 0 {
			t.Fatalf("seed %d: without clients it is\n%s", seed, got)
		}
	}
}

// TestRegistryWhileItChanges: readers of a registry see nothing of the changes that make
// the next one.
func TestRegistryWhileItChanges(t *testing.T) {
	m := newModel(t)
	random := rand.New(rand.NewPCG(7, 7))
	registry := NewRegistry()
	for range 20 {
		e := registry.Edit()
		m.step(t, e, random)
		registry = e.Registry()
		want := m.lines()
		reader := &model{leaves: m.leaves}
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for range 5 {
					if got := reader.linesOf(registry); got != want {
						t.Errorf("it is\n%s\nwant\n%s", got, want)
					}
				}
			})
		}
		for range 2 { // which come to nothing
			dropped := &model{leaves: m.leaves, clients: slices.Clone(m.clients)}
			other := registry.Edit()
			for range 5 {
				dropped.step(t, other, random)
			}
			other.Registry()
		}
		readers.Wait()
	}
}

// trustDomain returns that of the client's spiffe: names, or "".
func (c *Client) trustDomain() string {
	for _, cred := range c.Credentials {
		if domain := cred.name().TrustDomain(); domain != "" {
			return domain
		}
	}
	return ""
}
