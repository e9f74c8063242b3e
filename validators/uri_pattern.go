package validators

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

const (
	spiffePrefix = "spiffe://"
	// maxTrustDomain is the limit of SPIFFE-ID §2.3.
	maxTrustDomain = 255
	// maxPathSegments bounds the paths that wildcards are compared with.
	maxPathSegments = 64

	// anySegment stands for one path segment of a URI, or one label of a DNS name.
	anySegment = "*"
	// anyPath stands for one or more path segments, at the end.
	anyPath = "**"
)

// parseURI parses a declared URI.
func parseURI(s string) (string, error) {
	if !syntax.IsASCII(s) {
		return "", errors.New("the URI is not ASCII, as it must be in a certificate (RFC 5280 §7.4); write the labels of its host as xn--… and percent-encode the rest")
	}
	for i := range len(s) {
		if !isURICharacter(s[i]) {
			return "", fmt.Errorf("the URI has the character %q, which no URI has (RFC 3986 §2)", s[i])
		}
	}
	text, root, ok := canonicalURI(s)
	if !ok {
		return "", errors.New("the URI has no scheme; write an absolute one, as in spiffe://example.com/billing or urn:example:billing (RFC 5280 §4.2.1.6)")
	}
	// Go does not accept a URI in a certificate that it cannot parse.
	parsed, err := url.Parse(text)
	if err != nil {
		if syntax := (*url.Error)(nil); errors.As(err, &syntax) {
			err = syntax.Err
		}
		return "", fmt.Errorf("invalid URI: %w", err)
	}
	host := parsed.Hostname()
	switch {
	case parsed.Opaque == "" && parsed.Path == "" && root == 0:
		return "", errors.New("the URI has nothing after its scheme; write it in full")
	case root > 0 && host == "":
		return "", errors.New("the URI has no host after '//' (RFC 5280 §4.2.1.6); write it in full")
	case strings.HasPrefix(host, "."), strings.HasSuffix(host, "."), strings.Contains(host, ".."):
		return "", fmt.Errorf("host %q has an empty label, which a certificate cannot have; write exactly one dot between labels, and none at the end", syntax.Excerpt(host))
	case strings.Contains(text, "*"):
		err = checkPattern(text, root)
	}
	if err == nil && parsed.Scheme == "spiffe" {
		err = checkSPIFFE(text, true)
	}
	return text, err
}

// checkPattern returns an error for a '*' without meaning, and for a pattern that
// can never match.
func checkPattern(text string, root int) error {
	if root == 0 {
		return errors.New("'*' stands for a segment of the path after a host, and this URI has no host; declare each URI instead")
	}
	if strings.Contains(text[:root], "*") {
		return errors.New("'*' stands for a segment of the path, never for a host or part of it; declare each host instead")
	}
	if strings.ContainsAny(text, "?#%") || hasMoreThanHost(text[:root]) {
		return errors.New("a URI with user information, port, query, fragment or '%' matches no wildcard; declare each URI instead, or write the wildcard without them")
	}
	segments := strings.Split(text[root:], "/")[1:]
	if len(segments) > maxPathSegments {
		return fmt.Errorf("the path has %d segments; with a wildcard at most %d are allowed", len(segments), maxPathSegments)
	}
	for i, segment := range segments {
		switch {
		case segment == "", segment == ".", segment == "..":
			return errors.New("a URI with an empty, '.' or '..' segment, or with '/' at its end, matches no wildcard; write the path without it")
		case segment == anyPath && i < len(segments)-1:
			return errors.New("'**' stands for the rest of the path and can only be its end; write '*' for each segment before the last")
		case segment != anySegment && segment != anyPath && strings.Contains(segment, "*"):
			return fmt.Errorf("segment %q: '*' stands for a whole segment; declare each URI instead, or write '*' alone between slashes", syntax.Excerpt(segment))
		}
	}
	return nil
}

// checkSPIFFE returns an error if text is not the SPIFFE ID of a workload (SPIFFE-ID
// §2, X509-SVID §3.1). Whole segments of a declared one may be wildcards.
func checkSPIFFE(text string, declared bool) error {
	id, found := strings.CutPrefix(text, spiffePrefix)
	if !found {
		return errors.New("a SPIFFE ID begins with spiffe:// in lower case")
	}
	if len(text) > maxURIBytes {
		return fmt.Errorf("the SPIFFE ID has %d bytes; at most %d are allowed", len(text), maxURIBytes)
	}
	domain, path, _ := strings.Cut(id, "/")
	if domain == "" || len(domain) > maxTrustDomain || strings.ContainsFunc(domain, func(r rune) bool { return !isTrustDomainRune(r) }) {
		return fmt.Errorf("invalid trust domain %q; use 1 to %d of the characters a-z 0-9 . - _, and no port", syntax.FirstBytes(domain, 64), maxTrustDomain)
	}
	if path == "" {
		return errors.New("the SPIFFE ID has no path, so it belongs to a trust domain; use that of a workload, as in spiffe://example.com/billing")
	}
	for segment := range strings.SplitSeq(path, "/") {
		switch {
		case declared && (segment == anySegment || segment == anyPath):
		case segment == "", segment == ".", segment == "..":
			return errors.New("the SPIFFE ID has an empty, '.' or '..' segment, or '/' at its end; use one without")
		case strings.ContainsFunc(segment, func(r rune) bool { return !isTrustDomainRune(r) && !('A' <= r && r <= 'Z') }):
			return fmt.Errorf("invalid segment %q; in a SPIFFE ID it has only the characters a-z A-Z 0-9 . - _", syntax.FirstBytes(segment, 64))
		}
	}
	return nil
}

// canonicalURI returns an absolute URI with its scheme and host in lower case (RFC
// 3986 §6.2.2.1), and the length of "scheme://authority", which is zero for a URI
// without authority.
func canonicalURI(s string) (text string, root int, ok bool) {
	colon := strings.IndexByte(s, ':')
	if colon < 1 || !isAlphanumeric(s[0]) || isDigit(s[0]) {
		return "", 0, false
	}
	for i := range colon {
		if c := s[i]; !isAlphanumeric(c) && c != '+' && c != '-' && c != '.' {
			return "", 0, false
		}
	}
	scheme, rest := strings.ToLower(s[:colon+1]), s[colon+1:]
	if !strings.HasPrefix(rest, "//") {
		return scheme + rest, 0, true
	}
	root = len(rest)
	if end := strings.IndexAny(rest[2:], "/?#"); end >= 0 {
		root = 2 + end
	}
	host := strings.LastIndexByte(rest[:root], '@') + 1
	return scheme + rest[:host] + strings.ToLower(rest[host:root]) + rest[root:], len(scheme) + root, true
}

// uriPath returns the parts of a canonical URI that an index compares one by one:
// "scheme://host" and the segments of the path. A URI that matches no wildcard is
// one part.
func uriPath(text string) []string {
	_, root, _ := canonicalURI(text)
	path := text[root:]
	if root == 0 || hasMoreThanHost(text[:root]) || strings.ContainsAny(text, "?#%") || strings.Count(path, "/") > maxPathSegments {
		return []string{text}
	}
	segments := strings.Split(path, "/")
	for _, segment := range segments[1:] {
		if segment == "" || segment == "." || segment == ".." {
			return []string{text}
		}
	}
	segments[0] = text[:root]
	return segments
}

// hasMoreThanHost reports whether "scheme://authority" has no host, or has user
// information or a port, even an empty one.
func hasMoreThanHost(root string) bool {
	_, authority, _ := strings.Cut(root, "://")
	if strings.HasPrefix(authority, "[") {
		return strings.IndexByte(authority, ']') != len(authority)-1 || strings.Contains(authority, "@")
	}
	return authority == "" || strings.ContainsAny(authority, "@:")
}

// isURICharacter reports whether RFC 3986 §2 allows a character.
func isURICharacter(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("-._~:/?#[]@!$&'()*+,;=%", c) >= 0
}

// isTrustDomainRune reports whether a trust domain may have a character.
func isTrustDomainRune(r rune) bool {
	return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '.' || r == '-' || r == '_'
}
