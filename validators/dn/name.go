// Package dn parses, compares and prints distinguished names (RFC 5280 §4.1.2.4, RFC
// 4514).
package dn

import (
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// Limits of distinguished names: far above any real name, and low enough to bound
// the cost of a hostile one.
const (
	maxNameBytes      = 4 << 10 // DER of a presented name
	maxDeclaredBytes  = 8 << 10 // text of a declared name
	maxNameAttributes = 128
	maxFormattedBytes = 1024 // text of a name in a log
)

// errUnmatchableName means that a presented name cannot match any declared name,
// because it is malformed, empty, ambiguous, or made to look like another name.
var errUnmatchableName = errors.New("name can never match")

// Name is a distinguished name (RFC 5280 §4.1.2.4), its RDNs in encoded order. The
// zero value is the empty name.
//
// Two names are equal if they have equal RDNs in the same order. Two RDNs are equal
// if they have equal attributes in any order. Two values are equal if their text
// is, regardless of ASN.1 string type, case, and number of spaces. This is the
// distinguishedNameMatch of RFC 4517 §4.2.15 with caseIgnoreMatch (§4.2.11) for
// every value, except that characters which only look alike are not mapped to each
// other (as RFC 4518 §2.2 and §2.3 do). A name with a value that is not text
// matches none: Go parses no certificate with one.
type Name struct {
	rdns []rdn
	key  string
}

type rdn []attribute

// wideTypes are country and domain component, state, locality, and organization.
var wideTypes = [][]asn1.ObjectIdentifier{
	{{2, 5, 4, 6}, {0, 9, 2342, 19200300, 100, 1, 25}}, {{2, 5, 4, 8}}, {{2, 5, 4, 7}}, {{2, 5, 4, 10}},
}

// attribute is an attribute type, and the text of its value or, if opaque, its DER,
// which is only for printing.
type attribute struct {
	oid    asn1.ObjectIdentifier
	value  string
	opaque bool
}

// encodedAttribute is AttributeTypeAndValue of RFC 5280 §4.1.2.4.
type encodedAttribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
	// Surplus is what follows, which encoding/asn1 would ignore.
	Surplus asn1.RawValue `asn1:"optional"`
}

// encodedRDNSET is a SET OF, because encoding/asn1 looks at the suffix of its name.
type encodedRDNSET []encodedAttribute

// FromRaw parses the DER encoding of a Name (RFC 5280 §4.1.2.4), such as the
// RawSubject of a certificate. The error means that no declared name can match.
func FromRaw(raw []byte) (Name, error) {
	encoded, err := decodeName(raw)
	if err != nil {
		return Name{}, fmt.Errorf("%w: %w", errUnmatchableName, err)
	}
	rdns := make([]rdn, len(encoded))
	for i, encodedRDN := range encoded {
		rdns[i] = make(rdn, len(encodedRDN))
		for j, a := range encodedRDN {
			if rdns[i][j], err = newAttribute(a.Type, a.Value); err != nil {
				return Name{}, fmt.Errorf("%w: %w", errUnmatchableName, err)
			}
		}
	}
	dn, err := newName(rdns)
	if err != nil {
		return Name{}, fmt.Errorf("%w: %w", errUnmatchableName, err)
	}
	return dn, nil
}

// Key returns a string that is the same for two names if and only if they are equal
// (RFC 4517 §4.2.15, see [Name]). It is not printable.
func (n Name) Key() string {
	return n.key
}

// Reversed returns the name with its RDNs in reverse order: as a declared name is
// whose RDNs were written in encoded order, which RFC 4514 §2.1 reverses.
func (n Name) Reversed() Name {
	rdns := slices.Clone(n.rdns)
	slices.Reverse(rdns)
	return Name{rdns: rdns, key: nameKey(rdns)}
}

// LooksReversed reports whether the RFC 4514 text of the name begins with a wider
// attribute than it ends with, such as a country or an organization before a common
// name, as OpenSSL prints names. In most certificates it is the other way round.
func (n Name) LooksReversed() bool {
	if len(n.rdns) < 2 {
		return false
	}
	first, last := n.rdns[len(n.rdns)-1][0].oid, n.rdns[0][0].oid
	return width(first) < width(last)
}

// width returns the position of an attribute type among those that say where somebody
// belongs, from the widest; all that name somebody come last.
func width(oid asn1.ObjectIdentifier) int {
	for i, types := range wideTypes {
		if slices.ContainsFunc(types, oid.Equal) {
			return i
		}
	}
	return len(wideTypes)
}

// Without returns the RFC 4514 text of the RDNs that another name lacks.
func (n Name) Without(other Name) string {
	var rest []rdn
	for _, own := range n.rdns {
		key := nameKey([]rdn{own})
		if !slices.ContainsFunc(other.rdns, func(theirs rdn) bool { return nameKey([]rdn{theirs}) == key }) {
			rest = append(rest, own)
		}
	}
	return string(appendName(nil, rest, maxFormattedBytes))
}

// String returns the RFC 4514 text of the name, in which characters that are not
// printable are escaped. [Parse] parses it to an equal name, unless a value is
// empty or the text too long.
func (n Name) String() string {
	return string(appendName(nil, n.rdns, math.MaxInt))
}

// Format returns the RFC 4514 text of a DER-encoded Name for a log: one line of
// printable characters, at most 1024 bytes, even for a name that [FromRaw]
// refuses. Bytes that are not a Name become '#' and hexadecimal digits (RFC 4514
// §2.4).
func Format(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	encoded, err := decodeName(raw)
	if err != nil {
		return syntax.Truncate("#"+hex.EncodeToString(raw[:min(len(raw), maxFormattedBytes)]), maxFormattedBytes)
	}
	rdns := make([]rdn, len(encoded))
	for i, encodedRDN := range encoded {
		for _, a := range encodedRDN {
			formatted, err := newAttribute(a.Type, a.Value)
			if err != nil {
				formatted = attribute{oid: a.Type, value: string(a.Value.FullBytes), opaque: true}
			}
			rdns[i] = append(rdns[i], formatted)
		}
	}
	return syntax.Truncate(string(appendName(nil, rdns, maxFormattedBytes)), maxFormattedBytes)
}

func decodeName(raw []byte) ([]encodedRDNSET, error) {
	if len(raw) > maxNameBytes {
		return nil, fmt.Errorf("the name has %d bytes; at most %d are allowed", len(raw), maxNameBytes)
	}
	var encoded []encodedRDNSET
	rest, err := asn1.Unmarshal(raw, &encoded)
	if err != nil {
		return nil, fmt.Errorf("decoding the name: %w", err)
	}
	if len(rest) > 0 {
		return nil, errors.New("decoding the name: trailing bytes")
	}
	for _, encodedRDN := range encoded {
		for _, a := range encodedRDN {
			if len(a.Surplus.FullBytes) > 0 {
				return nil, errors.New("decoding the name: an attribute has more than a type and a value")
			}
		}
	}
	return encoded, nil
}

func newAttribute(oid asn1.ObjectIdentifier, value asn1.RawValue) (attribute, error) {
	text, err := decodeString(value)
	if err != nil {
		name, _ := attributeName(oid)
		return attribute{}, fmt.Errorf("the value of %s %w", syntax.Excerpt(name), err)
	}
	return attribute{oid: oid, value: text}, nil
}

// newName returns a name of RDNs in encoded order, or an error if it can never match.
func newName(rdns []rdn) (Name, error) {
	if len(rdns) == 0 {
		return Name{}, errors.New("the name is empty")
	}
	attributes := 0
	for _, r := range rdns {
		attributes += len(r)
	}
	if attributes > maxNameAttributes {
		return Name{}, fmt.Errorf("the name has %d attributes; at most %d are allowed", attributes, maxNameAttributes)
	}
	for _, r := range rdns {
		if err := r.validate(); err != nil {
			return Name{}, err
		}
	}
	return Name{rdns: rdns, key: nameKey(rdns)}, nil
}

func (r rdn) validate() error {
	if len(r) == 0 {
		return errors.New("an RDN is empty")
	}
	for i, a := range r {
		for _, earlier := range r[:i] {
			if a.oid.Equal(earlier.oid) {
				name, _ := attributeName(a.oid)
				return fmt.Errorf("one RDN has %s twice; join attributes with \"+\" only if their types differ", syntax.Excerpt(name))
			}
		}
		for _, c := range a.value {
			if syntax.IsForbidden(c) {
				name, _ := attributeName(a.oid)
				return fmt.Errorf("the value %q of %s has the control, invisible or private character %U; remove it",
					syntax.Excerpt(a.value), syntax.Excerpt(name), c)
			}
		}
	}
	return nil
}

// nameKey returns the Key of a name with these RDNs. It is unambiguous because
// everything in it follows its length or number.
func nameKey(rdns []rdn) string {
	key := make([]byte, 0, 128)
	for _, r := range rdns {
		key = binary.BigEndian.AppendUint32(key, uint32(len(r)))
		if len(r) == 1 {
			key = r[0].appendKey(key)
			continue
		}
		keys := make([]string, len(r))
		for i, a := range r {
			keys[i] = string(a.appendKey(nil))
		}
		slices.Sort(keys)
		for _, k := range keys {
			key = append(key, k...)
		}
	}
	return string(key)
}

func (a attribute) appendKey(key []byte) []byte {
	key = binary.AppendUvarint(key, uint64(len(a.oid)))
	for _, arc := range a.oid {
		key = binary.AppendUvarint(key, uint64(arc))
	}
	key = append(key, 0, 0, 0, 0)
	start := len(key)
	key = appendFolded(key, a.value)
	binary.BigEndian.PutUint32(key[start-4:], uint32(len(key)-start))
	return key
}

// appendName appends RFC 4514 text, last RDN first. It stops soon after limit, so
// that logging a hostile name is cheap.
func appendName(buf []byte, rdns []rdn, limit int) []byte {
	for i, r := range slices.Backward(rdns) {
		for j, a := range r {
			if len(buf) > limit {
				return buf
			}
			if j > 0 {
				buf = append(buf, '+')
			}
			buf = a.appendText(buf, limit)
		}
		if i > 0 {
			buf = append(buf, ',')
		}
	}
	return buf
}

func (a attribute) appendText(buf []byte, limit int) []byte {
	name, known := attributeName(a.oid)
	buf = append(append(buf, name...), '=')
	if known && !a.opaque {
		return appendEscaped(buf, a.value, limit)
	}
	der := []byte(a.value)
	if !a.opaque {
		// RFC 4514 §2.4 requires the BER of the value after a dotted OID. The string
		// type does not count, so UTF8String stands for all of them.
		der, _ = asn1.Marshal(asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: der})
	}
	return hex.AppendEncode(append(buf, '#'), der)
}

// appendEscaped appends text. It escapes what RFC 4514 §2.4 requires, and all
// characters that are not printable.
func appendEscaped(buf []byte, text string, limit int) []byte {
	for i, r := range text {
		if len(buf) > limit {
			return buf
		}
		switch {
		case strings.ContainsRune(`"+,;<>\`, r),
			r == '#' && i == 0,
			r == ' ' && (i == 0 || i == len(text)-1):
			buf = append(buf, '\\', byte(r))
		case !unicode.IsPrint(r) || syntax.IsForbidden(r):
			for _, octet := range utf8.AppendRune(nil, r) {
				buf = fmt.Appendf(buf, "\\%02X", octet)
			}
		default:
			buf = utf8.AppendRune(buf, r)
		}
	}
	return buf
}
