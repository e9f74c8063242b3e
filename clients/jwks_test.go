package clients

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestCertificatesOfJWKS_R9: the certificates of a JWK Set are the first ones of x5c, and
// have the keys of the JWKs.
func TestCertificatesOfJWKS_R9(t *testing.T) {
	ca := testpki.MustCA(t)
	ec, other := testpki.MustSelfSigned(t), testpki.MustIssue(t, ca)
	rsa := testpki.MustSelfSigned(t, testpki.WithKeyType(testpki.RSA2048))
	ed := testpki.MustSelfSigned(t, testpki.WithKeyType(testpki.Ed25519))
	chain := func(key *jose.JSONWebKey) { key.Certificates = append(key.Certificates, ca.Cert) }
	set := testpki.KeySet(t, testpki.JWK(t, ec), testpki.JWK(t, rsa), testpki.JWK(t, ed), testpki.JWK(t, other, chain),
		testpki.JWK(t, ec, func(key *jose.JSONWebKey) { key.Use, key.KeyID = "", "again" }))
	certificates, warnings, err := ParseKeySet(set)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := []*testpki.Leaf{ec, rsa, ed, other}
	if len(certificates) != len(want) {
		t.Fatalf("%d certificates", len(certificates))
	}
	for i, leaf := range want {
		if !bytes.Equal(certificates[i].Raw, leaf.Cert.Raw) {
			t.Errorf("certificate %d is another", i)
		}
	}
	if _, _, err := ParseKeySet(append([]byte(`{"extension":[{}],`), set[1:]...)); err != nil {
		t.Errorf("an unknown member: %v", err)
	}
}

// TestKeysThatAreIgnored_R9: an unusable key is ignored, but not its set.
func TestKeysThatAreIgnored_R9(t *testing.T) {
	good, other := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	rsa := testpki.MustSelfSigned(t, testpki.WithKeyType(testpki.RSA2048))
	edit := func(leaf *testpki.Leaf, change func(map[string]any)) json.RawMessage {
		var members map[string]any
		if err := json.Unmarshal(testpki.JWK(t, leaf), &members); err != nil {
			t.Fatal(err)
		}
		change(members)
		text, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	private, err := json.Marshal(jose.JSONWebKey{Key: other.Key, KeyID: "secret", Certificates: []*x509.Certificate{other.Cert}})
	if err != nil {
		t.Fatal(err)
	}
	der := base64.StdEncoding.EncodeToString(good.Cert.Raw)
	for name, test := range map[string]struct {
		key  json.RawMessage
		want string
	}{
		"no x5c":              {testpki.JWK(t, other, func(key *jose.JSONWebKey) { key.Certificates = nil }), "no x5c"},
		"empty x5c":           {edit(other, func(m map[string]any) { m["x5c"] = []string{} }), "x5c is empty"},
		"x5c of another key":  {edit(other, func(m map[string]any) { m["x5c"] = []string{der} }), "do not match"},
		"x5c of another type": {edit(rsa, func(m map[string]any) { m["x5c"] = []string{der} }), "do not match"},
		"x5c not first":       {edit(other, func(m map[string]any) { m["x5c"] = []any{der, m["x5c"].([]any)[0]} }), "do not match"},
		"x5c is no base64":    {edit(other, func(m map[string]any) { m["x5c"] = []string{"%"} }), "x5c"},
		"x5c is garbage":      {edit(other, func(m map[string]any) { m["x5c"] = []string{"AAAA"} }), "x5c"},
		"x5c is a string":     {edit(other, func(m map[string]any) { m["x5c"] = der }), "x5c is not an array of strings (RFC 7517 §4.7)"},
		"x5c alone":           {json.RawMessage(`{"x5c":["` + der + `"]}`), "missing json web key type"},
		"no coordinates":      {json.RawMessage(`{"kty":"EC","crv":"P-256","x5c":["` + der + `"]}`), "invalid EC key"},
		"x5c is PEM":          {edit(other, func(m map[string]any) { m["x5c"] = []string{string(other.PEM())} }), "the first certificate in x5c cannot be read: it is PEM"},
		"x5c is base64url":    {edit(other, func(m map[string]any) { m["x5c"] = []string{base64.RawURLEncoding.EncodeToString(other.Cert.Raw)} }), "it is not base64 with the standard alphabet and padding (RFC 7517 §4.7)"},
		"x5c with a line": {edit(other, func(m map[string]any) {
			m["x5c"] = []string{m["x5c"].([]any)[0].(string) + "-----END CERTIFICATE-----"}
		}), "it is not base64"},
		"x with padding": {edit(other, func(m map[string]any) { m["x"] = m["x"].(string) + "=" }), "its key cannot be read: a member is not base64url without padding (RFC 7518 §6)"},
		"x is a number":  {edit(other, func(m map[string]any) { m["x"] = 5 }), "its key cannot be read: "},
		"for encryption": {testpki.JWK(t, other, func(key *jose.JSONWebKey) { key.Use = "enc" }), "use is 'enc', not sig"},
		"unknown type":   {json.RawMessage(`{"kty":"\u202eX","kid":"a\nb","x5c":["` + der + `"]}`), `(kid 'a\nb') is ignored: `},
		"private":        {private, "(kid 'secret') is ignored: contains PRIVATE key material"},
		"private RSA":    {edit(rsa, func(m map[string]any) { m["dp"] = "" }), "PRIVATE"},
		"symmetric":      {json.RawMessage(`{"kty":"oct","k":"c2VjcmV0"}`), "PRIVATE"},
		"a string":       {json.RawMessage(`"key"`), "not a JSON object"},
		"null":           {json.RawMessage(`null`), "not a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			certificates, warnings, err := ParseKeySet(testpki.KeySet(t, test.key, testpki.JWK(t, good)))
			if err != nil || len(certificates) != 1 || !bytes.Equal(certificates[0].Raw, good.Cert.Raw) {
				t.Fatalf("%d certificates, %v", len(certificates), err)
			}
			if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "key 1") || !strings.Contains(warnings[0], test.want) || len(warnings[0]) > 1000 {
				t.Errorf("warnings %q, want %q", warnings, test.want)
			}
			_, _, err = ParseKeySet(testpki.KeySet(t, test.key))
			if err == nil || !strings.Contains(err.Error(), "none of its keys can be used") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("alone: %v", err)
			}
			var members map[string]any
			if json.Unmarshal(test.key, &members) == nil && members["d"] != nil && strings.Contains(warnings[0]+err.Error(), members["d"].(string)) {
				t.Error("the private key is shown")
			}
		})
	}
}

// TestFirstCertificateOfAKeyDecides checks that nothing but the key and the first
// certificate matters: a fault elsewhere is a warning with the kid, and the certificate
// counts.
func TestFirstCertificateOfAKeyDecides_R9(t *testing.T) {
	leaf, other := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	der := base64.StdEncoding.EncodeToString
	sum := func(leaf *testpki.Leaf) []byte { s := sha256.Sum256(leaf.Cert.Raw); return s[:] }
	const stale = "x5t#S256 is not the hash of the first certificate in x5c, which counts nevertheless; replace it or leave it out"
	second := func(element string) func(map[string]any) {
		return func(m map[string]any) { m["x5c"] = append(m["x5c"].([]any), element) }
	}
	member := func(name string, value any) func(map[string]any) {
		return func(m map[string]any) { m[name] = value }
	}
	for name, test := range map[string]struct {
		change func(map[string]any)
		want   string // "" for no warning
	}{
		"right hash":               {member("x5t#S256", base64.RawURLEncoding.EncodeToString(sum(leaf))), ""},
		"second of another kind":   {second(der(testpki.Unreadable(t, testpki.UnsupportedCurve, "Meter CA"))), "certificate 2 in x5c cannot be read, and only the first counts: invalid certificate 'CN=Meter CA': its public key is on an elliptic curve that is not supported"},
		"second cut off":           {second(der(other.Cert.Raw[:100])), "certificate 2 in x5c cannot be read"},
		"second is no base64":      {second(der(other.Cert.Raw) + "-----END CERTIFICATE-----"), "certificate 2 in x5c cannot be read, and only the first counts: it is not base64"},
		"second is empty":          {second(""), "certificate 2 in x5c cannot be read"},
		"second is another":        {second(der(other.Cert.Raw)), ""},
		"stale hash":               {member("x5t#S256", base64.RawURLEncoding.EncodeToString(sum(other))), stale},
		"hash of zeros":            {member("x5t#S256", strings.Repeat("A", 43)), stale},
		"hash in hex":              {member("x5t#S256", hex.EncodeToString(sum(leaf))), stale},
		"hash in hex in base64url": {member("x5t#S256", base64.RawURLEncoding.EncodeToString([]byte(hex.EncodeToString(sum(leaf))))), ""},
		"hash with padding":        {member("x5t#S256", base64.URLEncoding.EncodeToString(sum(leaf))), stale},
		"hash that is a number":    {member("x5t#S256", 7), stale},
		"stale SHA-1":              {member("x5t", strings.Repeat("A", 27)), "x5t is not the hash of the first"},
		"line breaks": {func(m map[string]any) {
			text := m["x5c"].([]any)[0].(string)
			m["x5c"] = []string{text[:64] + "\r\n" + text[64:]}
		}, ""},
		"alg of another curve": {member("alg", "ES512"), ""},
		"kid that is a number": {member("kid", 5), ""},
		"x5u that is no URL":   {member("x5u", "::"), ""},
		"other members":        {func(m map[string]any) { m["key_ops"], m["nbf"], m["status"] = []string{"verify"}, 1, "ACTIVE" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var members map[string]any
			if err := json.Unmarshal(testpki.JWK(t, leaf), &members); err != nil {
				t.Fatal(err)
			}
			members["kid"] = "k1"
			test.change(members)
			text, err := json.Marshal(members)
			if err != nil {
				t.Fatal(err)
			}
			certificates, warnings, err := ParseKeySet(testpki.KeySet(t, text))
			if err != nil || len(certificates) != 1 || !certificates[0].Equal(leaf.Cert) {
				t.Fatalf("%d certificates, %v", len(certificates), err)
			}
			if got := strings.Join(warnings, "; "); test.want == "" && got != "" || test.want != "" && !strings.HasPrefix(got, "key 1 (kid 'k1'): "+test.want) {
				t.Errorf("warnings %q, want %q", got, test.want)
			}
		})
	}
}

// TestUnusableJWKS_B4: content that is not a JWK Set, or has no usable key, is an error,
// never a set without keys.
func TestUnusableJWKS_B4(t *testing.T) {
	good := testpki.JWK(t, testpki.MustSelfSigned(t))
	many := make([]json.RawMessage, jwks.MaxKeys+1)
	for i := range many {
		many[i] = good
	}
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"nothing":        {nil, "not a JWK Set"},
		"null":           {[]byte("null"), "not a JWK Set"},
		"an array":       {[]byte("[]"), "not a JWK Set"},
		"no keys member": {[]byte("{}"), "not a JWK Set"},
		"keys null":      {[]byte(`{"keys":null}`), "not a JWK Set"},
		"keys an object": {[]byte(`{"keys":{}}`), "not a JWK Set"},
		"a JWK":          {good, "not a JWK Set"},
		"other case":     {[]byte(`{"Keys":[` + string(good) + `]}`), "not a JWK Set"},
		"keys twice":     {[]byte(`{"keys":[` + string(good) + `],"keys":[]}`), `duplicate member "keys"`},
		"member twice":   {[]byte(`{"keys":[{"kty":"EC","kty":"RSA"}]}`), `duplicate member "kty"`},
		"cut off":        {testpki.KeySet(t, good)[:100], "not a JWK Set"},
		"text after it":  {append(testpki.KeySet(t, good), '{'), "not a JWK Set"},
		"deep":           {[]byte(`{"keys":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`), "nested deeper"},
		"HTML":           {[]byte("<html>\u202e" + strings.Repeat("x", 5000)), "not a JWK Set"},
		"empty":          {testpki.KeySet(t), "it has no keys"},
		"too many":       {testpki.KeySet(t, many...), "it has 101 keys; at most 100 are read"},
		"too large":      {append(testpki.KeySet(t, good), bytes.Repeat([]byte(" "), MaxKeySetBytes)...), "larger than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			certificates, _, err := ParseKeySet(test.content)
			if err == nil || certificates != nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 1000 {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	if certificates, _, err := ParseKeySet(testpki.KeySet(t, many[:jwks.MaxKeys]...)); err != nil || len(certificates) != 1 {
		t.Error(err)
	}
	bad := make([]json.RawMessage, 20)
	for i := range bad {
		bad[i] = json.RawMessage("7")
	}
	_, warnings, err := ParseKeySet(testpki.KeySet(t, append(bad, good)...))
	if err != nil || len(warnings) != maxKeyWarnings+1 || warnings[maxKeyWarnings] != "15 more keys are ignored" {
		t.Error(err, warnings)
	}
}

// FuzzParseJWKS: whatever an owner publishes, each certificate has the key of its JWK,
// and no warning quotes anything private.
func FuzzParseJWKS(f *testing.F) {
	leaf := testpki.MustSelfSigned(f)
	rsa := testpki.MustSelfSigned(f, testpki.WithKeyType(testpki.RSA2048))
	f.Add(testpki.JWKS(f, leaf, rsa))
	f.Add(testpki.KeySet(f))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		certificates, warnings, err := ParseKeySet(content)
		if (err == nil) != (len(certificates) > 0) || len(certificates) > jwks.MaxKeys || len(warnings) > maxKeyWarnings+1 {
			t.Fatalf("%d certificates, %d warnings, %v", len(certificates), len(warnings), err)
		}
		for _, warning := range warnings {
			if len(warning) > 2000 {
				t.Errorf("a warning of %d bytes", len(warning))
			}
		}
		if err != nil {
			return
		}
		var set jose.JSONWebKeySet
		var raw map[string]json.RawMessage
		var keys []json.RawMessage
		if json.Unmarshal(content, &raw) != nil || json.Unmarshal(raw["keys"], &keys) != nil {
			t.Fatal("not a JWK Set")
		}
		for _, text := range keys {
			var key jose.JSONWebKey
			if json.Unmarshal(text, &key) == nil {
				set.Keys = append(set.Keys, key)
			}
		}
		for _, certificate := range certificates {
			found := false
			for _, key := range set.Keys {
				found = found || key.IsPublic() && len(key.Certificates) > 0 && bytes.Equal(key.Certificates[0].Raw, certificate.Raw) &&
					fmt.Sprint(key.Key) == fmt.Sprint(certificate.PublicKey)
			}
			if !found {
				t.Error("a certificate of no key counts")
			}
		}
	})
}

// TestByteOrderMarkInFiles checks that a byte order mark before a client's certificate or
// JWKS does no harm.
func TestByteOrderMarkInFiles(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	if got, err := ParseCertificate(append([]byte("\ufeff"), leaf.PEM()...)); err != nil || !got.Equal(leaf.Cert) {
		t.Errorf("certificate: %v", err)
	}
	if _, _, err := ParseKeySet([]byte("\ufeff{\"keys\":[1]}")); err == nil || !strings.Contains(err.Error(), "none of its keys can be used") {
		t.Errorf("JWKS: %v", err)
	}
}
