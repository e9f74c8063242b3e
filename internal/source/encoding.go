package source

import "bytes"

var byteOrderMark = []byte("\ufeff")

// WithoutBOM returns text without the byte order marks with which editors on Windows
// begin a file: at its start, and where files were put together at that of a line.
func WithoutBOM(text []byte) []byte {
	text = bytes.TrimPrefix(text, byteOrderMark)
	if !bytes.Contains(text, byteOrderMark) {
		return text
	}
	return bytes.ReplaceAll(text, append([]byte("\n"), byteOrderMark...), []byte("\n"))
}

// pkcs12Start is the version of a PKCS #12 file, and how what follows begins
// (RFC 7292 §4).
var pkcs12Start = []byte{0x02, 0x01, 0x03, 0x30}

// ConversionToPEM returns what an operator can do with a file that should be a
// certificate in PEM but is in another encoding, or "".
func ConversionToPEM(content []byte) string {
	switch {
	case bytes.HasPrefix(content, []byte{0xff, 0xfe}), bytes.HasPrefix(content, []byte{0xfe, 0xff}):
		return "it is UTF-16 text, which PowerShell writes by default, so save it as ASCII"
	case !bytes.HasPrefix(content, []byte{0x30}): // a SEQUENCE
		return ""
	case bytes.Contains(content[:min(len(content), 12)], pkcs12Start):
		return "it is PKCS #12, so convert it with 'openssl pkcs12 -nokeys -in <file> -out <new-file>'"
	}
	return "it is DER, so convert it with 'openssl x509 -inform der -in <file> -out <new-file>'"
}
