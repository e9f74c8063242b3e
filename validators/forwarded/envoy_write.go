package forwarded

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// writeXFCC writes one element of x-forwarded-client-cert, as Envoy does with cert,
// chain, subject, uri and dns in set_current_client_cert_details. Chain begins with the
// client's own certificate; without a chain it is left out.
//
// Envoy writes names into URI and DNS as they are, and a double quote in Subject after
// a backslash. Then a name can end a value, and add pairs, or elements, that say
// something else of its owner. A reader that searches the text for a key also finds it in
// a name. So Subject has hexadecimal digits instead, which RFC 4514 §2.4 allows, and URI
// and DNS are left out if any name has a key, or characters that URIs and host names do
// not need. [parseXFCC] does not accept such names either.
func writeXFCC(leaf *x509.Certificate, chain []*x509.Certificate) string {
	var text strings.Builder
	escaped := writeEscapedCertificate(leaf, nil)
	fmt.Fprintf(&text, `Hash=%x;Cert="%s"`, sha256.Sum256(leaf.Raw), escaped)
	if len(chain) > 0 {
		text.WriteString(`;Chain="` + escaped)
		for _, cert := range chain {
			text.WriteString(writeEscapedCertificate(cert, nil))
		}
		text.WriteByte('"')
	}
	if subject, err := dn.FormatQuotable(leaf.RawSubject); err == nil {
		text.WriteString(`;Subject="` + subject + `"`)
	}
	writeXFCCNames(&text, leaf)
	return text.String()
}

// writeXFCCNames writes URI, also without any, and then DNS.
func writeXFCCNames(text *strings.Builder, leaf *x509.Certificate) {
	names, err := validators.GeneralNames(leaf)
	if err != nil || slices.ContainsFunc(names, func(name asn1.RawValue) bool { return !isPlainXFCC(name) }) {
		return
	}
	uris := 0
	for _, name := range names {
		if name.Tag == uniformResourceIdentifier {
			text.WriteString(";URI=" + string(name.Bytes))
			uris++
		}
	}
	if uris == 0 {
		text.WriteString(";URI=")
	}
	for _, name := range names {
		if name.Tag == dNSName {
			text.WriteString(";DNS=" + string(name.Bytes))
		}
	}
}

// isPlainXFCC reports whether a name can be in a value without quotes.
func isPlainXFCC(name asn1.RawValue) bool {
	if !isText(name.Tag) {
		return true
	}
	return !keyOfXFCC.Match(name.Bytes) &&
		!slices.ContainsFunc(name.Bytes, func(c byte) bool { return c <= ' ' || c >= 0x7f || strings.IndexByte(`,;"\`, c) >= 0 })
}

// keyOfXFCC matches what a reader could take for the beginning of a pair.
var keyOfXFCC = regexp.MustCompile(`(?i)(by|hash|cert|chain|subject|uri|dns)=`)
