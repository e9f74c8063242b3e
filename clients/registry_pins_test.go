package clients

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestTwoClientsOneKey_B10: a key belongs to one client, whatever the
// certificates and the ends of the pins.
func TestTwoClientsOneKey_B10(t *testing.T) {
	const later = " until 2090-01-01T00:00:00Z"
	for name, pins := range map[string][2]Record{
		"public key":        {{PublicKeys: Strings{sha256Hex}}, {PublicKeys: Strings{strings.ToUpper(sha256Hex)}}},
		"public key, ends":  {{PublicKeys: Strings{sha256Hex + later}}, {PublicKeys: Strings{sha256Hex}}},
		"SHA-1":             {{Thumbprints: Strings{sha1Hex}}, {Thumbprints: Strings{sha1Hex}}},
		"one of several":    {{PublicKeys: Strings{strings.Repeat("0a", 32), sha256Hex}}, {PublicKeys: Strings{strings.Repeat("0b", 32), sha256Hex}}},
		"beside other kind": {{PublicKeys: Strings{sha256Hex}, SubjectDN: Strings{"CN=a"}}, {PublicKeys: Strings{sha256Hex}, SubjectDN: Strings{"CN=b"}}},
	} {
		t.Run(name, func(t *testing.T) {
			one, two := pins[0], pins[1]
			one.ClientID, two.ClientID = "one", "two"
			_, err := newRegistry([]*Client{mustClient(t, one), mustClient(t, two)})
			if err == nil {
				t.Fatal("it loads")
			}
			for _, text := range []string{"client 'one'", "client 'two'", "shared_credential"} {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v does not say %s", err, text)
				}
			}
			one.SharedCredential, two.SharedCredential = true, true
			if _, err := newRegistry([]*Client{mustClient(t, one), mustClient(t, two)}); err != nil {
				t.Errorf("shared: %v", err)
			}
		})
	}
	// a thumbprint and a key hash of the same octets differ
	thumbprint := mustClient(t, Record{ClientID: "one", Thumbprints: Strings{sha256Hex}})
	key := mustClient(t, Record{ClientID: "two", PublicKeys: Strings{sha256Hex}})
	if _, err := newRegistry([]*Client{thumbprint, key}); err != nil {
		t.Error(err)
	}
}

// TestPinWithAndWithoutAnEnd: a pin that ends and the same one without an end
// both stay, so that the one without goes on when the other has ended; the same
// pin twice stays once.
func TestPinWithAndWithoutAnEnd(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	certificate, key := sha256.Sum256(leaf.Cert.Raw), sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo)
	const ends, later = " until 2050-01-01T00:00:00Z", " until 2060-01-01T00:00:00Z"
	after := time.Date(2055, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, declare := range map[string]func(pins ...string) Record{
		"public_key": func(pins ...string) Record { return Record{ClientID: "a", PublicKeys: pins} },
		"thumbprint": func(pins ...string) Record { return Record{ClientID: "a", Thumbprints: pins} },
	} {
		hash := hex.EncodeToString(key[:])
		if name == "thumbprint" {
			hash = hex.EncodeToString(certificate[:])
		}
		for _, test := range []struct {
			pins        []string
			stay, count int // in all, and after the first end
		}{
			{[]string{hash + ends, hash}, 2, 1},
			{[]string{hash, hash + ends}, 2, 1},
			{[]string{hash + ends, hash + later}, 2, 1},
			{[]string{hash + ends, hash + ends}, 1, 0},
			{[]string{hash, hash + ends, hash}, 2, 1},
		} {
			registry, err := newRegistry([]*Client{mustClient(t, declare(test.pins...))})
			if err != nil {
				t.Fatal(err)
			}
			count := 0
			found := registry.Pins(leaf.Cert, certificate)
			for _, pin := range found {
				if !pin.Ended(after) {
					count++
				}
			}
			if len(found) != test.stay || count != test.count {
				t.Errorf("%s %q: %d pins, of which %d count after the first end; want %d and %d", name, test.pins, len(found), count, test.stay, test.count)
			}
		}
	}
}

// TestEveryPrivateMember_R9: each private member of a JWK makes the key unusable,
// whatever its value.
func TestEveryPrivateMember_R9(t *testing.T) {
	good := testpki.MustSelfSigned(t)
	rsa := testpki.MustSelfSigned(t, testpki.WithKeyType(testpki.RSA2048))
	for _, member := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} { // RFC 7518 §6
		for _, value := range []string{`"AQAB"`, `""`, `null`, `[{"r":"AQAB","d":"AQAB","t":"AQAB"}]`} {
			key := append(bytes.TrimSuffix(bytes.Clone(testpki.JWK(t, rsa)), []byte("}")), (`,"` + member + `":` + value + "}")...)
			certificates, warnings, err := ParseKeySet(testpki.KeySet(t, json.RawMessage(key), testpki.JWK(t, good)))
			if err != nil || len(certificates) != 1 || !bytes.Equal(certificates[0].Raw, good.Cert.Raw) {
				t.Fatalf("%s %s: %d certificates, %v", member, value, len(certificates), err)
			}
			if len(warnings) != 1 || !strings.Contains(warnings[0], "PRIVATE key material") {
				t.Errorf("%s %s: warnings %q", member, value, warnings)
			}
		}
	}
}
