package dn

import (
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
)

// TestOpaqueValuesAreNotText_B8 tests that a name matches nothing if a value of it is
// not a string, not even the text with the same octets.
func TestOpaqueValuesAreNotText_B8(t *testing.T) {
	for _, opaque := range []asn1.RawValue{
		{Tag: asn1.TagOctetString, Bytes: []byte("client")},
		{Class: asn1.ClassApplication, Tag: asn1.TagUTF8String, Bytes: []byte("client")},
		// its tag is the letter a, its length the exclamation mark
		{Class: asn1.ClassApplication, Tag: 1, IsCompound: true, Bytes: []byte(strings.Repeat("x", '!'))},
	} {
		raw := rawName(encodedRDNSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: opaque}})
		if dn, err := FromRaw(raw); !errors.Is(err, errUnmatchableName) {
			t.Errorf("FromRaw() = %s, %v", dn, err)
		}
		if dn, err := Parse(Format(raw)); err == nil || !strings.Contains(err.Error(), "is not text") {
			t.Errorf("Parse() = %s, %v", dn, err)
		}
	}
}
