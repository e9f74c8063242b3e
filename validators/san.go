package validators

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// NameKind is a kind of subject alternative name (RFC 5280 §4.2.1.6) that a client
// can be registered by (RFC 8705 §2.1.2). A declared name matches presented names
// of its own kind only, even if others are spelled the same.
type NameKind string

// The kinds of subject alternative name.
const (
	NameDNS   NameKind = "san_dns"
	NameURI   NameKind = "san_uri"
	NameIP    NameKind = "san_ip"
	NameEmail NameKind = "san_email"
)

// Limits of subject alternative names. A URI may be as long as a SPIFFE ID; those of
// email addresses are in RFC 5321 §4.5.3.1.
const (
	maxURIBytes   = 2048
	maxHostBytes  = 253
	maxLabelBytes = 63
	maxEmailBytes = 254
	maxLocalBytes = 64
)

// Name is a subject alternative name in its canonical spelling: a declared name,
// which may have wildcards, or a presented name, which has none. It is comparable.
// The zero value matches no name.
type Name struct {
	kind NameKind
	text string
}

// Kind returns the kind of the name.
func (n Name) Kind() NameKind { return n.kind }

// String returns the canonical spelling, which is ASCII and which [ParseName] parses
// to the same name.
func (n Name) String() string { return n.text }

// TrustDomain returns the trust domain of a spiffe: URI (SPIFFE-ID §2.1), and "" for
// any other name.
func (n Name) TrustDomain() string {
	id, isSPIFFE := strings.CutPrefix(n.text, spiffePrefix)
	if n.kind != NameURI || !isSPIFFE {
		return ""
	}
	domain, _, _ := strings.Cut(id, "/")
	return domain
}

// ParseName parses a declared subject alternative name. It ignores white space
// around the name.
//
//   - A DNS name is compared regardless of case (RFC 5280 §7.2). U-labels become
//     A-labels. A leading "*." stands for one label above at least two more.
//   - A URI is compared byte for byte, except for the case of its scheme and host
//     (RFC 5280 §7.4). In the path of a URI with a host, "*" stands for one whole
//     segment and a final "**" for one or more. A spiffe: URI must be the SPIFFE
//     ID of a workload.
//   - An IP address is compared by its octets (RFC 8705 §2.1.2), so abbreviations
//     do not matter. An IPv4 address has 4 octets in a certificate (RFC 5280
//     §4.2.1.6), so its IPv6 notation is an error.
//   - The local part of an email address is case-sensitive, the domain is not (RFC
//     5280 §7.5).
//
// A name that no certificate could match is an error that includes the remedy.
func ParseName(kind NameKind, s string) (Name, error) {
	s = strings.Trim(s, " \t\r\n")
	if s == "" {
		return Name{}, errors.New("the name is empty; write one, or remove the declaration")
	}
	if len(s) > maxURIBytes {
		return Name{}, fmt.Errorf("the name has %d bytes; declare one of at most %d", len(s), maxURIBytes)
	}
	for i, r := range s {
		if r == ' ' || syntax.IsForbidden(r) {
			return Name{}, fmt.Errorf("the name has the space, control or invisible character %U at byte %d; delete it", r, i)
		}
	}
	var text string
	var err error
	switch kind {
	case NameDNS:
		text, err = parseDNS(s)
	case NameURI:
		text, err = parseURI(s)
	case NameIP:
		text, err = parseIP(s)
	case NameEmail:
		text, err = parseEmail(s)
	default:
		err = fmt.Errorf("%q is not a kind of subject alternative name; use %s, %s, %s or %s", syntax.Excerpt(string(kind)), NameDNS, NameURI, NameIP, NameEmail)
	}
	if err != nil {
		return Name{}, err
	}
	return Name{kind: kind, text: text}, nil
}

func parseDNS(s string) (string, error) {
	// A wildcard before octets would match only addresses.
	if _, err := netip.ParseAddr(strings.Replace(s, "*", "1", 1)); err == nil {
		return "", errors.New("an IP address is not a DNS name; declare each address as san_ip")
	}
	host, wildcard := strings.CutPrefix(s, "*.")
	switch {
	case strings.Contains(host, "*"):
		return "", errors.New("'*' stands for one whole label at the front, as in *.example.com; declare each name instead")
	case strings.HasPrefix(host, "."):
		return "", errors.New("the name begins with a dot; write *.example.com for every name one label above example.com")
	case strings.Contains(host, "@"):
		return "", errors.New("an email address is not a DNS name; declare it as san_email")
	case strings.ContainsAny(host, ":/"):
		return "", errors.New("the name has more than a host; write it without scheme, port and path, or declare a URI as san_uri")
	}
	host, err := parseHost(host)
	if err != nil {
		return "", err
	}
	if !wildcard {
		return host, nil
	}
	if !strings.Contains(host, ".") {
		return "", errors.New("'*.' must be above at least two labels, as in *.example.com; declare each name instead")
	}
	if host = "*." + host; len(host) > maxHostBytes {
		return "", fmt.Errorf("every name that matches has more than %d bytes, which no DNS name has; shorten it", maxHostBytes)
	}
	return host, nil
}

// parseHost parses a declared host name: the preferred name syntax of RFC 1034 §3.5,
// with underscores. It returns the name in lower case.
func parseHost(host string) (string, error) {
	if strings.HasSuffix(host, ".") {
		return "", errors.New("the name ends with a dot, which a name in a certificate does not (RFC 5280 §4.2.1.6); delete the dot")
	}
	labels := strings.Split(host, ".")
	for i, label := range labels {
		if label == "" {
			return "", errors.New("the name has an empty label; write exactly one dot between labels")
		}
		ascii, err := toALabel(label)
		if err != nil {
			return "", err
		}
		if !validLabel(ascii) {
			return "", fmt.Errorf("invalid label %q; write 1 to %d letters, digits, hyphens and underscores, without a hyphen at either end", syntax.Excerpt(label), maxLabelBytes)
		}
		labels[i] = ascii
	}
	if host = strings.Join(labels, "."); len(host) > maxHostBytes {
		return "", fmt.Errorf("the name has %d bytes; a DNS name has at most %d", len(host), maxHostBytes)
	}
	return host, nil
}

// toALabel returns a label in lower case, and a U-label as A-label (RFC 5890
// §2.3.2.1). Of the mappings that look-ups may apply (RFC 5891 §5.2, RFC 5895), it
// applies those of case and to NFC. It returns an error for a label that other
// mappings would change, because what an operator sees there is not what is
// compared.
func toALabel(label string) (string, error) {
	if syntax.IsASCII(label) {
		return strings.ToLower(label), nil
	}
	registered, err := idna.Registration.ToASCII(norm.NFC.String(strings.ToLower(label)))
	if err == nil {
		var mapped string
		if mapped, err = idna.Lookup.ToASCII(label); err == nil && mapped == registered && strings.HasPrefix(mapped, "xn--") {
			return mapped, nil
		}
	}
	return "", fmt.Errorf("label %q is not a valid internationalized label (RFC 5891 §4.2); write the label of the certificate, beginning with xn--", syntax.Excerpt(label))
}

func parseIP(s string) (string, error) {
	if strings.Contains(s, "/") {
		return "", errors.New("a client certificate cannot have a range of addresses; declare each address")
	}
	if strings.Contains(s, "*") {
		return "", errors.New("an IP address has no wildcards; declare each address")
	}
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q is not an IP address; write it like 192.0.2.1 or 2001:db8::1, without brackets, port and leading zeros", syntax.Excerpt(s))
	case addr.Zone() != "":
		return "", errors.New("the address has a zone, which a certificate cannot have; delete '%' and what follows")
	case addr.Is4In6():
		return "", fmt.Errorf("this is an IPv4 address in IPv6 notation, which in a certificate has 4 octets; write %s", addr.Unmap())
	}
	return addr.String(), nil
}

func parseEmail(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return "", errors.New("the email address has no '@'; write local-part@domain")
	}
	local := s[:at]
	switch {
	case strings.Contains(s, "*"):
		return "", errors.New("an email address has no wildcards; declare each address")
	case strings.ContainsAny(s, "<>\","):
		return "", errors.New("the value has more than a bare email address; write local-part@domain without display name, brackets and quotes")
	case !syntax.IsASCII(local):
		return "", errors.New("the local part is not ASCII, as an rfc822Name must be (RFC 5280 §4.2.1.6); register the client by another credential")
	case !validLocalPart(local):
		return "", fmt.Errorf("invalid local part %q; write 1 to %d letters, digits, dots between others, and any of !#$%%&'+/=?^_`{|}~-, without mailto: before it", syntax.Excerpt(local), maxLocalBytes)
	}
	domain, err := parseHost(s[at+1:])
	if err != nil {
		return "", fmt.Errorf("domain: %w", err)
	}
	if s = local + "@" + domain; len(s) > maxEmailBytes {
		return "", fmt.Errorf("the email address has %d bytes; at most %d are allowed", len(s), maxEmailBytes)
	}
	return s, nil
}

// validHost reports whether parseHost can return this name.
func validHost(host string) bool {
	if len(host) > maxHostBytes {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

func validLabel(label string) bool {
	if label == "" || len(label) > maxLabelBytes || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		if c := label[i]; !isDigit(c) && !('a' <= c && c <= 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// validLocalPart reports whether a local part is a Dot-string (RFC 5321 §4.1.2)
// without '*'. Nobody has a Quoted-string in their address.
func validLocalPart(local string) bool {
	if local == "" || len(local) > maxLocalBytes {
		return false
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if c := atom[i]; !isAlphanumeric(c) && strings.IndexByte("!#$%&'+/=?^_`{|}~-", c) < 0 {
				return false
			}
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlphanumeric(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
