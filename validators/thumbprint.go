package validators

import (
	"crypto/sha1" //nolint:gosec // Operators migrate from systems that know a certificate by its SHA-1 thumbprint.
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// maxHashText bounds what is parsed as a hash. The longest accepted spelling,
// 64 hexadecimal digits with separators, has 95 characters.
const maxHashText = 256

// Thumbprint has the octets of the SHA-256 or SHA-1 hash of a certificate's DER
// encoding. The zero value matches no certificate.
type Thumbprint string

// ThumbprintOf returns the SHA-256 thumbprint of a DER encoded certificate.
func ThumbprintOf(der []byte) Thumbprint {
	sum := sha256.Sum256(der)
	return Thumbprint(sum[:])
}

// SHA1ThumbprintOf returns the SHA-1 thumbprint of a DER encoded certificate.
func SHA1ThumbprintOf(der []byte) Thumbprint {
	sum := sha1.Sum(der) //nolint:gosec // see the import
	return Thumbprint(sum[:])
}

// ParseThumbprint parses the SHA-256 or SHA-1 hash of a certificate's DER
// encoding: hexadecimal digits of either case, with or without colons or spaces
// between them, or base64url with or without padding, as in the x5t#S256 member
// of RFC 8705 §3.1. It returns an error for a hash that no certificate has, such
// as that of empty input. The error does not repeat the hash.
func ParseThumbprint(s string) (Thumbprint, error) {
	return parseHash(s, true)
}

// ParseSHA256 parses the SHA-256 hash of a certificate or a public key, in the
// spellings of [ParseThumbprint].
func ParseSHA256(s string) ([sha256.Size]byte, error) {
	t, err := parseHash(s, false)
	sum, _ := t.SHA256()
	return sum, err
}

// IsSHA1 reports whether t is a SHA-1 thumbprint.
func (t Thumbprint) IsSHA1() bool { return len(t) == sha1.Size }

// SHA256 returns the hash if it is SHA-256.
func (t Thumbprint) SHA256() ([sha256.Size]byte, bool) {
	if len(t) != sha256.Size {
		return [sha256.Size]byte{}, false
	}
	return [sha256.Size]byte([]byte(t)), true
}

// SHA1 returns the hash if it is SHA-1.
func (t Thumbprint) SHA1() ([sha1.Size]byte, bool) {
	if len(t) != sha1.Size {
		return [sha1.Size]byte{}, false
	}
	return [sha1.Size]byte([]byte(t)), true
}

// String returns the hash in lower-case hexadecimal digits.
func (t Thumbprint) String() string { return hex.EncodeToString([]byte(t)) }

// X5tS256 returns the value of the x5t#S256 confirmation member for a SHA-256
// thumbprint: base64url without padding, 43 characters (RFC 8705 §3.1).
func X5tS256(sum [sha256.Size]byte) string {
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func parseHash(s string, allowSHA1 bool) (Thumbprint, error) {
	want := "expected SHA-256: 64 hexadecimal digits or 43 base64url characters"
	if allowSHA1 {
		want = "expected SHA-256 (64 hexadecimal digits or 43 base64url characters) or SHA-1 (40 or 27)"
	}

	text := strings.Trim(s, " \t\r\n")
	if text == "" {
		return "", errors.New("the hash is empty; " + want)
	}
	if len(text) > maxHashText {
		return "", fmt.Errorf("it is %d bytes long; %s", len(text), want)
	}
	if err := checkHashCharacters(text); err != nil {
		return "", err
	}

	sum, err := decodeHash(text)
	if err != nil {
		return "", fmt.Errorf("%w; %s", err, want)
	}

	t := Thumbprint(sum)
	switch {
	case t == ThumbprintOf(nil), t == SHA1ThumbprintOf(nil):
		// as a script produces it that hashes a missing file or an unset variable
		return "", errors.New("it is the hash of empty input; hash the certificate's DER encoding")
	case strings.Trim(string(t), "\x00") == "":
		return "", errors.New("it is all zeros; replace the placeholder")
	case t.IsSHA1() && !allowSHA1:
		return "", fmt.Errorf("it is a SHA-1 hash, which is not accepted here; %s", want)
	}
	return t, nil
}

// checkHashCharacters points out characters that nobody sees: Windows'
// certificate dialog copies a left-to-right mark along with the thumbprint.
func checkHashCharacters(text string) error {
	for i, r := range text {
		switch {
		case unicode.Is(unicode.Cf, r):
			return fmt.Errorf("it has the invisible character %U at byte %d, as copied from the certificate dialog of Windows; delete it, or type the neighboring digits again", r, i)
		case r < ' ' || r == unicode.MaxASCII:
			return fmt.Errorf("it has the control character %U at byte %d; write the hash on one line, without it", r, i)
		case r > unicode.MaxASCII:
			return fmt.Errorf("it has the character %U at byte %d, which no hash contains; delete it", r, i)
		}
	}
	return nil
}

// decodeHash returns the 20 or 32 bytes of a hash.
func decodeHash(text string) ([]byte, error) {
	digits, err := joinHexGroups(text)
	if err != nil {
		return nil, err
	}
	if len(digits) == hex.EncodedLen(sha1.Size) || len(digits) == hex.EncodedLen(sha256.Size) {
		sum, err := hex.DecodeString(digits)
		if err != nil {
			return nil, errors.New("it has as many characters as a hash in hexadecimal, but not all are hexadecimal digits")
		}
		return sum, nil
	}
	if digits != text {
		return nil, wrongHashLength(digits)
	}

	if strings.Contains(text, ".") {
		return nil, errors.New("it looks like a file name; write the hash of the certificate in that file")
	}
	if strings.ContainsAny(text, "+/") {
		return nil, errors.New("it is base64, not base64url; write - for + and _ for /")
	}
	encoding, unpadded := base64.RawURLEncoding, strings.TrimRight(text, "=")
	switch len(unpadded) {
	case encoding.EncodedLen(sha1.Size), encoding.EncodedLen(sha256.Size):
	case hex.EncodedLen(sha1.Size), hex.EncodedLen(sha256.Size):
		return nil, errors.New("it ends with '=', which hexadecimal digits do not; delete it")
	default:
		return nil, wrongHashLength(unpadded)
	}
	if unpadded != text {
		encoding = base64.URLEncoding
	}
	// Strict, because otherwise spellings that differ in unused bits would be the
	// same hash.
	sum, err := encoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("it has as many characters as a hash in base64url, but is not valid base64url; copy it again")
	}
	return sum, nil
}

// joinHexGroups removes the separators between groups of hexadecimal digits. It
// returns text without separators unchanged.
func joinHexGroups(text string) (string, error) {
	var separator string
	switch colons, spaces := strings.Contains(text, ":"), strings.Contains(text, " "); {
	case strings.Contains(strings.TrimRight(text, "="), "="):
		return "", errors.New("it has more than the hash; write only the part after '='")
	case colons && spaces:
		return "", errors.New("it has both colons and spaces; separate the digits by one or the other")
	case colons:
		separator = ":"
	case spaces:
		separator = " "
	default:
		return text, nil
	}
	groups := strings.Split(text, separator)
	for _, group := range groups {
		if group == "" || len(group)%2 != 0 || !isHex(group) {
			return "", fmt.Errorf("it has the part %q; write pairs of hexadecimal digits between separators", group)
		}
	}
	return strings.Join(groups, ""), nil
}

// wrongHashLength returns an error that names the hash with this many characters,
// if there is one.
func wrongHashLength(characters string) error {
	kind, hashes := "hexadecimal digits", map[int]string{32: "MD5", 56: "SHA-224", 96: "SHA-384", 128: "SHA-512"}
	if !isHex(characters) {
		kind, hashes = "characters", map[int]string{22: "MD5", 38: "SHA-224", 86: "SHA-512"}
	}
	if hash := hashes[len(characters)]; hash != "" {
		return fmt.Errorf("it has %d %s, so it is an %s hash", len(characters), kind, hash)
	}
	return fmt.Errorf("it has %d %s", len(characters), kind)
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
