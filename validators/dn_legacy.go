package validators

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

// FormatLegacyDN returns a DER-encoded Name with slashes, as in /O=company/CN=client,
// which is how OpenSSL's X509_NAME_oneline prints it: RDNs in encoded order, '+'
// between the attributes of one RDN, and octets that are not printable ASCII as \xNN.
// Unlike there, '/', '+' and '\' in a value are also printed as \xNN, so that no value
// can pass for another attribute, or for another value.
//
// The text has at most 1024 bytes. If it was cut, it ends with "…", escaped. Bytes
// that are not a Name become '#' and hexadecimal digits, as in [FormatDN].
func FormatLegacyDN(raw []byte) string {
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
