package validators

import (
	"cmp"
	"iter"
	"strings"
)

// The octets that end a text that a walk seeks: afterName is before all that can
// follow a name, and afterSegment is after all that can follow a segment. No name has
// them.
const (
	afterName    = "\x00"
	afterSegment = "\x03"
)

// CanonicalName returns the name whose String is text, without checking that.
func CanonicalName(kind NameKind, text string) Name { return Name{kind: kind, text: text} }

// Compare orders names, so that [Name.Overlapping] finds those that a wildcard can
// stand for next to each other: DNS names by what follows their first label, URIs by
// the segments of their path.
func (n Name) Compare(other Name) int {
	if n.kind != other.kind {
		return strings.Compare(string(n.kind), string(other.kind))
	}
	switch n.kind {
	case NameDNS:
		label, parent, _ := strings.Cut(n.text, ".")
		otherLabel, otherParent, _ := strings.Cut(other.text, ".")
		return cmp.Or(strings.Compare(parent, otherParent), strings.Compare(label, otherLabel))
	case NameURI:
		return compareURIs(n.text, other.text)
	}
	return strings.Compare(n.text, other.text)
}

func compareURIs(a, b string) int {
	const step = 16 // which most of two URIs have in common
	for len(a) >= step && len(b) >= step && a[:step] == b[:step] {
		a, b = a[step:], b[step:]
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return cmp.Compare(uriRank(a[i]), uriRank(b[i]))
		}
	}
	return cmp.Compare(len(a), len(b))
}

// uriRank places the end of a segment before all that can continue it, and wildcards
// before other segments.
func uriRank(c byte) byte {
	switch c {
	case '/':
		return 1
	case '*':
		return 2
	}
	return c
}

// Overlapping yields every name of a sorted set for which some presented name could
// match both it and n: the same name, and names that overlap with it because of
// wildcards. For a presented name, these are the declared names that match it. next
// returns the first name of the set that is not before the given one (see
// [Name.Compare]).
//
// The number of its calls depends on n and on how many patterns share its beginning,
// and not on the size of the set. Only a wildcard in n is compared with all names that
// it could stand for.
//
// For a declared spiffe: URI, the certificate must also be an X.509-SVID, see [IsSVID].
func (n Name) Overlapping(next func(Name) (Name, bool)) iter.Seq[Name] {
	return func(yield func(Name) bool) {
		w := nameWalk{kind: n.kind, text: n.text, next: next, yield: yield}
		switch n.kind {
		case NameDNS:
			w.dns(n.text)
		case NameURI:
			if path := uriPath(n.text); len(path) > 1 {
				w.below(path[0], path[1:])
				return
			}
			w.exact(n.text)
		default:
			w.exact(n.text)
		}
	}
}

// nameWalk walks through the sorted names of one kind. Its methods report whether it is
// to go on.
type nameWalk struct {
	kind  NameKind
	text  string // of the name whose overlaps are sought
	next  func(Name) (Name, bool)
	yield func(Name) bool
}

// from returns the first name of the set that is not before text.
func (w nameWalk) from(text string) (string, bool) {
	found, ok := w.next(Name{w.kind, text})
	return found.text, ok && found.kind == w.kind
}

// exact yields the name itself, if it is in the set.
func (w nameWalk) exact(text string) bool {
	found, ok := w.from(text)
	return !ok || found != text || w.yield(Name{w.kind, text})
}

func (w nameWalk) dns(text string) bool {
	label, parent, hasParent := strings.Cut(text, ".")
	if label != anySegment {
		return (!hasParent || w.exact(anySegment+"."+parent)) && w.exact(text)
	}
	for from := "." + parent; ; {
		found, ok := w.from(from)
		child, itsParent, _ := strings.Cut(found, ".")
		if !ok || itsParent != parent {
			return true
		}
		if !w.yield(Name{w.kind, found}) {
			return false
		}
		from = child + afterName + "." + parent
	}
}

// below yields the URIs that overlap with the one that begins with path and goes on
// with segments. path is that of the names to yield, in which a wildcard may stand in
// place of a segment.
func (w nameWalk) below(path string, segments []string) bool {
	if len(segments) == 0 {
		return w.exact(path)
	}
	least, ok := w.from(path + "/" + anySegment)
	if !ok || !isBelow(least, path) {
		return true
	}
	switch segment, rest := segments[0], segments[1:]; segment {
	case anyPath:
		return w.all(path)
	case anySegment:
		return w.exact(path+"/"+anyPath) && w.children(path, rest)
	default:
		if strings.HasPrefix(least[len(path)+1:], anySegment) && !(w.exact(path+"/"+anyPath) && w.below(path+"/"+anySegment, rest)) {
			return false
		}
		return w.below(w.child(path, segment), rest)
	}
}

// child returns the path with another segment, as a part of the sought text if it is one.
func (w nameWalk) child(path, segment string) string {
	if end := len(path) + 1 + len(segment); len(w.text) >= end && w.text[:len(path)] == path {
		return w.text[:end]
	}
	return path + "/" + segment
}

// isBelow reports whether a text begins with a path and a slash.
func isBelow(text, path string) bool {
	return len(text) > len(path) && text[len(path)] == '/' && strings.HasPrefix(text, path)
}

// children goes on with every segment that follows path.
func (w nameWalk) children(path string, rest []string) bool {
	for from := path + "/" + anySegment; ; {
		found, ok := w.from(from)
		if !ok || !isBelow(found, path) {
			return true
		}
		segment, _, _ := strings.Cut(found[len(path)+1:], "/")
		child := path + "/" + segment
		if segment != anyPath && len(uriPath(child)) > 1 && !w.below(child, rest) {
			return false
		}
		from = child + afterSegment
	}
}

// all yields every name below path that a wildcard can match.
func (w nameWalk) all(path string) bool {
	for from := path + "/" + anySegment; ; {
		found, ok := w.from(from)
		if !ok || !isBelow(found, path) {
			return true
		}
		if len(uriPath(found)) > 1 && !w.yield(Name{w.kind, found}) {
			return false
		}
		from = found + afterName
	}
}
