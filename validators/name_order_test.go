package validators

import (
	"encoding/asn1"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
)

// nameIndex is a sorted set of names, with values.
type nameIndex[V any] struct {
	names  []Name
	values map[Name][]V
	seeks  int
}

func (ix *nameIndex[V]) Add(n Name, v V) {
	if ix.values == nil {
		ix.values = make(map[Name][]V)
	}
	if at, known := slices.BinarySearchFunc(ix.names, n, Name.Compare); !known {
		ix.names = slices.Insert(ix.names, at, n)
	}
	ix.values[n] = append(ix.values[n], v)
}

func (ix *nameIndex[V]) next(from Name) (Name, bool) {
	ix.seeks++
	at, _ := slices.BinarySearchFunc(ix.names, from, Name.Compare)
	if at == len(ix.names) {
		return Name{}, false
	}
	return ix.names[at], true
}

// Overlapping yields each declared name that overlaps, as often as it was declared.
func (ix *nameIndex[V]) Overlapping(n Name) iter.Seq2[Name, V] {
	return func(yield func(Name, V) bool) {
		for declared := range n.Overlapping(ix.next) {
			for _, v := range ix.values[declared] {
				if !yield(declared, v) {
					return
				}
			}
		}
	}
}

// Lookup yields what a certificate with these names matches, after the presented name.
func (ix *nameIndex[V]) Lookup(presented []Name) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, n := range presented {
			for _, v := range ix.Overlapping(n) {
				if !yield(n.String(), v) {
					return
				}
			}
		}
	}
}

func overlapping[V any](ix *nameIndex[V], n Name) []Name {
	var found []Name
	for declared := range ix.Overlapping(n) {
		found = append(found, declared)
	}
	return found
}

func overlaps[V any](ix *nameIndex[V], n Name) bool {
	return len(overlapping(ix, n)) > 0
}

func TestOverlappingNamesAreFound_B10(t *testing.T) {
	for _, test := range []struct {
		kind NameKind
		a, b string
		want bool
	}{
		{NameDNS, "a.example.com", "A.Example.com", true},
		{NameDNS, "a.example.com", "b.example.com", false},
		{NameDNS, "*.example.com", "*.example.com", true},
		{NameDNS, "*.example.com", "a.example.com", true},
		{NameDNS, "*.example.com", "a.b.example.com", false},
		{NameDNS, "*.example.com", "example.com", false},
		{NameDNS, "*.example.com", "*.b.example.com", false},
		{NameDNS, "*.bücher.example", "a.xn--bcher-kva.example", true},
		{NameIP, "::1", "0:0::1", true},
		{NameIP, "192.0.2.1", "::c000:201", false},
		{NameEmail, "a@example.com", "a@EXAMPLE.com", true},
		{NameEmail, "a@example.com", "A@example.com", false},
		{NameURI, "urn:a:b", "urn:a:b", true},
		{NameURI, "urn:a:b", "urn:a:c", false},
		{NameURI, "spiffe://p/a/*/c", "spiffe://p/a/b/*", true},
		{NameURI, "spiffe://p/a/*/c", "spiffe://p/a/b/d", false},
		{NameURI, "spiffe://p/a/*", "spiffe://p/a/b", true},
		{NameURI, "spiffe://p/a/*", "spiffe://p/a/b/c", false},
		{NameURI, "spiffe://p/a/*", "spiffe://P/a/*", true},
		{NameURI, "spiffe://p/a/*", "spiffe://q/a/*", false},
		{NameURI, "spiffe://p/a", "https://p/a", false},
		{NameURI, "spiffe://p/*/b", "spiffe://p/a/*", true},
		{NameURI, "spiffe://p/*/b", "spiffe://p/a/*/c", false},
		{NameURI, "spiffe://p/**", "spiffe://p/a", true},
		{NameURI, "spiffe://p/**", "spiffe://p/a/b/c", true},
		{NameURI, "spiffe://p/**", "spiffe://p/a/*/c", true},
		{NameURI, "spiffe://p/**", "spiffe://p/a/**", true},
		{NameURI, "spiffe://p/a/**", "spiffe://p/a", false},
		{NameURI, "spiffe://p/a/**", "spiffe://p/b/**", false},
		{NameURI, "spiffe://p/a/**", "spiffe://p/*/b", true},
		{NameURI, "spiffe://p/a/**", "spiffe://p/*", false},
		{NameURI, "https://p/**", "https://p", false},
		{NameURI, "https://p/**", "https://p/", false},
		{NameURI, "https://p/**", "https://p/a/", false},
		{NameURI, "https://p/**", "https://p/a?b", false},
		{NameURI, "https://p/**", "https://p:1/a", false},
		{NameURI, "https://p:1/a", "https://p:1/a", true},
	} {
		a, b := mustName(t, test.kind, test.a), mustName(t, test.kind, test.b)
		for _, pair := range [][2]Name{{a, b}, {b, a}} {
			var ix nameIndex[int]
			if overlaps(&ix, pair[0]) {
				t.Errorf("%s overlaps with nothing", pair[0])
			}
			ix.Add(pair[0], 1)
			if got := overlaps(&ix, pair[1]); got != test.want {
				t.Errorf("%s and then %s: overlap %v, want %v", pair[0], pair[1], got, test.want)
			}
		}
	}
}

func TestKindsDoNotOverlap(t *testing.T) {
	var ix nameIndex[int]
	ix.Add(mustName(t, NameDNS, "12345"), 1)
	ix.Add(mustName(t, NameURI, "a.example.com:x"), 2)
	ix.Add(mustName(t, NameEmail, "a@b"), 3)
	ix.Add(Name{}, 4)
	for _, n := range []Name{mustName(t, NameIP, "::1"), mustName(t, NameURI, "a:b"), mustName(t, NameDNS, "*.a.example"), mustName(t, NameDNS, "b")} {
		if got := overlapping(&ix, n); got != nil {
			t.Errorf("%s overlaps with %v", n, got)
		}
	}
}

func TestIndexYieldsEveryValue(t *testing.T) {
	ix := indexOf(t, NameURI, "spiffe://p/a/b", "spiffe://p/a/*", "spiffe://p/*/b", "spiffe://p/*/*", "spiffe://p/a/**",
		"spiffe://p/**", "spiffe://p/a/b", "spiffe://p/a", "spiffe://p/a/b/c", "https://p/a/b")
	leaf := sanLeaf(t, san(NameURI, "spiffe://p/a/b"), san(NameURI, "spiffe://p/a"))
	const id = " spiffe://p/a/b"
	wantLookup(t, ix, leaf, "0"+id, "1"+id, "2"+id, "3"+id, "4"+id, "5 spiffe://p/a", "5"+id, "6"+id, "7 spiffe://p/a")

	for s, want := range map[string]int{"spiffe://p/**": 9, "spiffe://p/a/**": 8, "spiffe://p/*/**": 8, "spiffe://p/*/b": 7, "spiffe://p/*": 2, "https://p/**": 1} {
		if got := overlapping(ix, mustName(t, NameURI, s)); len(got) != want {
			t.Errorf("%s overlaps with %d declared names, want %d: %v", s, len(got), want, got)
		}
	}

	// A caller can stop at any point.
	p, err := NamesOf(leaf)
	if err != nil {
		t.Fatal(err)
	}
	for most := 1; most <= 9; most++ {
		n := 0
		for range ix.Lookup(p) {
			if n++; n == most {
				break
			}
		}
		if n != most {
			t.Errorf("%d values, want %d", n, most)
		}
		for _, s := range []string{"spiffe://p/**", "spiffe://p/*/**", "spiffe://p/*/b"} {
			n := 0
			for range ix.Overlapping(mustName(t, NameURI, s)) {
				if n++; n == most {
					break
				}
			}
			if n > most {
				t.Errorf("%s: %d names, want %d", s, n, most)
			}
		}
	}
}

// declareMany fills an index with names of all kinds, wildcards among them.
func declareMany(tb testing.TB, n int) *nameIndex[int] {
	tb.Helper()
	var ix nameIndex[int]
	for i := range n {
		kind, s := NameURI, ""
		switch i % 6 {
		case 0:
			s = fmt.Sprintf("spiffe://prod.example/ns/n%d/sa/s%d", i%100, i)
		case 1:
			s = fmt.Sprintf("spiffe://prod.example/ns/*/sa/w%d", i)
		case 2:
			s = fmt.Sprintf("spiffe://prod.example/team/t%d/**", i)
		case 3:
			kind, s = NameDNS, fmt.Sprintf("client%d.example.com", i)
		case 4:
			kind, s = NameDNS, fmt.Sprintf("*.zone%d.example.com", i)
		case 5:
			kind, s = NameEmail, fmt.Sprintf("m%d@example.com", i)
		}
		ix.Add(mustName(tb, kind, s), i)
	}
	return &ix
}

func TestLookupScansNothing(t *testing.T) {
	few, many := declareMany(t, 12), declareMany(t, 12_000)
	for _, n := range []Name{
		mustName(t, NameURI, "spiffe://prod.example/ns/n0/sa/s0"), mustName(t, NameURI, "spiffe://prod.example/ns/n6/sa/w1"),
		mustName(t, NameURI, "spiffe://prod.example/team/t2/a/b/c/d"), mustName(t, NameDNS, "client3.example.com"),
		mustName(t, NameDNS, "a.zone4.example.com"), mustName(t, NameURI, "spiffe://prod.example/"+strings.Repeat("a/", 63)+"a"),
	} {
		few.seeks, many.seeks = 0, 0
		overlapping(few, n)
		overlapping(many, n)
		if few.seeks != many.seeks || many.seeks > 12 {
			t.Errorf("%s: %d seeks among 12 names, %d among 12000", n, few.seeks, many.seeks)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	client := []asn1.RawValue{san(NameURI, "spiffe://prod.example/ns/n6/sa/w1"), san(NameDNS, "client3.example.com"), san(NameDNS, "a.zone4.example.com"), san(NameIP, "\x7f\x00\x00\x01")}
	stranger := slices.Repeat([]asn1.RawValue{san(NameURI, "spiffe://prod.example/ns/a/sa/b/c/d/e")}, maxSANs)
	for _, n := range []int{10, 100_000} {
		ix := declareMany(b, n)
		for _, bench := range []struct {
			name  string
			names []asn1.RawValue
			found int
		}{
			{"a client", client, 3},
			{"a stranger with 256 names", stranger, 0},
		} {
			p, err := NamesOf(sanLeaf(b, bench.names...))
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("%d declared/%s", n, bench.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					found := 0
					for range ix.Lookup(p) {
						found++
					}
					if found != bench.found {
						b.Fatalf("%d found, want %d", found, bench.found)
					}
				}
			})
		}
	}
}

func BenchmarkNamesOf(b *testing.B) {
	leaf := sanLeaf(b, san(NameURI, "spiffe://prod.example/ns/n6/sa/w1"), san(NameDNS, "client3.example.com"))
	b.ReportAllocs()
	for b.Loop() {
		if p, err := NamesOf(leaf); err != nil || len(p) != 2 {
			b.Fatal(p, err)
		}
	}
}
