package forwarded

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// maxXFCCElements is how many proxies a value may have passed.
const maxXFCCElements = 16

// The tags of a GeneralName that is text (RFC 5280 §4.2.1.6).
const (
	rfc822Name                = 1
	dNSName                   = 2
	uniformResourceIdentifier = 6
)

// xfccElement is what one proxy has added about its client.
type xfccElement struct {
	cert, chain, hash *string
	// named is set when there are values that may contain a name of the
	// certificate without quotes.
	named bool
}

// parseXFCC parses x-forwarded-client-cert as described in Envoy's "HTTP header
// manipulation": elements separated by commas; in an element, pairs separated by
// semicolons; in a pair, a key in any case, an equals sign, and a value that may be
// in double quotes.
//
// A proxy appends its element to what its client sent, so only the last element is
// the proxy's own. It must have Cert. A Chain must begin with the same certificate,
// and a Hash must be its SHA-256.
//
// Contrary to its manual, Envoy does not quote the names in URI and DNS. A
// certificate with a comma in a name can therefore add an element after the
// proxy's, and name someone else in it. The proxy's element, with the certificate
// that does so, is then one of the others, so every element with names is checked
// against its certificate.
func parseXFCC(value string, _ []string) ([]*x509.Certificate, error) {
	elements, err := splitXFCC(value)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for i, element := range elements {
		if certs, err = element.certificates(); err == nil && len(certs) == 0 && i == len(elements)-1 {
			err = errors.New("it has no Cert; set cert in set_current_client_cert_details of the proxy")
		}
		if err != nil {
			return nil, fmt.Errorf("element %d of %d: %w", i+1, len(elements), err)
		}
	}
	return certs, nil
}

// certificates returns the client's certificate and those above it, or none for an
// element without a certificate and names.
func (e *xfccElement) certificates() ([]*x509.Certificate, error) {
	if e.cert == nil {
		if e.named || e.chain != nil {
			return nil, errors.New("it describes a certificate but has no Cert, so names in the certificate could add elements to the header; set forward_client_cert_details to SANITIZE_SET, and cert in set_current_client_cert_details")
		}
		return nil, nil
	}
	certs, err := parseEscapedPEM(*e.cert, 1)
	if err != nil {
		return nil, fmt.Errorf("in Cert: %w", err)
	}
	leaf := certs[0]
	if e.hash != nil {
		sum := sha256.Sum256(leaf.Raw)
		if !strings.EqualFold(*e.hash, hex.EncodeToString(sum[:])) {
			return nil, fmt.Errorf("its Hash %q is not the SHA-256 of the certificate in Cert", syntax.FirstBytes(*e.hash, 16))
		}
	}
	if e.chain != nil {
		if certs, err = parseEscapedPEM(*e.chain, 1+validators.MaxIntermediates); err != nil {
			return nil, fmt.Errorf("in Chain: %w", err)
		}
		if !certs[0].Equal(leaf) {
			return nil, errors.New("its Chain does not begin with the certificate in Cert")
		}
	}
	if e.named {
		return certs, checkSeparators(leaf)
	}
	return certs, nil
}

// checkSeparators returns an error if a subject alternative name that is text has a
// separator of the header in it. It looks at the octets of the names, because
// those of a parsed certificate are decoded further.
func checkSeparators(cert *x509.Certificate) error {
	names, err := validators.GeneralNames(cert)
	for _, name := range names {
		if isText(name.Tag) && bytes.ContainsAny(name.Bytes, `,;"`) {
			return errors.New("its certificate has a subject alternative name with a comma, semicolon or double quote, which the proxy does not quote")
		}
	}
	return err
}

// isText reports whether a name with this tag is text that Envoy writes, or may write.
func isText(tag int) bool {
	return tag == rfc822Name || tag == dNSName || tag == uniformResourceIdentifier
}

func splitXFCC(value string) ([]xfccElement, error) {
	var elements []xfccElement
	var current xfccElement
	for rest, separator := value, byte(';'); separator != 0; {
		var key, text string
		var err error
		if key, text, separator, rest, err = nextXFCCPair(rest); err != nil {
			return nil, err
		}
		if err := current.addPair(key, text); err != nil {
			return nil, err
		}
		if separator == ';' {
			continue
		}
		if len(elements) == maxXFCCElements {
			return nil, fmt.Errorf("there are more than %d elements", maxXFCCElements)
		}
		elements = append(elements, current)
		current = xfccElement{}
	}
	return elements, nil
}

// addPair adds a pair. A second Cert, Chain or Hash is an error, because one of the
// two is not the proxy's. Unknown keys may contain names.
func (e *xfccElement) addPair(key, value string) error {
	var field **string
	switch strings.ToLower(key) {
	case "cert":
		field = &e.cert
	case "chain":
		field = &e.chain
	case "hash":
		field = &e.hash
	case "by", "subject": // the proxy's own certificate, and always quoted
		return nil
	default:
		e.named = true
		return nil
	}
	if *field != nil {
		return fmt.Errorf("duplicate %s in an element", strings.ToLower(key))
	}
	*field = &value
	return nil
}

// nextXFCCPair cuts the first pair and the separator after it, which is 0 at the
// end, from the text.
func nextXFCCPair(s string) (key, value string, separator byte, rest string, err error) {
	key, rest, found := strings.Cut(strings.TrimLeft(s, " \t"), "=")
	if !found || !isXFCCKey(key) {
		return "", "", 0, "", fmt.Errorf("%q… is not a key and an equals sign", syntax.FirstBytes(key, 16))
	}

	if quoted, found := strings.CutPrefix(rest, `"`); found {
		end, err := closingXFCCQuote(quoted)
		if err != nil {
			return "", "", 0, "", fmt.Errorf("in %s: %w", key, err)
		}
		value, rest = quoted[:end], strings.TrimLeft(quoted[end+1:], " \t")
	} else {
		end := strings.IndexAny(rest, ",;")
		if end < 0 {
			end = len(rest)
		}
		value, rest = strings.TrimRight(rest[:end], " \t"), rest[end:]
		if strings.Contains(value, `"`) {
			return "", "", 0, "", fmt.Errorf("in %s: a double quote in a value without quotes", key)
		}
	}

	switch {
	case rest == "":
		return key, value, 0, "", nil
	case rest[0] == ',', rest[0] == ';':
		return key, value, rest[0], rest[1:], nil
	}
	return "", "", 0, "", fmt.Errorf("in %s: unexpected %q… after the closing quote", key, syntax.FirstBytes(rest, 16))
}

func isXFCCKey(key string) bool {
	for _, c := range []byte(key) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return key != "" && len(key) <= 32
}

// closingXFCCQuote returns the index of the quote that closes a value. According to
// Envoy's manual a backslash escapes only a quote; in Subject, which follows RFC
// 2253, it also escapes a backslash. Where the two disagree on which quote closes,
// it returns an error.
func closingXFCCQuote(s string) (int, error) {
	backslashes := 0
	for i := range len(s) {
		switch {
		case s[i] == '\\':
			backslashes++
			continue
		case s[i] == '"' && backslashes == 0:
			return i, nil
		case s[i] == '"' && backslashes%2 == 0:
			return 0, errors.New("ambiguous backslashes before a double quote")
		}
		backslashes = 0
	}
	return 0, errors.New("the closing quote is missing")
}
