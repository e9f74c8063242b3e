package validators

import (
	"iter"
	"slices"
	"strings"
)

// NameIndex maps the names of a certificate to the values of the declared names that
// match them. Build it with [NameIndex.Add]; then it may be used by several
// goroutines at once. The zero value is an empty index.
//
// It is a tree of declared names, split into the segments that wildcards can stand
// for. A look-up follows the edges for '*', for "**" and by its text, so its cost
// depends on the presented name and on how many declared patterns share its
// beginning, and not on how many names are declared.
type NameIndex[V any] struct {
	nodes []indexNode[V]
	edges map[indexEdge]int32
}

// indexEdge leads from a node to a child.
type indexEdge struct {
	from    int32
	segment string
}

// indexNode has the names whose segments lead from the root to it. Nodes are
// numbers; zero is the root of no kind and nobody's child, and stands for none.
type indexNode[V any] struct {
	// first is a child, next another child of the same parent.
	first, next int32

	entries []indexEntry[V]
}

type indexEntry[V any] struct {
	name  Name
	value V
}

// Add adds the value of a declared name. A name may have several values.
func (ix *NameIndex[V]) Add(n Name, v V) {
	if ix.edges == nil {
		ix.nodes = make([]indexNode[V], 1+len(nameKinds))
		ix.edges = make(map[indexEdge]int32)
	}
	at := n.root()
	for _, segment := range n.path() {
		edge := indexEdge{from: at, segment: segment}
		child, known := ix.edges[edge]
		if !known {
			child = int32(len(ix.nodes))
			ix.edges[edge] = child
			ix.nodes = append(ix.nodes, indexNode[V]{next: ix.nodes[at].first})
			ix.nodes[at].first = child
		}
		at = child
	}
	ix.nodes[at].entries = append(ix.nodes[at].entries, indexEntry[V]{name: n, value: v})
}

// Lookup yields every value whose declared name matches a presented one, after the
// presented name in its canonical spelling, which is printable ASCII without
// spaces. It yields a value once for each presented name that matches.
//
// For a declared spiffe: URI, the certificate must also be an X.509-SVID, see
// [IsSVID].
func (ix *NameIndex[V]) Lookup(presented []Name) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, n := range presented {
			if !ix.walk(n.root(), n.path(), func(e *indexEntry[V]) bool { return yield(n.text, e.value) }) {
				return
			}
		}
	}
}

// Overlapping yields every declared name, with its value, for which some presented
// name could match both it and n: the same name, and names that overlap with it
// because of wildcards.
func (ix *NameIndex[V]) Overlapping(n Name) iter.Seq2[Name, V] {
	return func(yield func(Name, V) bool) {
		ix.walk(n.root(), n.path(), func(e *indexEntry[V]) bool { return yield(e.name, e.value) })
	}
}

// nameKinds are the kinds of name, which have a root each.
var nameKinds = []NameKind{NameDNS, NameURI, NameIP, NameEmail}

// root returns the root of the names of this kind. That of the zero Name is zero.
func (n Name) root() int32 { return int32(slices.Index(nameKinds, n.kind) + 1) }

// path returns the segments that are compared one by one. In a DNS name, a wildcard
// stands for the label before the first dot.
func (n Name) path() []string {
	switch n.kind {
	case NameDNS:
		label, parent, _ := strings.Cut(n.text, ".")
		return []string{parent, label}
	case NameURI:
		return uriPath(n.text)
	}
	return []string{n.text}
}

// walk yields the entries below a node that overlap with the segments, which may be
// wildcards, and reports whether it reached the end. Only one path leads to each
// entry, so it yields each entry once.
func (ix *NameIndex[V]) walk(at int32, segments []string, yield func(*indexEntry[V]) bool) bool {
	if len(ix.nodes) == 0 {
		return true
	}
	if len(segments) == 0 {
		return ix.nodes[at].yield(yield)
	}
	if ix.nodes[at].first == 0 {
		return true
	}
	segment, below := segments[0], segments[1:]
	if segment == anyPath {
		return ix.walkAll(at, yield)
	}
	rest := ix.edges[indexEdge{at, anyPath}]
	if rest != 0 && !ix.nodes[rest].yield(yield) {
		return false
	}
	if segment == anySegment {
		for child := ix.nodes[at].first; child != 0; child = ix.nodes[child].next {
			if child != rest && !ix.walk(child, below, yield) {
				return false
			}
		}
		return true
	}
	for _, text := range []string{anySegment, segment} {
		if child := ix.edges[indexEdge{at, text}]; child != 0 && !ix.walk(child, below, yield) {
			return false
		}
	}
	return true
}

// walkAll yields every entry below a node.
func (ix *NameIndex[V]) walkAll(at int32, yield func(*indexEntry[V]) bool) bool {
	for child := ix.nodes[at].first; child != 0; child = ix.nodes[child].next {
		if !ix.nodes[child].yield(yield) || !ix.walkAll(child, yield) {
			return false
		}
	}
	return true
}

func (node *indexNode[V]) yield(yield func(*indexEntry[V]) bool) bool {
	for i := range node.entries {
		if !yield(&node.entries[i]) {
			return false
		}
	}
	return true
}
