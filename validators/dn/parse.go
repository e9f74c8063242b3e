package dn

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// Parse parses a declared name: an RFC 4514 string, whose first RDN is the last
// one of the encoded name, such as CN=client,OU=production,O=company. It also
// accepts spaces around "," "+" and "=", the semicolon, quoted values and "OID." of
// RFC 2253 §4, and the attribute names and quotes ("" for a quote in quotes) of
// .NET and OpenSSL.
//
// It returns an error for a name that could never match, see [FromRaw], and for
// an empty value, which is what an unset variable leaves. The error does not
// repeat the name.
func Parse(s string) (Name, error) {
	if len(s) > maxDeclaredBytes {
		return Name{}, fmt.Errorf("it is too long: %d bytes, at most %d are allowed", len(s), maxDeclaredBytes)
	}
	if strings.Trim(s, " ") == "" {
		return Name{}, errors.New("it is empty; write a name such as CN=client,O=company, or set the variable it comes from")
	}
	if err := checkOpenSSLForm(s); err != nil {
		return Name{}, err
	}
	if name := strings.Trim(s, " "); !strings.Contains(name, "=") {
		if attribute, value, found := strings.Cut(name, ":"); found && attributeOIDs[strings.ToLower(attribute)] != nil {
			return Name{}, fmt.Errorf(`%q is not a distinguished name, because it has no "="; write %q`, syntax.Excerpt(name), attribute+"="+syntax.Excerpt(strings.Trim(value, " ")))
		}
		return Name{}, fmt.Errorf(`%q is not a distinguished name, because it has no "="; write %q if that is the common name`, syntax.Excerpt(name), "CN="+syntax.Excerpt(name))
	}
	rdns, err := parseRDNs(s)
	if err != nil {
		return Name{}, err
	}
	if size := shortestEncoding(rdns); size > maxNameBytes {
		return Name{}, fmt.Errorf("it is too long: in a certificate it has at least %d bytes, and no name of more than %d is compared", size, maxNameBytes)
	}
	return newName(rdns)
}

// Canonical returns the name whose String is text, without checking that.
func Canonical(text string) Name {
	rdns, err := parseRDNs(text)
	if err != nil {
		return Name{}
	}
	return Name{rdns: rdns, key: nameKey(rdns)}
}

// shortestEncoding returns how many bytes a name has at least in a certificate, where
// a character takes one byte in a T61String and two in a BMPString.
func shortestEncoding(rdns []rdn) (size int) {
	for _, r := range rdns {
		size += 2 // its header
		for _, a := range r {
			size += 7 + utf8.RuneCountInString(a.value) // the headers, the shortest type and the text
			for _, c := range a.value {
				if c > 0xff {
					size++
				}
			}
		}
	}
	return size
}

// parseRDNs returns the RDNs in encoded order.
func parseRDNs(s string) ([]rdn, error) {
	p := nameParser{rest: s}
	// all attributes are in one array, which the RDNs are parts of
	most := 1 + strings.Count(s, ",") + strings.Count(s, ";") + strings.Count(s, "+")
	most = min(most, maxNameAttributes+1)
	current, rdns := make(rdn, 0, most), make([]rdn, 0, most)
	for {
		a, err := p.attribute()
		if err != nil {
			return nil, err
		}
		current = append(current, a)
		separator, err := p.separator()
		if err != nil {
			return nil, err
		}
		if separator == '+' {
			continue
		}
		rdns = append(rdns, slices.Clip(current))
		current = current[len(current):]
		if separator == 0 {
			slices.Reverse(rdns)
			return rdns, nil
		}
	}
}

// nameParser consumes the text of a name from the front.
type nameParser struct {
	rest string
}

const separators = ",;+"

func (p *nameParser) skipSpaces() {
	p.rest = strings.TrimLeft(p.rest, " ")
}

// separator consumes the separator between two attributes; 0 is the end.
func (p *nameParser) separator() (byte, error) {
	p.skipSpaces()
	if p.rest == "" {
		return 0, nil
	}
	c := p.rest[0]
	if strings.IndexByte(separators, c) < 0 {
		return 0, fmt.Errorf("unexpected %q after a complete value; put a comma between them, or a backslash before a quote that belongs to the value", syntax.Excerpt(p.rest))
	}
	p.rest = p.rest[1:]
	return c, nil
}

func (p *nameParser) attribute() (attribute, error) {
	end := strings.IndexAny(p.rest, "="+separators)
	if end < 0 {
		end = len(p.rest)
	}
	name := strings.Trim(p.rest[:end], " ")
	if end == len(p.rest) || p.rest[end] != '=' {
		if name == "" {
			return attribute{}, errors.New("an attribute is missing next to a comma, semicolon or plus sign; remove the separator")
		}
		return attribute{}, fmt.Errorf(`%q is not an attribute, because it has no "="; if it belongs to the value before it, write a backslash before the separator (as in "\,") or put that value in double quotes`, syntax.Excerpt(name))
	}
	oid, err := parseAttributeType(name)
	if err != nil {
		return attribute{}, err
	}
	name = syntax.Excerpt(name)
	p.rest = p.rest[end+1:]
	p.skipSpaces()

	if strings.HasPrefix(p.rest, "#") {
		return p.hexValue(oid, name)
	}
	parse := p.plainText
	if strings.HasPrefix(p.rest, `"`) {
		parse = p.quotedText
	}
	text, err := parse()
	if err != nil {
		return attribute{}, fmt.Errorf("the value of %s %w", name, err)
	}
	return declaredAttribute(oid, name, text)
}

func declaredAttribute(oid asn1.ObjectIdentifier, name, text string) (attribute, error) {
	if strings.Trim(text, " ") == "" {
		return attribute{}, fmt.Errorf("the value of %s is empty; write one, leave the attribute out, or set the variable it comes from", name)
	}
	if !utf8.ValidString(text) {
		return attribute{}, fmt.Errorf(`the value %q of %s is not UTF-8; write each character as its UTF-8 octets, as in \C3\A4 for ä`, syntax.Excerpt(text), name)
	}
	return attribute{oid: oid, value: text}, nil
}

// plainText consumes an unquoted value (RFC 4514 §3, string). Spaces at its ends
// belong to it only if they are escaped.
func (p *nameParser) plainText() (string, error) {
	end := strings.IndexAny(p.rest, separators+`\"<>`)
	if end < 0 || strings.IndexByte(separators, p.rest[end]) >= 0 { // nothing is escaped
		if end < 0 {
			end = len(p.rest)
		}
		text := strings.TrimRight(p.rest[:end], " ")
		p.rest = p.rest[end:]
		return text, nil
	}
	var text []byte
	i, kept := 0, 0
	for i < len(p.rest) && strings.IndexByte(separators, p.rest[i]) < 0 {
		switch c := p.rest[i]; c {
		case '\\':
			octet, length, err := unescape(p.rest[i:])
			if err != nil {
				return "", err
			}
			text = append(text, octet)
			kept = len(text)
			i += length
		case '"', '<', '>':
			return "", fmt.Errorf(`has an unescaped %q; write a backslash before it, or put the whole value in double quotes`, c)
		default:
			text = append(text, c)
			if c != ' ' {
				kept = len(text)
			}
			i++
		}
	}
	p.rest = p.rest[i:]
	return string(text[:kept]), nil
}

// quotedText consumes a value in double quotes. A quote in it is \" in RFC 2253 §3
// and "" in .NET.
func (p *nameParser) quotedText() (string, error) {
	var text []byte
	for i := 1; i < len(p.rest); {
		switch c := p.rest[i]; {
		case c == '\\':
			octet, length, err := unescape(p.rest[i:])
			if err != nil {
				return "", err
			}
			text = append(text, octet)
			i += length
		case c != '"':
			text = append(text, c)
			i++
		case strings.HasPrefix(p.rest[i:], `""`):
			text = append(text, '"')
			i += 2
		default:
			p.rest = p.rest[i+1:]
			return string(text), nil
		}
	}
	return "", errors.New(`begins with a double quote that is not closed; add the closing quote, or write "\"" for a quote that belongs to the value`)
}

// unescape returns the octet that a pair of RFC 4514 §3 stands for, and the length
// of the pair.
func unescape(s string) (octet byte, length int, err error) {
	if len(s) >= 2 && strings.IndexByte(` "#+,;<=>\`, s[1]) >= 0 {
		return s[1], 2, nil
	}
	if len(s) >= 3 {
		if decoded, err := hex.DecodeString(s[1:3]); err == nil {
			return decoded[0], 3, nil
		}
	}
	return 0, 0, fmt.Errorf(`has an unnecessary backslash in %q; write "\\" for a backslash, "\," for a comma, or two hexadecimal digits for an octet`,
		syntax.Excerpt(s))
}

// hexValue consumes '#' and the BER of a value in hexadecimal digits (RFC 4514
// §2.4). A string in it is compared as a string.
func (p *nameParser) hexValue(oid asn1.ObjectIdentifier, name string) (attribute, error) {
	end := strings.IndexAny(p.rest, separators)
	if end < 0 {
		end = len(p.rest)
	}
	digits := strings.TrimRight(p.rest[1:end], " ")
	p.rest = p.rest[end:]

	const remedy = `write the text, or the DER of a string in hexadecimal digits, or "\#" if the value is to begin with that character`
	der, err := hex.DecodeString(digits)
	if err != nil {
		return attribute{}, fmt.Errorf("the value %q of %s is not hexadecimal; %s", syntax.Excerpt("#"+digits), name, remedy)
	}
	var value asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &value); err != nil || len(rest) > 0 {
		return attribute{}, fmt.Errorf("the value %q of %s is not one DER value; %s", syntax.Excerpt("#"+digits), name, remedy)
	}
	a, err := newAttribute(oid, value)
	if err != nil {
		return attribute{}, fmt.Errorf("%w; %s", err, remedy)
	}
	return declaredAttribute(oid, name, a.value)
}

// checkOpenSSLForm returns an error for the form that OpenSSL prints by default. It
// has the RDNs in encoded order, so parsing it would reverse the name.
func checkOpenSSLForm(s string) error {
	printed, labelled := cutOpenSSLLabel(strings.Trim(s, " "))
	slashes := strings.HasPrefix(printed, "/")
	if !labelled && !slashes {
		return nil
	}
	if suggestion, ok := rewriteOpenSSL(printed, slashes); ok {
		return fmt.Errorf("it is in the form that OpenSSL prints; write %q (RFC 4514)", syntax.Truncate(suggestion, maxFormattedBytes))
	}
	return errors.New(`it is in the form that OpenSSL prints; write it as in CN=client,OU=production,O=company (RFC 4514), which is what follows "subject=" in the output of "openssl x509 -noout -subject -nameopt RFC2253"`)
}

// cutOpenSSLLabel removes "subject=" and the like.
func cutOpenSSLLabel(s string) (rest string, found bool) {
	for _, label := range []string{"subject", "issuer"} {
		if len(s) < len(label) || !strings.EqualFold(s[:len(label)], label) {
			continue
		}
		rest = strings.TrimLeft(s[len(label):], " ")
		if strings.HasPrefix(rest, "=") || strings.HasPrefix(rest, ":") {
			return strings.TrimLeft(rest[1:], " "), true
		}
	}
	return s, false
}

// rewriteOpenSSL converts what OpenSSL printed into RFC 4514 text, if it can.
func rewriteOpenSSL(printed string, slashes bool) (string, bool) {
	if slashes {
		printed = slashesToCommas(printed)
	}
	rdns, err := parseRDNs(printed)
	if err != nil {
		return "", false
	}
	// Only -nameopt RFC2253 puts no space after a comma, and it already has the
	// order of RFC 4514.
	if slashes || strings.Contains(strings.ReplaceAll(printed, `\,`, ""), ", ") {
		slices.Reverse(rdns)
	}
	dn, err := newName(rdns)
	return dn.String(), err == nil
}

// slashesToCommas converts /C=US/O=x into C=US,O=x. A slash or plus sign belongs to
// a value unless an attribute type and "=" follow it.
func slashesToCommas(s string) string {
	s = strings.NewReplacer(`\/`, `\2F`, `\x`, `\`).Replace(s[1:])
	var text strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '/' && beginsAttribute(s[i+1:]):
			text.WriteByte(',')
		case c == '+' && beginsAttribute(s[i+1:]):
			text.WriteByte('+')
		case strings.IndexByte(`,+;"<>`, c) >= 0:
			text.WriteByte('\\')
			text.WriteByte(c)
		default:
			text.WriteByte(c)
		}
	}
	return text.String()
}

func beginsAttribute(s string) bool {
	name, _, found := strings.Cut(s, "=")
	_, err := parseAttributeType(strings.Trim(name, " "))
	return found && err == nil
}
