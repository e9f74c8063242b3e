package forwarded

import (
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// What can be wrong with the value of a proxy, and what to do about it.
const (
	remedyNoWord      = "this is no certificate; have the proxy send the header empty, or leave it out, if its client has none"
	remedyUnset       = "Apache writes (null) for a variable that is not set; use RequestHeader set with \"expr=%{escape:%{SSL_CLIENT_CERT}}\" and format nginx"
	remedyVariable    = "the proxy sent the name of a variable, not its value; check how it is spelled, and that the connection to the proxy is TLS"
	remedyBrokenLines = "the line breaks of the PEM are lost; URL-encode it: $ssl_client_escaped_cert in nginx, \"expr=%{escape:%{SSL_CLIENT_CERT}}\" in Apache, both with format nginx"
	remedyBackslash   = "the line breaks of the PEM are written as \\n; URL-encode it, with format nginx, or send DER in base64, with format haproxy"
	remedyForm        = "the spaces of the PEM are written as +, as in a form; have the proxy write %20"
	remedyTwice       = "the value is URL-encoded twice; have the proxy encode it once"
	remedyBase64PEM   = "this is PEM in base64; have the proxy encode the DER of the certificate, or send URL-encoded PEM with format nginx"
	remedyBase64URL   = "this is base64url; have the proxy use the standard alphabet, with + and /"
	remedyHex         = "this is DER in hex; have the proxy encode it in base64"
	remedyWrapped     = "the base64 is broken into lines; have the proxy send it in one piece"
	remedyEscaped64   = "the base64 is URL-encoded; have the proxy send it as it is, or use format traefik, which reads both"
	remedyFingerprint = "this is a fingerprint; have the proxy send the certificate itself"
	remedyResult      = "this is the result of a verification; have the proxy send the certificate itself"
	remedyName        = "this is a name, which anyone can have; have the proxy send the certificate itself"
)

// notCertificates are values that proxies send in place of a certificate, in lower
// case.
var notCertificates = map[string]string{
	"(null)": remedyUnset, `""`: remedyNoWord, "''": remedyNoWord, "-": remedyNoWord, "none": remedyNoWord, "null": remedyNoWord, "nil": remedyNoWord,
	"undefined": remedyNoWord, "unknown": remedyNoWord, "no": remedyNoWord, "false": remedyNoWord, "0": remedyNoWord, "n/a": remedyNoWord,
	"<nil>": remedyNoWord, "[]": remedyNoWord, "success": remedyResult, "generous": remedyResult,
}

// remedy says what a value looks like that cannot be read in this format, and what
// to do about it. It is "" if the value has the form of this format, or of none that
// is known. It looks at little more than the beginning.
func (f *Format) remedy(value string) string {
	start := strings.ToLower(syntax.FirstBytes(value, 64))
	if remedy, known := notCertificates[start]; known {
		return remedy
	}
	bare := strings.TrimLeft(value, `:"`)
	switch {
	case hasAnyPrefix(bare, "{", "${", "%{", "%[", "$ssl_", "$client"):
		return remedyVariable
	case isHash(value):
		return remedyFingerprint
	case hasAnyPrefix(start, "3082", "3081"): // whose base64 begins with MI
		return remedyHex
	case hasAnyPrefix(start, "failed:"):
		return remedyResult
	case hasAnyPrefix(start, "cn=", "o=", "c=", "/c=", "/o=", "/cn="):
		return remedyName
	case strings.HasPrefix(bare, "LS0tLS1CRUdJTi"): // -----BEGIN
		return remedyBase64PEM
	case strings.HasPrefix(bare, "-----BEGIN "):
		return f.remedyPEM(bare)
	case hasAnyPrefix(start, "-----begin%25", "%252d%252d"):
		return remedyTwice
	case strings.HasPrefix(start, "-----begin+"):
		return remedyForm
	case hasAnyPrefix(start, "-----begin%20", "%2d%2d%2d%2d%2dbegin"):
		return f.use("URL-encoded PEM", formatNginx, formatAWSALB)
	case strings.HasPrefix(bare, "MI"): // the DER of any certificate
		return f.remedyBase64(value, bare)
	case hasAnyPrefix(start, "by=", "hash=", "cert=", "chain=", "subject="):
		return f.use("a list of keys and values", formatEnvoy)
	}
	return ""
}

// remedyPEM is remedy for PEM whose first line is not URL-encoded.
func (f *Format) remedyPEM(value string) string {
	body, _, _ := strings.Cut(strings.TrimPrefix(value, pemCertificateBegin), pemCertificateEnd)
	switch {
	case strings.Contains(body, `\n`):
		return remedyBackslash
	case strings.ContainsAny(body, " \t"):
		return remedyBrokenLines
	}
	return f.use("URL-encoded PEM", formatNginx, formatAWSALB)
}

// remedyBase64 is remedy for base64. bare is the value without the delimiters in
// front.
func (f *Format) remedyBase64(value, bare string) string {
	switch {
	case strings.HasPrefix(value, ":"):
		return f.use("base64 between colons", formatRFC9440)
	case strings.ContainsAny(bare, "-_"):
		return remedyBase64URL
	case strings.ContainsAny(bare, " \t"):
		return remedyWrapped
	case strings.Contains(bare, ","):
		return f.use("certificates joined by commas", formatTraefik)
	case strings.Contains(bare, "%"):
		if f == formatTraefik {
			return ""
		}
		return remedyEscaped64
	case f == formatTraefik: // whose list of one looks the same
		return ""
	}
	return f.use("one certificate in base64", formatHAProxy)
}

// use says which format to use for a value that looks like this, unless it is this
// one.
func (f *Format) use(looksLike string, formats ...*Format) string {
	if slices.Contains(formats, f) {
		return ""
	}
	return "this looks like " + looksLike + "; use format " + formats[0].Name
}

// isHash reports whether the value is as long as a SHA-1 or SHA-256 hash in hex, with
// or without colons.
func isHash(value string) bool {
	digits := 0
	for _, c := range []byte(syntax.FirstBytes(value, 128)) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
			digits++
		case c != ':':
			return false
		}
	}
	return digits == 40 || digits == 64
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(s, prefix) })
}
