package dn

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// FormatLegacy returns a DER-encoded Name with slashes, as in /O=company/CN=client,
// which is how OpenSSL's X509_NAME_oneline prints it: RDNs in encoded order, '+'
// between the attributes of one RDN, and octets that are not printable ASCII as \xNN.
// Unlike there, '/', '+' and '\' in a value are also printed as \xNN, so that no value
// can pass for another attribute, or for another value.
//
// The text has at most 1024 bytes. If it was cut, it ends with "…", escaped. Bytes
// that are not a Name become '#' and hexadecimal digits, as in [Format].
func FormatLegacy(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	encoded, err := decodeName(raw)
	if err != nil {
		return cutLegacy(hex.AppendEncode([]byte{'#'}, raw[:min(len(raw), maxFormattedBytes)]))
	}
	var text []byte
	for _, encodedRDN := range encoded {
		separator := byte('/')
		for _, a := range encodedRDN {
			name, _ := opensslName(a.Type)
			text = append(append(append(text, separator), name...), '=')
			text = appendLegacy(text, a.Value.Bytes)
			separator = '+'
		}
	}
	return cutLegacy(text)
}

func appendLegacy(text, value []byte) []byte {
	for _, octet := range value {
		if octet < ' ' || octet > '~' || octet == '/' || octet == '+' || octet == '\\' {
			text = fmt.Appendf(text, `\x%02X`, octet)
		} else {
			text = append(text, octet)
		}
	}
	return text
}

func cutLegacy(text []byte) string {
	const mark = `\xE2\x80\xA6` // …
	if len(text) <= maxFormattedBytes {
		return string(text)
	}
	text = text[:maxFormattedBytes-len(mark)]
	const escape = len(`\xNN`)
	if i := bytes.LastIndexByte(text, '\\'); i > len(text)-escape {
		text = text[:i]
	}
	return string(text) + mark
}

// FormatQuotable returns a DER-encoded Name as OpenSSL and BoringSSL print it in the form
// of RFC 2253, except that no character ends a value in double quotes or, for a reader
// that looks for semicolons first, a pair, and that no value contains a key.
func FormatQuotable(raw []byte) (string, error) {
	rdns, err := decodeName(raw)
	if err != nil {
		return "", err
	}
	var text []byte
	for i, rdn := range slices.Backward(rdns) {
		for j, a := range slices.Backward(rdn) {
			name, known := opensslName(a.Type)
			text = append(append(text, name...), '=')
			if value, err := decodeString(a.Value); err == nil && known {
				text = appendQuotable(text, value)
			} else {
				text = fmt.Appendf(text, "#%s", strings.ToUpper(hex.EncodeToString(a.Value.FullBytes)))
			}
			if j > 0 {
				text = append(text, '+')
			}
		}
		if i > 0 {
			text = append(text, ',')
		}
	}
	return string(text), nil
}

// appendQuotable appends text in printable ASCII (RFC 4514 §2.4).
func appendQuotable(buf []byte, text string) []byte {
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ' || c >= 0x7f || strings.IndexByte(`";=\`, c) >= 0:
			buf = fmt.Appendf(buf, `\%02X`, c)
		case strings.IndexByte(`+,<>`, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(text)-1):
			buf = append(buf, '\\', c)
		default:
			buf = append(buf, c)
		}
	}
	return buf
}

// opensslNames are the short names of OpenSSL that RFC 4514 and RFC 4519 do not have.
var opensslNames = map[string]string{"STREET": "street", "givenName": "GN"}

// opensslName returns the name that OpenSSL prints for an attribute type.
func opensslName(oid asn1.ObjectIdentifier) (name string, known bool) {
	name, known = attributeName(oid)
	if short, differs := opensslNames[name]; differs {
		return short, true
	}
	return name, known
}
