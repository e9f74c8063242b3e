package validators

import (
	"encoding/asn1"
	"strings"
	"testing"
)

// TestOpaqueValuesAreNotText_B8 tests that a value that is not a string is compared by
// its encoding, and differs from a string with the same octets.
func TestOpaqueValuesAreNotText_B8(t *testing.T) {
	cn := attr("CN", "x").Type
	// its tag is the letter a, its length the exclamation mark
	opaque := asn1.RawValue{Class: asn1.ClassApplication, Tag: 1, IsCompound: true, Bytes: []byte(strings.Repeat("x", '!'))}
	text := "a!" + string(opaque.Bytes)
	presented := mustPresent(t, rawName(encodedRDNSET{{Type: cn, Value: opaque}}))
	spelt := mustPresent(t, rawName(encodedRDNSET{attr("CN", text)}))
	if der, err := asn1.Marshal(opaque); err != nil || string(der) != text {
		t.Fatalf("the encoding is %q %v, so nothing is tested here", der, err)
	}
	if presented.Key() == spelt.Key() || presented.Key() == mustDeclare(t, "CN="+text).Key() {
		t.Errorf("%s is taken for %s", presented, spelt)
	}
	if spelt.Key() != mustDeclare(t, "CN="+text).Key() || presented.Key() != mustDeclare(t, presented.String()).Key() {
		t.Error("a value does not match itself")
	}
}
