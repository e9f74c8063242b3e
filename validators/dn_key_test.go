package validators

import (
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
)

// TestOpaqueValuesAreNotText_B8 tests that a name matches nothing if a value of it is
// not a string, not even the text with the same octets.
var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

func TestOpaqueValuesAreNotText_B8(t *testing.T) {
	for _, opaque := range []asn1.RawValue{
		{Tag: asn1.TagOctetString, Bytes: []byte("client")},
		{Class: asn1.ClassApplication, Tag: asn1.TagUTF8String, Bytes: []byte("client")},
		// its tag is the letter a, its length the exclamation mark
		{Class: asn1.ClassApplication, Tag: 1, IsCompound: true, Bytes: []byte(strings.Repeat("x", '!'))},
	} {
		raw := rawName(encodedRDNSET{{Type: oidCommonName, Value: opaque}})
		if dn, err := DNFromRaw(raw); !errors.Is(err, errUnmatchableName) {
			t.Errorf("DNFromRaw() = %s, %v", dn, err)
		}
		if dn, err := ParseDN(FormatDN(raw)); err == nil || !strings.Contains(err.Error(), "is not text") {
			t.Errorf("ParseDN() = %s, %v", dn, err)
		}
	}
}
