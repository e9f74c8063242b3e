package validators

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"
)

const (
	sha1Hex   = "bca0d040847f843c5ee0fa6eb494837470155868"
	sha256Hex = "c29db0da80cf74dbd0d8e1d8ab0b9b3a3f7dfb5dc8fb9aa34d8ac9b1c0e0a5fb"
)

// groups puts a separator after every n digits.
func groups(digits, separator string, n int) string {
	var out []string
	for len(digits) > n {
		out, digits = append(out, digits[:n]), digits[n:]
	}
	return strings.Join(append(out, digits), separator)
}

func spellings(t testing.TB, digits string) map[string]string {
	t.Helper()
	sum, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"hex":                digits,
		"upper case":         strings.ToUpper(digits),
		"OpenSSL":            groups(strings.ToUpper(digits), ":", 2),
		"Windows":            groups(digits, " ", 2),
		"groups of eight":    groups(digits, " ", 8),
		"base64url":          base64.RawURLEncoding.EncodeToString(sum),
		"base64url, padded":  base64.URLEncoding.EncodeToString(sum),
		"from a file":        digits + "\r\n",
		"space on both ends": " \t" + digits + " ",
	}
}

func TestThumbprintSpellings_B11(t *testing.T) {
	for _, digits := range []string{sha1Hex, sha256Hex} {
		for name, text := range spellings(t, digits) {
			got, err := ParseThumbprint(text)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got.String() != digits || got.IsSHA1() != (digits == sha1Hex) {
				t.Errorf("%s: read as %s", name, got)
			}
		}
	}
}

func TestParseSHA256_B11(t *testing.T) {
	for name, text := range spellings(t, sha256Hex) {
		if got, err := ParseSHA256(text); err != nil || hex.EncodeToString(got[:]) != sha256Hex {
			t.Errorf("%s: read as %x, error %v", name, got, err)
		}
	}
	for name, text := range spellings(t, sha1Hex) {
		got, err := ParseSHA256(text)
		if err == nil || !strings.Contains(err.Error(), "SHA-1") || got != [32]byte{} && err == nil {
			t.Errorf("%s: read as %x, error %v", name, got, err)
		}
	}
}

func TestHashOfEmptyInputIsRefused_B11(t *testing.T) {
	for _, test := range []struct{ digits, why string }{
		{"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "hash of empty input"},
		{"da39a3ee5e6b4b0d3255bfef95601890afd80709", "hash of empty input"},
		{strings.Repeat("0", 64), "all zeros"},
		{strings.Repeat("0", 40), "all zeros"},
	} {
		for name, text := range spellings(t, test.digits) {
			if _, err := ParseThumbprint(text); err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("%s of %s: error %v", name, test.digits, err)
			}
			if _, err := ParseSHA256(text); err == nil {
				t.Errorf("%s of %s: no error", name, test.digits)
			}
		}
	}
}

func TestInvalidThumbprints_B11(t *testing.T) {
	md, s384, s512 := md5.Sum([]byte("x")), sha512.Sum384([]byte("x")), sha512.Sum512([]byte("x"))
	for name, test := range map[string]struct{ text, why string }{
		"empty":                  {"", "empty"},
		"blank":                  {" \n", "empty"},
		"short":                  {sha256Hex[:63], "63 hexadecimal digits; expected"},
		"long":                   {sha256Hex + "a", "65 hexadecimal digits"},
		"MD5":                    {hex.EncodeToString(md[:]), "32 hexadecimal digits, so it is an MD5 hash"},
		"SHA-384":                {hex.EncodeToString(s384[:]), "SHA-384"},
		"SHA-512":                {hex.EncodeToString(s512[:]), "128 hexadecimal digits, so it is an SHA-512 hash"},
		"MD5 with colons":        {groups(hex.EncodeToString(md[:]), ":", 2), "MD5"},
		"SHA-512 with colons":    {groups(hex.EncodeToString(s512[:]), ":", 2), "SHA-512"},
		"MD5 base64url":          {base64.RawURLEncoding.EncodeToString(md[:]), "MD5"},
		"SHA-512 base64url":      {base64.RawURLEncoding.EncodeToString(s512[:]), "86 characters, so it is an SHA-512 hash"},
		"SHA-384 base64url":      {base64.RawURLEncoding.EncodeToString(s384[:]), "not all are hexadecimal digits"},
		"left-to-right mark":     {"\u200e" + sha1Hex, "invisible character U+200E"},
		"mark within":            {sha1Hex[:10] + "\u200e" + sha1Hex[10:], "U+200E at byte 10"},
		"byte order mark":        {"\ufeff" + sha1Hex, "invisible character U+FEFF"},
		"no-break space":         {groups(sha1Hex, "\u00a0", 2), "U+00A0"},
		"Cyrillic letter":        {"\u0430" + sha1Hex[1:], "U+0430"},
		"full-width digit":       {"\uff10" + sha1Hex[1:], "U+FF10"},
		"invalid UTF-8":          {"\xff" + sha1Hex[1:], "U+FFFD"},
		"NUL":                    {sha1Hex + "\x00", "control character U+0000"},
		"two lines":              {sha1Hex[:20] + "\n" + sha1Hex[20:], "control character U+000A"},
		"base64 with line break": {"AAAA\nAAAA", "control character U+000A"},
		"mixed separators":       {strings.Replace(groups(sha1Hex, ":", 2), ":", " ", 1), "both colons and spaces"},
		"two colons":             {strings.Replace(groups(sha1Hex, ":", 2), ":", "::", 1), "pairs"},
		"colon at the end":       {groups(sha1Hex, ":", 2) + ":", "pairs"},
		"odd groups":             {groups(sha1Hex, ":", 5), "pairs"},
		"dashes":                 {groups(sha1Hex, "-", 2), "59 characters"},
		"label":                  {"SHA256 Fingerprint=" + groups(sha256Hex, ":", 2), "after '='"},
		"prefix":                 {"sha256:" + sha256Hex, `part "sha256"`},
		"0x":                     {"0x" + sha1Hex, "42 characters"},
		"not hex":                {"g" + sha1Hex[1:], "not all are hexadecimal digits"},
		"padded hex":             {sha1Hex + "=", "ends with '='"},
		"padding alone":          {"====", "expected SHA-256"},
		"padding doubled":        {"vKDQQIR_hDxe4PputJSDdHAVWGg==", "not valid base64url"},
		"base64":                 {"vKDQQIR/hDxe4PputJSDdHAVWGg", "write - for + and _ for /"},
		"not canonical":          {"vKDQQIR_hDxe4PputJSDdHAVWGh", "not valid base64url"},
		"not canonical, padded":  {"vKDQQIR_hDxe4PputJSDdHAVWGh=", "not valid base64url"},
		"not base64url":          {"vKDQQIR_hDxe4PputJSDdHAVWG!", "not valid base64url"},
		"huge":                   {strings.Repeat("ab", 1<<20), "2097152 bytes long"},
		"PEM":                    {"-----BEGIN CERTIFICATE-----", "characters"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseThumbprint(test.text)
			if err == nil {
				t.Fatalf("read as %s", got)
			}
			if !strings.Contains(err.Error(), test.why) {
				t.Errorf("error %q does not say %q", err, test.why)
			}
			if got != "" || len(err.Error()) > 1500 {
				t.Errorf("returned %v with an error of %d bytes", got, len(err.Error()))
			}
			if sum, err := ParseSHA256(test.text); err == nil || sum != [32]byte{} {
				t.Errorf("ParseSHA256 returned %x, %v", sum, err)
			}
		})
	}
}

func TestThumbprintHashes(t *testing.T) {
	der := []byte("not really a certificate")
	t256 := ThumbprintOf(der)
	if sum, ok := t256.SHA256(); !ok || sum != sha256.Sum256(der) || t256.IsSHA1() {
		t.Errorf("SHA256 = %x, %v", sum, ok)
	}
	if _, ok := t256.SHA1(); ok {
		t.Error("a SHA-256 thumbprint has a SHA-1 hash")
	}
	want := sha1.Sum(der)
	t1, err := ParseThumbprint(hex.EncodeToString(want[:]))
	if err != nil {
		t.Fatal(err)
	}
	if sum, ok := t1.SHA1(); !ok || sum != want {
		t.Errorf("SHA1 = %x, %v", sum, ok)
	}
	if sum, ok := t1.SHA256(); ok || sum != [32]byte{} {
		t.Error("a SHA-1 thumbprint has a SHA-256 hash")
	}
	same, err := ParseThumbprint(strings.ToUpper(t256.String()))
	if err != nil || map[Thumbprint]bool{t256: true}[same] != true {
		t.Error("two spellings of a thumbprint are not the same map key")
	}
	if Thumbprint("").String() != "" || Thumbprint("").IsSHA1() {
		t.Error("the zero value is a thumbprint")
	}
}

// rfc8705Certificate is the example of RFC 8705 appendix A.
func rfc8705Certificate(t testing.TB) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(`-----BEGIN CERTIFICATE-----
MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx
ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ
/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID
SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV
bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=
-----END CERTIFICATE-----`))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestX5tS256OfTheExample_R12(t *testing.T) {
	if got, want := X5tS256(sha256.Sum256(rfc8705Certificate(t).Raw)), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestX5tS256(t *testing.T) {
	sum := sha256.Sum256([]byte("der"))
	got := X5tS256(sum)
	if len(got) != 43 || strings.ContainsAny(got, "=+/") {
		t.Errorf("x5t#S256 %q", got)
	}
	if back, err := ParseSHA256(got); err != nil || back != sum {
		t.Errorf("read back as %x, %v", back, err)
	}
}

func FuzzParseThumbprint(f *testing.F) {
	for _, digits := range []string{sha1Hex, sha256Hex, strings.Repeat("0", 64), "da39a3ee5e6b4b0d3255bfef95601890afd80709"} {
		for _, text := range spellings(f, digits) {
			f.Add(text)
		}
	}
	f.Add("\u200e" + sha1Hex)
	f.Add("SHA256 Fingerprint=" + groups(sha256Hex, ":", 2))
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseThumbprint(text)
		sum, err256 := ParseSHA256(text)
		if err != nil {
			if err256 == nil {
				t.Fatalf("only ParseSHA256 takes %q", text)
			}
			if got != "" || len(err.Error()) > 2500 || strings.ContainsAny(err.Error(), "\n\r\x00\u200e") {
				t.Fatalf("error %q with %v", err, got)
			}
			return
		}
		back, err := ParseThumbprint(got.String())
		if err != nil || back != got {
			t.Fatalf("%q is %s, read back as %s, %v", text, got, back, err)
		}
		if upper, err := ParseThumbprint(strings.ToUpper(got.String())); err != nil || upper != got {
			t.Fatalf("%s in upper case: %s, %v", got, upper, err)
		}
		if got == Thumbprint(make([]byte, 32)) || got == ThumbprintOf(nil) {
			t.Fatalf("%q is a hash of nothing", text)
		}
		if got.IsSHA1() != (err256 != nil) {
			t.Fatalf("ParseSHA256 of %q: %v", text, err256)
		}
		if !got.IsSHA1() {
			if Thumbprint(sum[:]) != got {
				t.Fatalf("ParseSHA256 of %q: %x", text, sum)
			}
			if back, err := ParseThumbprint(X5tS256(sum)); err != nil || back != got {
				t.Fatalf("x5t#S256 of %s: %s, %v", got, back, err)
			}
		}
	})
}
