package dn

import "testing"

// TestEncodedNamesMatch checks that the encoding of a declared name is a name that the
// declared one matches.
func TestEncodedNamesMatch(t *testing.T) {
	for _, text := range []string{
		"CN=client",
		"CN=client,OU=production,O=company",
		"CN=a+UID=b,DC=example,DC=com",
		`CN=Müller\, Sörén,emailAddress=a@example.com`,
		"CN=日本,C=JP",
		"emailAddress=ä@example.com",
		"1.2.3.4=x",
	} {
		declared, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		der, err := declared.Encode()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		encoded, err := FromRaw(der)
		if err != nil || encoded.Key() != declared.Key() {
			t.Errorf("%s is encoded as %s, %v", text, encoded, err)
		}
	}
}
