package headerguard

// EscapeControl makes text safe as a header value: control characters other than
// tab, which could end the header or the request, become \XX.
func EscapeControl(text string) string {
	return escape(text, func(c byte) bool { return c < 0x20 && c != '\t' || c == 0x7f })
}

// EscapeNonASCII makes text from a certificate safe in a header, a URL or a log:
// every octet that is not printable ASCII becomes \XX, as in RFC 4514 §2.4.
func EscapeNonASCII(text string) string {
	return escape(text, func(c byte) bool { return c < 0x20 || c >= 0x7f })
}

func escape(text string, unsafe func(byte) bool) string {
	first := 0
	for first < len(text) && !unsafe(text[first]) {
		first++
	}
	if first == len(text) {
		return text
	}
	const hex = "0123456789ABCDEF"
	escaped := append(make([]byte, 0, len(text)+16), text[:first]...)
	for _, c := range []byte(text[first:]) {
		if unsafe(c) {
			escaped = append(escaped, '\\', hex[c>>4], hex[c&15])
		} else {
			escaped = append(escaped, c)
		}
	}
	return string(escaped)
}
