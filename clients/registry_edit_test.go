package clients

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// ids returns the client_ids of clients, sorted.
func ids(list []*Client) string {
	var names []string
	for _, client := range list {
		names = append(names, client.ID)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// TestEditRanks_B10: a client takes what clients of lower ranks have, and nothing of
// those of its own or a higher rank.
func TestEditRanks_B10(t *testing.T) {
	ranked := func(rank int, record Record) *Client {
		client := mustClient(t, record)
		client.Origin = &Origin{rank: rank}
		return client
	}
	pinned := ranked(1, Record{ClientID: "pinned", Thumbprints: Strings{sha256Hex}})
	wild := ranked(2, Record{ClientID: "wild", SANDNS: Strings{"*.a.example"}})
	bystander := ranked(3, Record{ClientID: "bystander", Thumbprints: Strings{strings.Repeat("0a", 32)}})
	first := NewRegistry().Edit()
	for _, client := range []*Client{pinned, wild, bystander} {
		if displaced, err := first.Add(client); err != nil || displaced != nil {
			t.Fatal(displaced, err)
		}
	}
	before := first.Registry()
	for name, test := range map[string]struct {
		record Record
		// holders are those in the way, and highest is the highest of their ranks
		holders string
		highest int
	}{
		"nothing":     {Record{SANDNS: Strings{"a.b.example"}}, "", 9},
		"credential":  {Record{Thumbprints: Strings{sha256Hex}}, "pinned", 1},
		"overlapping": {Record{SANDNS: Strings{"x.a.example"}}, "wild", 2},
		"both":        {Record{Thumbprints: Strings{sha256Hex}, SANDNS: Strings{"*.a.example"}}, "pinned wild", 1},
		"client_id":   {Record{ClientID: "bystander", SANDNS: Strings{"a.b.example"}}, "bystander", 3},
	} {
		for rank := range 5 {
			client := test.record
			if client.ClientID == "" {
				client.ClientID = "new"
			}
			added := ranked(rank, client)
			e := before.Edit()
			displaced, err := e.Add(added)
			after := e.Registry()
			conflict := new(ConflictError)
			switch {
			case rank < test.highest:
				if err != nil || ids(displaced) != test.holders {
					t.Errorf("%s, rank %d: displaced %s, %v", name, rank, ids(displaced), err)
				}
				if after.Client(client.ClientID) != added || after.Len() != 4-len(displaced) {
					t.Errorf("%s, rank %d: %d clients", name, rank, after.Len())
				}
			case !errors.As(err, &conflict) || !strings.Contains(test.holders, conflict.Holder.ID) || conflict.Holder.rank > rank:
				t.Errorf("%s, rank %d: error %v", name, rank, err)
			case displaced != nil || after.Len() != 3 || after.Client("new") != nil:
				t.Errorf("%s, rank %d: changed in spite of %v", name, rank, err)
			}
		}
	}
	if before.Len() != 3 || before.Client("pinned") != pinned {
		t.Error("an edit has changed the registry that it began with")
	}
}

func TestEditRemove(t *testing.T) {
	a := mustClient(t, Record{ClientID: "a", Thumbprints: Strings{sha256Hex}})
	again := mustClient(t, Record{ClientID: "a", Thumbprints: Strings{sha256Hex}})
	first, err := newRegistry([]*Client{a})
	if err != nil {
		t.Fatal(err)
	}
	e := first.Edit()
	e.Remove(again) // a client that is not there
	if _, err := e.Add(again); err == nil {
		t.Error("a client_id is there twice")
	}
	e.Remove(a)
	if _, err := e.Add(again); err != nil {
		t.Error(err)
	}
	if second := e.Registry(); second.Client("a") != again || first.Client("a") != a || second.Len() != 1 {
		t.Error("the client is not replaced, or also in the registry before")
	}
	e = first.Edit()
	e.Remove(a)
	if none := e.Registry(); none.Len() != 0 || none.HasPins() || none.HasPKI() {
		t.Error("something is left")
	}
}

func TestFromYieldsInOrder(t *testing.T) {
	var list []*Client
	for _, id := range []string{"c", "a", "d", "b"} {
		list = append(list, mustClient(t, Record{ClientID: id, SubjectDN: Strings{"CN=" + id}}))
	}
	registry, err := newRegistry(list)
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{"": "[a b c d]", "b": "[b c d]", "bb": "[c d]", "e": "[]"} {
		got := []string{}
		for client := range registry.From(from) {
			got = append(got, client.ID)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("from %q: %v", from, got)
		}
	}
}

// TestNameDeclaredTwice: a name that a client declares twice goes with the client, and
// so does its trust domain.
func TestNameDeclaredTwice(t *testing.T) {
	twice := mustClient(t, Record{ClientID: "a", SANURI: Strings{"spiffe://a.example/x", "spiffe://a.example/x"}})
	other := mustClient(t, Record{ClientID: "b", SANURI: Strings{"spiffe://b.example/x"}})
	e := NewRegistry().Edit()
	if _, err := e.Add(twice); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Add(other); err == nil {
		t.Error("a realm has two trust domains")
	}
	e.Remove(twice)
	if _, err := e.Add(other); err != nil {
		t.Error(err)
	}
}

// TestTwoFilesOneKey_B10: two clients may have certificates with one key in files. Their
// key belongs to none that does not share it with both.
func TestTwoFilesOneKey_B10(t *testing.T) {
	one := testpki.MustSelfSigned(t)
	two := testpki.MustSelfSigned(t, testpki.Key(one.Key))
	dir := t.TempDir()
	var list []*Client
	for i, leaf := range []*testpki.Leaf{one, two} {
		file, _, err := leaf.WriteFiles(dir, fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, mustClient(t, Record{ClientID: fmt.Sprint("file", i), CertificateFiles: Strings{file}, SharedCredential: i == 0}))
	}
	registry, err := newRegistry(list)
	if err != nil {
		t.Fatal(err)
	}
	key := mustClient(t, Record{ClientID: "key", PublicKeys: Strings{sha256Text(one.Cert.RawSubjectPublicKeyInfo)}, SharedCredential: true})
	_, err = registry.Edit().Add(key)
	if conflict := new(ConflictError); !errors.As(err, &conflict) || conflict.Holder != list[1] {
		t.Errorf("error %v", err)
	}
}

// TestEditEndsInTime: not even one client holds up an Edit, and nothing changes then.
func TestEditEndsInTime(t *testing.T) {
	one := Record{ClientID: "one", SharedCredential: true}
	e := NewRegistry().Edit()
	for i := range 100 {
		one.SANURI = append(one.SANURI, "https://h.example"+strings.NewReplacer("0", "/a", "1", "/*").Replace(fmt.Sprintf("%08b", i))+"/*")
		name := Record{ClientID: fmt.Sprint("name-", i), SharedCredential: true, SANURI: Strings{fmt.Sprintf("https://h.example%s/%d", strings.Repeat("/a", 8), i)}}
		if _, err := e.Add(mustClient(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	e.EndAt(time.Now().Add(-time.Second))
	if _, err := e.Add(mustClient(t, one)); err != ErrLate || !e.Late() || e.next.Client("one") != nil || e.steps > 3*stepsPerLook {
		t.Errorf("%v after %d steps", err, e.steps)
	}
}

// newRegistry makes the registry of clients, none of which has what another one has.
func newRegistry(list []*Client) (*Registry, error) {
	e := NewRegistry().Edit()
	for _, client := range list {
		if _, err := e.Add(client); err != nil {
			return nil, err
		}
	}
	return e.Registry(), nil
}
