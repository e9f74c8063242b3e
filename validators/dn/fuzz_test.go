package dn

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"CN=client, OU=production, O=company", `CN=a\,b+OU="x ""y"" \2C";2.5.4.10=#0c0161`, `OID.1.2.3=\C3\A4\20`,
		"subject=C = US, O = x", `/C=US/O=B\xC3\xA4r/CN=a\/b+OU=c`, "CN=\u0130\u0131\u017f\u212a", "CN=#040161,CN=",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		dn, err := Parse(s)
		if err != nil {
			if text := err.Error(); dn.Key() != "" || len(text) > 8<<10 || !testtool.Printable(text) {
				t.Fatalf("Parse(%q): %q", s, text)
			}
			return
		}
		checkRoundTrip(t, dn)
	})
}

func FuzzFromRaw(f *testing.F) {
	add := func(rdns ...encodedRDNSET) { f.Add(rawName(rdns...), threeRDNs()) }
	add(encodedRDNSET{attr("O", "Company")}, encodedRDNSET{attrOf("OU", asn1.TagPrintableString, " Production")}, encodedRDNSET{attrOf("CN", asn1.TagIA5String, "CLIENT")})
	add(encodedRDNSET{attr("CN", "a"), attr("OU", "b")}, encodedRDNSET{attrOf("CN", asn1.TagBMPString, "\x00c\x01\x7f")})
	add(encodedRDNSET{attrOf("CN", asn1.TagT61String, "B\xe4r")}, encodedRDNSET{attrOf("CN", asn1.TagOctetString, "a")}, encodedRDNSET{attr("1.2.3", "ſ\u0130")})
	add(encodedRDNSET{attr("CN", "")}, encodedRDNSET{})
	add(encodedRDNSET{attr("CN", "J\u030c\u0345 \u0391\u0399")}, encodedRDNSET{attr("O", "a\u200b\r\n")})
	f.Add(rawName(encodedRDNSET{attr("CN", "K a")}), rawName(encodedRDNSET{attrOf("CN", asn1.TagPrintableString, "k  A")}))

	f.Fuzz(func(t *testing.T, raw, other []byte) {
		for _, name := range [][]byte{raw, other} {
			if text := Format(name); len(text) > 1024 || !testtool.Printable(text) {
				t.Fatalf("Format(%x) = %q", name, text)
			}
		}
		dn, err := FromRaw(raw)
		if err != nil {
			return
		}
		checkRoundTrip(t, dn)
		checkReencoded(t, raw, dn)

		otherDN, err := FromRaw(other)
		if err != nil {
			return
		}
		exact, folded, ok := independentReading(raw)
		otherExact, otherFolded, otherOK := independentReading(other)
		if !ok || !otherOK {
			return
		}
		same := dn.Key() == otherDN.Key()
		if !same && slices.Equal(exact, otherExact) {
			t.Errorf("%s and %s differ", dn, otherDN)
		}
		if same && !slices.Equal(folded, otherFolded) {
			t.Errorf("%s and %s are the same", dn, otherDN)
		}
	})
}

// checkRoundTrip checks what is true for every name.
func checkRoundTrip(t *testing.T, dn Name) {
	t.Helper()
	text := dn.String()
	if !testtool.Printable(text) {
		t.Fatalf("String() = %q", text)
	}
	for _, r := range dn.rdns {
		for _, a := range r {
			once := string(appendFolded(nil, a.value))
			if string(appendFolded(nil, once)) != once || !norm.NFC.IsNormalString(once) {
				t.Fatalf("%q folds to the unstable %q", a.value, once)
			}
			if once == "" {
				return // cannot be declared
			}
		}
	}
	if len(text) > maxDeclaredBytes {
		return
	}
	again, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if again.Key() != dn.Key() || again.String() != text || again.Reversed().Key() != dn.Reversed().Key() {
		t.Fatalf("%s is read back as %s", text, again)
	}
}

// checkReencoded checks that the name is equal with the string types that Go chooses for
// its values.
func checkReencoded(t *testing.T, raw []byte, dn Name) {
	t.Helper()
	var sequence pkix.RDNSequence
	if _, err := asn1.Unmarshal(raw, &sequence); err != nil {
		return
	}
	if _, _, ok := independentReading(raw); !ok {
		return
	}
	reencoded, err := asn1.Marshal(sequence)
	if err != nil || len(reencoded) > maxNameBytes {
		return
	}
	again, err := FromRaw(reencoded)
	if err != nil || again.Key() != dn.Key() {
		t.Fatalf("%s is re-encoded as %s, %v", dn, again, err)
	}
}

// independentReading lists the attributes of a name as encoding/asn1 parses it for
// package pkix, with their exact values and with values folded as coarsely as Unicode
// can. ok is false for names with values that Go has no string for.
func independentReading(raw []byte) (exact, folded []string, ok bool) {
	var sequence pkix.RDNSequence
	if _, err := asn1.Unmarshal(raw, &sequence); err != nil {
		return nil, nil, false
	}
	coarse := cases.Fold()
	for i, r := range sequence {
		start := len(exact)
		for _, a := range r {
			value, isString := a.Value.(string)
			if !isString {
				return nil, nil, false
			}
			exact = append(exact, fmt.Sprintf("%d %s=%s", i, a.Type, value))
			value = norm.NFKC.String(coarse.String(norm.NFKD.String(coarse.String(norm.NFKD.String(value)))))
			folded = append(folded, fmt.Sprintf("%d %s=%s", i, a.Type, strings.Join(strings.Fields(value), " ")))
		}
		slices.Sort(exact[start:])
		slices.Sort(folded[start:])
	}
	return exact, folded, true
}
