package dn

import (
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func TestDNIsComparedAsParsedRDNSequence_B8(t *testing.T) {
	declared := mustDeclare(t, "CN=client,OU=production,O=company")
	o, ou, cn := attr("O", "company"), attr("OU", "production"), attr("CN", "client")
	for name, c := range map[string]struct {
		raw  []byte
		same bool
	}{
		"as declared":                {rawName(encodedRDNSET{o}, encodedRDNSET{ou}, encodedRDNSET{cn}), true},
		"other string types":         {rawName(encodedRDNSET{attrOf("O", asn1.TagPrintableString, "Company")}, encodedRDNSET{attrOf("OU", asn1.TagT61String, "production")}, encodedRDNSET{attrOf("CN", asn1.TagBMPString, "\x00c\x00l\x00i\x00e\x00n\x00t")}), true},
		"still other string types":   {rawName(encodedRDNSET{attrOf("O", asn1.TagIA5String, " company ")}, encodedRDNSET{attrOf("OU", tagVisibleString, "production")}, encodedRDNSET{cn}), true},
		"reversed":                   {rawName(encodedRDNSET{cn}, encodedRDNSET{ou}, encodedRDNSET{o}), false},
		"swapped":                    {rawName(encodedRDNSET{ou}, encodedRDNSET{o}, encodedRDNSET{cn}), false},
		"one multi-valued RDN":       {rawName(encodedRDNSET{o, ou, cn}), false},
		"two in one RDN":             {rawName(encodedRDNSET{o}, encodedRDNSET{ou, cn}), false},
		"extra OU":                   {rawName(encodedRDNSET{o}, encodedRDNSET{ou}, encodedRDNSET{ou}, encodedRDNSET{cn}), false},
		"extra OU in front":          {rawName(encodedRDNSET{ou}, encodedRDNSET{o}, encodedRDNSET{ou}, encodedRDNSET{cn}), false},
		"duplicate CN":               {rawName(encodedRDNSET{o}, encodedRDNSET{ou}, encodedRDNSET{cn}, encodedRDNSET{cn}), false},
		"other CN before":            {rawName(encodedRDNSET{attr("CN", "x")}, encodedRDNSET{o}, encodedRDNSET{ou}, encodedRDNSET{cn}), false},
		"missing OU":                 {rawName(encodedRDNSET{o}, encodedRDNSET{cn}), false},
		"longer CN":                  {rawName(encodedRDNSET{o}, encodedRDNSET{ou}, encodedRDNSET{attr("CN", "client2")}), false},
		"shorter CN":                 {rawName(encodedRDNSET{o}, encodedRDNSET{ou}, encodedRDNSET{attr("CN", "clien")}), false},
		"other type OID":             {rawName(encodedRDNSET{o}, encodedRDNSET{ou}, encodedRDNSET{attr("SN", "client")}), false},
		"longer type OID":            {rawName(encodedRDNSET{o}, encodedRDNSET{ou}, encodedRDNSET{attr("2.5.4.3.1", "client")}), false},
		"all in CN":                  {rawName(encodedRDNSET{attr("CN", "client,OU=production,O=company")}), false},
		"all in CN, escaped":         {rawName(encodedRDNSET{attr("CN", `client\,OU=production\,O=company`)}), false},
		"two RDNs in O":              {rawName(encodedRDNSET{attr("O", "production,O=company")}, encodedRDNSET{cn}), false},
		"plus in CN is no attribute": {rawName(encodedRDNSET{o}, encodedRDNSET{attr("CN", "client+OU=production")}), false},
	} {
		presented := mustPresent(t, c.raw)
		if same := presented.Key() == declared.Key(); same != c.same {
			t.Errorf("%s: %s matches: %t", name, presented, same)
		}
		if again := mustDeclare(t, presented.String()); again.Key() != presented.Key() {
			t.Errorf("%s: %s is not read back as the same name", name, presented)
		}
	}

	if mustDeclare(t, `CN=a\,O=b`).Key() == mustDeclare(t, "CN=a,O=b").Key() {
		t.Error("an escaped comma separates RDNs")
	}
	reversed := mustPresent(t, rawName(encodedRDNSET{cn}, encodedRDNSET{ou}, encodedRDNSET{o}))
	if reversed.Reversed().Key() != declared.Key() || declared.Reversed().Key() != reversed.Key() {
		t.Error("Reversed is not the reverse name")
	}
	ab := mustPresent(t, rawName(encodedRDNSET{attr("CN", "a"), attr("OU", "b")}, encodedRDNSET{o}))
	if ab.Key() != mustDeclare(t, "O=company,OU=b+CN=a").Key() {
		t.Error("the order in a multi-valued RDN counts")
	}
}

func TestNamesThatNeverMatch_B8(t *testing.T) {
	surplus := encodedRDNSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: attr("CN", "a").Value, Surplus: attr("CN", "b").Value}}
	constructed := encodedRDNSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, IsCompound: true, Bytes: []byte("\x0c\x01a")}}}
	many := encodedRDNSET{attr("CN", "a")}
	for name, raw := range map[string][]byte{
		"nothing":           nil,
		"no RDN":            rawName(),
		"empty RDN":         rawName(encodedRDNSET{attr("O", "a")}, encodedRDNSET{}),
		"type twice":        rawName(encodedRDNSET{attr("CN", "a"), attr("CN", "b")}),
		"value twice":       rawName(encodedRDNSET{attr("CN", "a"), attr("CN", "a")}),
		"trailing bytes":    append(rawName(encodedRDNSET{attr("CN", "a")}), 0),
		"truncated":         rawName(encodedRDNSET{attr("CN", "a")})[:10],
		"garbage":           []byte("CN=a"),
		"sequence for set":  {0x30, 0x0c, 0x30, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, 'a'},
		"surplus":           rawName(surplus),
		"constructed":       rawName(constructed),
		"octet string":      rawName(encodedRDNSET{attrOf("CN", asn1.TagOctetString, "a")}),
		"bad UTF-8":         rawName(encodedRDNSET{attr("CN", "a\xff")}),
		"overlong UTF-8":    rawName(encodedRDNSET{attr("CN", "\xc0\x80")}),
		"8 bit IA5":         rawName(encodedRDNSET{attrOf("CN", asn1.TagIA5String, "\xe4")}),
		"8 bit Printable":   rawName(encodedRDNSET{attrOf("CN", asn1.TagPrintableString, "\xc3\xa4")}),
		"odd BMP":           rawName(encodedRDNSET{attrOf("CN", asn1.TagBMPString, "\x00a\x00")}),
		"surrogates":        rawName(encodedRDNSET{attrOf("CN", asn1.TagBMPString, "\xd8\x3d\xde\x00")}),
		"BMP terminator":    rawName(encodedRDNSET{attrOf("CN", asn1.TagBMPString, "\x00a\x00\x00")}),
		"C1 in Teletex":     rawName(encodedRDNSET{attrOf("CN", asn1.TagT61String, "a\x85")}),
		"129 attributes":    rawName(append(repeatRDN(many, 128), many)...),
		"17 KiB":            rawName(encodedRDNSET{attr("CN", strings.Repeat("a", 17<<10))}),
		"private in BMP":    rawName(encodedRDNSET{attrOf("CN", asn1.TagBMPString, "\xe0\x00")}),
		"second RDN is bad": rawName(encodedRDNSET{attr("O", "a")}, encodedRDNSET{attr("CN", "a\x00")}),
	} {
		dn, err := FromRaw(raw)
		if !errors.Is(err, errUnmatchableName) || dn.Key() != "" {
			t.Errorf("%s: %s, %v", name, dn, err)
		}
	}

	for name, text := range map[string]string{
		"NUL": "client\x00.evil", "CR": "a\rb", "LF": "a\nb", "tab": "a\tb", "DEL": "a\x7f", "NEL": "a\u0085", "soft hyphen": "cli\u00adent",
		"zero-width space": "cli\u200bent", "joiner": "a\u200d", "word joiner": "a\u2060", "BOM": "\ufeffa", "override": "a\u202eb", "isolate": "\u2066a",
		"mark": "a\u200f", "line separator": "a\u2028", "paragraph separator": "a\u2029", "variation selector": "a\ufe0f", "grapheme joiner": "a\u034f",
		"tag": "a\U000e0061", "Hangul filler": "\u3164", "reserved ignorable": "a\U000e0fff", "Mongolian selector": "a\u180b", "replacement": "a\ufffd",
		"non-character": "a\uffff", "private use": "\ue000",
	} {
		if dn, err := FromRaw(rawName(encodedRDNSET{attr("CN", text)})); !errors.Is(err, errUnmatchableName) {
			t.Errorf("presented with %s: %s, %v", name, dn, err)
		}
		if dn, err := Parse("CN=" + text); err == nil {
			t.Errorf("declared with %s: %s", name, dn)
		}
	}
	if dn := mustPresent(t, rawName(repeatRDN(many, 128)...)); len(dn.rdns) != 128 {
		t.Error("128 attributes are not too many")
	}
}

func repeatRDN(r encodedRDNSET, n int) (rdns []encodedRDNSET) {
	for range n {
		rdns = append(rdns, r)
	}
	return rdns
}

// RFC 8705 §2.1 leaves the comparison to the server; it must be predictable.
func TestSubjectComparison_R4(t *testing.T) {
	same := [][2]string{
		{"Client", "cLIENT"}, {"a  b", " a b "}, {"Ärger", "ÄRGER"}, {"a\u0308", "Ä"}, {"ΣΊΣΥΦΟΣ", "Σίσυφος"}, {"Я", "я"}, {"Ⴀ", "ⴀ"}, {"ẞ", "ß"},
		{"\u212a", "k"}, {"\u212b", "å"}, {"\u2126", "ω"}, {"J\u030c", "\u01f0"}, {"\u0399\u0308\u0301", "\u0390"}, {"\u1fd3", "\u0390"}, {"ǻ", "Å\u0301"}, {"가", "\u1100\u1161"}, {"\u0130", "i\u0307"},
	}
	different := [][2]string{
		{"\u017f", "s"}, {"\u0130", "i"}, {"\u0131", "i"}, {"\u0130", "\u0131"}, {"\u0131", "I"}, {"ß", "ss"}, {"ẞ", "SS"}, {"ａ", "a"}, {"Ａ", "A"}, {"ﬁ", "fi"}, {"²", "2"}, {"①", "1"},
		{"a\u00a0b", "a b"}, {"a\u3000b", "a b"}, {"a\u2003b", "a b"}, {"a b", "ab"}, {"ä", "a"}, {"ä", "ae"}, {"а", "a"}, {"µ", "\u03bc"}, {"\u03b1\u03b9", "\u1fb3"}, {"\u0391\u0399", "\u1fbc"},
		{"\u0131\u0307", "i"}, {"ſt", "st"}, {"ǆ", "dž"}, {"…", "..."}, {"a-b", "a\u2010b"}, {"Ω\u0345", "ΩΙ"}, {"カ", "ｶ"}, {"\u2160", "I"},
	}
	key := func(text string) string { return mustPresent(t, rawName(encodedRDNSET{attr("CN", text)})).Key() }
	for _, pair := range same {
		if key(pair[0]) != key(pair[1]) {
			t.Errorf("%q is not %q", pair[0], pair[1])
		}
	}
	for _, pair := range different {
		if key(pair[0]) == key(pair[1]) {
			t.Errorf("%q is %q", pair[0], pair[1])
		}
	}
}

// Folding or normalizing the comparison form again must change nothing, for every
// character alone and with marks around it.
func TestDNFoldIsStable(t *testing.T) {
	const endOfLetters = 0x32000 // beyond are only tags, variation selectors and private use
	for r := rune(utf8.RuneSelf); r < endOfLetters; r++ {
		folded := foldRune(r)
		if foldRune(folded) != folded || folded < utf8.RuneSelf || unicode.IsMark(folded) != unicode.IsMark(r) {
			t.Fatalf("%U folds to %U", r, folded)
		}
		if unicode.SimpleFold(r) == r && !unicode.IsMark(r) && (norm.NFD.IsNormalString(string(r)) || unicode.In(r, unicode.Han, unicode.Hangul)) {
			continue
		}
		for _, format := range []string{"%", "a%", "%\u030c", "α% \u0308", "%\u0345"} {
			text := strings.ReplaceAll(format, "%", string(r))
			once := string(appendFolded(nil, text))
			if twice := string(appendFolded(nil, once)); twice != once || !norm.NFC.IsNormalString(once) {
				t.Fatalf("%+q folds to %+q and that to %+q", text, once, twice)
			}
			if composed := string(appendFolded(nil, norm.NFC.String(text))); composed != once {
				t.Fatalf("%+q folds to %+q, its composed form to %+q", text, once, composed)
			}
		}
	}
}

func TestDNKeyIsUnambiguous(t *testing.T) {
	keys := make(map[string]string)
	for _, name := range []string{
		"CN=a", "CN=ab", "CN=a,CN=b", "CN=b,CN=a", "CN=a,OU=b", "OU=b,CN=a", "CN=a+OU=b", `CN=a\+OU=b`, `CN=a\,OU=b`,
		"CN=s", "CN=a s", "2.5.4.3.0=a", "2.5.4=a", "2.5.4.3.97=b",
	} {
		key := mustDeclare(t, name).Key()
		if other, taken := keys[key]; taken {
			t.Errorf("%s and %s have one key", name, other)
		}
		keys[key] = name
	}
	if zero := (Name{}); zero.Key() != "" || zero.Reversed().Key() != "" || zero.String() != "" {
		t.Error("the zero name is not empty")
	}
}

// TestDNLooksReversed tests which declared names are in the order of OpenSSL, whatever
// they end in.
func TestDNLooksReversed(t *testing.T) {
	for text, want := range map[string]bool{
		"C=DE,O=company,CN=client":         true,
		"O=company,OU=production":          true,
		"O=company,UID=42":                 true,
		"O=company,serialNumber=42":        true,
		"C=DE,O=company":                   true,
		"C=DE,ST=Bavaria,L=Munich,O=x":     true,
		"DC=com,DC=example,OU=servers":     true,
		"L=Munich,emailAddress=a@b.de":     true,
		"CN=client,OU=production,O=x":      false,
		"CN=client,O=x,L=Munich,ST=B,C=DE": false,
		"OU=production,O=company":          false,
		"O=company,C=DE":                   false,
		"O=company,L=Munich":               false,
		"DC=example,DC=com":                false,
		"CN=x,OU=y":                        false,
		"OU=y,CN=x":                        false, // not known to be wider
		"O=company":                        false,
		"UID=1,CN=x":                       false,
	} {
		if got := mustDeclare(t, text).LooksReversed(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
