package dn

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// attributeTypes has, for each attribute type, the name that [Name.String] prints and
// then the other names that [Parse] accepts. The sources are RFC 4514 §3, RFC
// 4519 §2, OpenSSL's object table, GnuTLS and the keys of .NET's
// X500DistinguishedName. SN
// is the surname in all of them.
var attributeTypes = []struct{ oid, names string }{
	{"2.5.4.3", "CN commonName"},
	{"2.5.4.4", "SN surname"},
	{"2.5.4.5", "serialNumber"},
	{"2.5.4.6", "C countryName country"},
	{"2.5.4.7", "L localityName locality"},
	{"2.5.4.8", "ST S stateOrProvinceName state"},
	{"2.5.4.9", "STREET streetAddress"},
	{"2.5.4.10", "O organizationName organization"},
	{"2.5.4.11", "OU organizationalUnitName organizationalUnit"},
	{"2.5.4.12", "title T"},
	{"2.5.4.13", "description"},
	{"2.5.4.15", "businessCategory"},
	{"2.5.4.16", "postalAddress"},
	{"2.5.4.17", "postalCode"},
	{"2.5.4.18", "postOfficeBox POBox"},
	{"2.5.4.20", "telephoneNumber Phone"},
	{"2.5.4.41", "name"},
	{"2.5.4.42", "givenName GN G"},
	{"2.5.4.43", "initials I"},
	{"2.5.4.44", "generationQualifier generation"},
	{"2.5.4.45", "x500UniqueIdentifier"},
	{"2.5.4.46", "dnQualifier DNQ"},
	{"2.5.4.51", "houseIdentifier"},
	{"2.5.4.65", "pseudonym"},
	{"2.5.4.97", "organizationIdentifier"},
	{"0.9.2342.19200300.100.1.1", "UID userId"},
	{"0.9.2342.19200300.100.1.25", "DC domainComponent"},
	{"1.2.840.113549.1.9.1", "emailAddress E Email"},
	{"1.2.840.113549.1.9.2", "unstructuredName"},
	{"1.2.840.113549.1.9.8", "unstructuredAddress"},
	{"1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL jurisdictionLocalityName jurisdictionOfIncorporationLocalityName"},
	{"1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST jurisdictionStateOrProvinceName jurisdictionOfIncorporationStateOrProvinceName"},
	{"1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC jurisdictionCountryName jurisdictionOfIncorporationCountryName"},
}

var (
	attributeNames = make(map[string]string)                // dotted OID to printed name
	attributeOIDs  = make(map[string]asn1.ObjectIdentifier) // lower-case name, and printed name, to OID
	x500Names      [128]string                              // the last arc of an OID below 2.5.4 to printed name
)

func init() {
	for _, attributeType := range attributeTypes {
		oid, err := parseOID(attributeType.oid)
		if err != nil {
			panic(err)
		}
		names := strings.Fields(attributeType.names)
		attributeNames[attributeType.oid] = names[0]
		attributeOIDs[names[0]] = oid
		if isX500(oid) {
			x500Names[oid[3]] = names[0]
		}
		for _, name := range names {
			attributeOIDs[strings.ToLower(name)] = oid
		}
	}
}

// isX500 reports whether an attribute type is one of X.520, which nearly all are.
func isX500(oid asn1.ObjectIdentifier) bool {
	return len(oid) == 4 && oid[0] == 2 && oid[1] == 5 && oid[2] == 4 && oid[3] < len(x500Names)
}

// attributeName returns the name of an attribute type, or its dotted OID.
func attributeName(oid asn1.ObjectIdentifier) (name string, known bool) {
	if isX500(oid) && x500Names[oid[3]] != "" {
		return x500Names[oid[3]], true
	}
	dotted := oid.String()
	if name, known = attributeNames[dotted]; known {
		return name, true
	}
	return dotted, false
}

// parseAttributeType parses a declared attribute type: a name in any case, a dotted
// OID (RFC 4514 §3), or a dotted OID after "OID." (RFC 2253 §4).
func parseAttributeType(name string) (asn1.ObjectIdentifier, error) {
	if oid, known := attributeOIDs[name]; known {
		return oid, nil
	}
	// strings.ToLower turns 'İ' into 'i'.
	if oid, known := attributeOIDs[strings.ToLower(name)]; known && syntax.IsASCII(name) {
		return oid, nil
	}
	dotted := name
	if len(dotted) > 4 && strings.EqualFold(dotted[:4], "OID.") {
		dotted = dotted[4:]
	}
	if dotted != "" && '0' <= dotted[0] && dotted[0] <= '9' {
		return parseOID(dotted)
	}
	return nil, fmt.Errorf("unknown attribute %q; write its dotted OID instead, as in 2.5.4.3=value for CN", syntax.Excerpt(name))
}

func parseOID(dotted string) (asn1.ObjectIdentifier, error) {
	arcs := strings.Split(dotted, ".")
	oid := make(asn1.ObjectIdentifier, 0, len(arcs))
	for _, arc := range arcs {
		number, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || (len(arc) > 1 && arc[0] == '0') {
			return nil, fmt.Errorf("%q is not an object identifier; write numbers separated by dots, as in 2.5.4.3", syntax.Excerpt(dotted))
		}
		oid = append(oid, int(number))
	}
	if len(oid) < 2 || oid[0] > 2 || (oid[0] < 2 && oid[1] > 39) {
		return nil, fmt.Errorf("%q is not an object identifier; the first number is 0, 1 or 2 and the second at most 39 after 0 or 1", syntax.Excerpt(dotted))
	}
	return oid, nil
}

// tagVisibleString is the tag of VisibleString, which encoding/asn1 does not name.
const tagVisibleString = 26

var (
	errNotText       = errors.New("is not text, as it is in every certificate that can be read")
	errInvalidString = errors.New("is not a valid encoding of its string type")
)

// decodeString returns the text of an attribute value.
func decodeString(value asn1.RawValue) (text string, err error) {
	if value.Class != asn1.ClassUniversal {
		return "", errNotText
	}
	valid := true
	switch value.Tag {
	case asn1.TagUTF8String:
		text, valid = string(value.Bytes), utf8.Valid(value.Bytes)
	case asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString, tagVisibleString:
		// A PrintableString with '@' or '_' is a common mistake of CAs, and still
		// unambiguous.
		text = string(value.Bytes)
		valid = syntax.IsASCII(text)
	case asn1.TagT61String:
		text = decodeLatin1(value.Bytes)
	case asn1.TagBMPString:
		text, valid = decodeBMP(value.Bytes)
	default:
		return "", errNotText
	}
	if !valid || value.IsCompound {
		return "", errInvalidString
	}
	return text, nil
}

// decodeLatin1 decodes a TeletexString as Latin-1, as CAs write it.
func decodeLatin1(octets []byte) string {
	var text strings.Builder
	for _, octet := range octets {
		text.WriteRune(rune(octet))
	}
	return text.String()
}

// decodeBMP decodes UCS-2, which has no surrogates.
func decodeBMP(octets []byte) (text string, valid bool) {
	if len(octets)%2 != 0 {
		return "", false
	}
	var builder strings.Builder
	for i := 0; i < len(octets); i += 2 {
		r := rune(octets[i])<<8 | rune(octets[i+1])
		if !utf8.ValidRune(r) {
			return "", false
		}
		builder.WriteRune(r)
	}
	return builder.String(), true
}

// appendFolded appends the form in which values are compared: letters without case,
// runs of spaces as one, and no spaces at the ends (RFC 4518 §2.6.1).
func appendFolded(buf []byte, text string) []byte {
	if !syntax.IsASCII(text) {
		// Folding between NFD and NFC treats a letter with an accent the same
		// whether or not Unicode has one character for it (J + caron, ǰ).
		text = norm.NFC.String(strings.Map(foldRune, norm.NFD.String(text)))
	}
	start, space := len(buf), false
	for i := range len(text) {
		c := text[i]
		if c == ' ' {
			space = true
			continue
		}
		if space && len(buf) > start {
			buf = append(buf, ' ')
		}
		space = false
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf = append(buf, c)
	}
	return buf
}

// foldRune returns one representative for all cases of a letter. It does not change
// compatibility characters, or 'ſ' would be 's', nor marks, or the letter iota
// would become a mark (U+0345) and merge with the letter before it.
func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		return unicode.ToLower(r)
	}
	next := unicode.SimpleFold(r)
	if next == r || !foldable(r) {
		return r
	}
	smallest := r
	for ; next != r; next = unicode.SimpleFold(next) {
		if next < smallest && foldable(next) {
			smallest = next
		}
	}
	return smallest
}

func foldable(r rune) bool {
	return !unicode.IsMark(r) && norm.NFKD.IsNormalString(string(r))
}
