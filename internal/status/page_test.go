package status

import (
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/sightings"
)

// manyClients returns the registry of that many clients, client-0000000 and so on.
func manyClients(t testing.TB, count int) *clients.Registry {
	t.Helper()
	records := make([]clients.Record, count)
	for i := range records {
		records[i] = clients.Record{
			ClientID: fmt.Sprintf("client-%07d", i), ClientName: fmt.Sprintf("Nr %d", i), SubjectDN: clients.Strings{fmt.Sprintf("CN=client %d", i)},
		}
	}
	d, err := directory.New(t.Context(), directory.Config{Records: records})
	if err != nil {
		t.Fatal(err)
	}
	return d.Registry()
}

// counted counts what is taken of a sequence.
func counted(all iter.Seq[*clients.Client], count *int) iter.Seq[*clients.Client] {
	return func(yield func(*clients.Client) bool) {
		for client := range all {
			if *count++; !yield(client) {
				return
			}
		}
	}
}

// TestPagesAreBounded checks that a page looks at a bounded number of clients whatever it
// is asked for, and that the pages together have every client once.
func TestPagesAreBounded(t *testing.T) {
	const total = 25_000
	registry, seen := manyClients(t, total), sightings.NewTable()
	for i := range total {
		if i%5000 != 0 {
			seen.Mark(fmt.Sprintf("client-%07d", i), sightings.Credential{Kind: "subject"}).See(int64(60 * i))
		}
	}
	for name, c := range map[string]struct {
		q           Query
		want, pages int
	}{
		"all":             {Query{Limit: 1000}, total, 25},
		"more than given": {Query{Limit: 1 << 40}, total, 25},
		"the default":     {Query{}, total, 500},
		"never":           {Query{Never: true}, 5, 3},
		"by ID":           {Query{Text: "T-00049"}, 100, 4},
		"by name":         {Query{Text: "nr 2499"}, 11, 3},
		"nobody":          {Query{Text: "nobody", Never: true}, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			found, pages, last := 0, 0, ""
			for q := c.q; ; pages++ {
				visited := 0
				list, next := q.List(counted(registry.From(q.After), &visited), seen)
				if visited > maxVisited+2 || len(list) > MaxClients || list == nil { // the one before, and the one after
					t.Fatalf("%d were looked at for a page of %d", visited, len(list))
				}
				for _, client := range list {
					if client.ClientID <= last {
						t.Fatalf("%s comes after %s", client.ClientID, last)
					}
					last = client.ClientID
				}
				found += len(list)
				if q.After = next; next == "" {
					pages++
					break
				}
			}
			if found != c.want || pages != c.pages {
				t.Errorf("%d clients on %d pages, want %d on %d", found, pages, c.want, c.pages)
			}
		})
	}
}

// TestListedClients checks what is said about a client that has been seen, and about one
// that has not.
func TestListedClients(t *testing.T) {
	registry, seen := manyClients(t, 2), sightings.NewTable()
	notAfter := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	seen.Mark("client-0000001", sightings.Credential{Kind: "subject", Matched: "CN=client 1", Thumbprint: [32]byte{0xab}, NotAfter: notAfter}).See(125)
	list, next := Query{}.List(registry.From(""), seen)
	want := []Client{
		{ClientID: "client-0000000", Name: "Nr 0", Source: "config"},
		{
			ClientID: "client-0000001", Name: "Nr 1", Source: "config", LastSeen: time.Unix(120, 0).UTC(), Credential: "subject",
			Matched: "CN=client 1", Thumbprint: "ab" + strings.Repeat("00", 31), NotAfter: notAfter,
		},
	}
	if len(list) != 2 || list[0] != want[0] || list[1] != want[1] || next != "" {
		t.Errorf("got %+v %q, want %+v", list, next, want)
	}
}

// BenchmarkList measures a page of a million clients: the first one, and one for which as
// many clients are looked at as for any.
func BenchmarkList(b *testing.B) {
	registry, seen := manyClients(b, 1_000_000), sightings.NewTable()
	for client := range registry.All() {
		seen.Mark(client.ID, sightings.Credential{Kind: "subject"}).See(60)
	}
	for name, q := range map[string]Query{"first": {}, "never": {Never: true}, "search": {Text: "nobody"}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				q.List(registry.From(""), seen)
			}
		})
	}
}
