package keyring

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func publicPEM(t testing.TB, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func publicJWK(t testing.TB, key *Key, change func(map[string]any)) []byte {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal(key.doc, &members); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(members)
	}
	data, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func set(jwks ...[]byte) []byte {
	var raw []json.RawMessage
	for _, jwk := range jwks {
		raw = append(raw, jwk)
	}
	data, _ := json.Marshal(map[string]any{"keys": raw})
	return data
}

// certificatePEM returns a self-signed certificate of a key.
func certificatePEM(t testing.TB, key *Key) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.private.Public(), key.private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestVerifyKeyFiles(t *testing.T) {
	p256, p521, ed, rsaKey := mustKey(t, ES256, testenv.Now), mustKey(t, ES512, testenv.Now), exampleKey(t), mustKey(t, RS256, testenv.Now)
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(rsaKey.private.Public().(*rsa.PublicKey))})
	without := func(names ...string) func(map[string]any) {
		return func(m map[string]any) {
			for _, name := range names {
				delete(m, name)
			}
		}
	}
	for name, tc := range map[string]struct {
		data []byte
		want []string // kid and algorithm
	}{
		"P-256":                 {publicPEM(t, p256.private.Public()), []string{p256.ID, "ES256"}},
		"P-521":                 {publicPEM(t, p521.private.Public()), []string{p521.ID, "ES512"}},
		"Ed25519":               {publicPEM(t, ed.private.Public()), []string{ed.ID, "EdDSA"}},
		"RSA":                   {publicPEM(t, rsaKey.private.Public()), []string{rsaKey.ID, "RS256"}},
		"PKCS#1":                {pkcs1, []string{rsaKey.ID, "RS256"}},
		"text around it":        {append([]byte("the old server\n"), publicPEM(t, ed.private.Public())...), []string{ed.ID, "EdDSA"}},
		"a certificate":         {certificatePEM(t, p256), []string{p256.ID, "ES256"}},
		"a JWK":                 {publicJWK(t, p256, func(m map[string]any) { m["kid"] = "2024-1" }), []string{"2024-1", "ES256"}},
		"a JWK without a kid":   {publicJWK(t, p256, without("kid", "use", "alg")), []string{p256.ID, "ES256"}},
		"a JWK for PS256":       {publicJWK(t, rsaKey, func(m map[string]any) { m["alg"] = "PS256" }), []string{rsaKey.ID, "PS256"}},
		"a set":                 {set(p256.doc, ed.doc), []string{p256.ID, "ES256", ed.ID, "EdDSA"}},
		"a set with encryption": {set(p256.doc, publicJWK(t, rsaKey, func(m map[string]any) { m["use"], m["alg"] = "enc", "RSA-OAEP" })), []string{p256.ID, "ES256"}},
	} {
		t.Run(name, func(t *testing.T) {
			keys, _, err := ParseVerifyKeys(tc.data)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, key := range keys {
				got = append(got, key.ID, string(key.Algorithm))
			}
			if strings.Join(got, " ") != strings.Join(tc.want, " ") {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestVerifyKeyFilesThatAreRefused(t *testing.T) {
	p256, ed := mustKey(t, ES256, testenv.Now), exampleKey(t)
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := encodePrivateKeyPEM(p256.private)
	if err != nil {
		t.Fatal(err)
	}
	strong := mustKey(t, RS256, testenv.Now).private.Public().(*rsa.PublicKey)
	with := func(name string, value any) []byte {
		return publicJWK(t, p256, func(m map[string]any) { m[name] = value })
	}
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"empty":               {nil, "there is no public key in it; expected -----BEGIN PUBLIC KEY-----, a certificate, or a JWK"},
		"garbage":             {[]byte("hello"), "there is no public key in it"},
		"cut off":             {publicPEM(t, p256.private.Public())[:60], "there is no public key in it"},
		"broken":              {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}), "the public key does not parse"},
		"a private key":       {private, "this is a private key, which must not be here; write its public half with openssl pkey -in <file> -pubout -out <new-file>"},
		"an encrypted key":    {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}}), "this is a private key, which must not be here"},
		"a request":           {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}}), "the PEM block is not a public key"},
		"a chain":             {append(certificatePEM(t, p256), certificatePEM(t, ed)...), "there are several PEM blocks; keep only the key that has signed"},
		"a key and half one":  {append(publicPEM(t, p256.private.Public()), "-----BEGIN PUBLIC KEY-----\n"...), "there are several PEM blocks"},
		"half one and a key":  {append([]byte("-----BEGIN PUBLIC KEY-----\n"), publicPEM(t, p256.private.Public())...), "there "},
		"RSA of 1024 bits":    {publicPEM(t, &weak.PublicKey), "the RSA key has 1024 bits; use one of at least 2048"},
		"RSA of 9000 bits":    {publicPEM(t, &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int), 8999, 1), E: 65537}), "the RSA key has 9000 bits; use one of at most 8192"},
		"an exponent of 1":    {[]byte(`{"kty":"RSA","e":"AQ","n":"` + jwkN(t, strong) + `"}`), "the RSA key has a bad exponent"},
		"P-224":               {publicPEM(t, &p224.PublicKey), "keys of type P-224 cannot be used for tokens; use P-256"},
		"too large":           {make([]byte, maxVerifyKeys+1), "more than any set of keys"},
		"broken JSON":         {[]byte("{"), "key 1: not a JSON object"},
		"no JWK":              {[]byte("{}"), "key 1: the JWK does not parse"},
		"no object":           {[]byte(`{"keys":[1]}`), "key 1: not a JSON object"},
		"no keys":             {[]byte(`{"keys":[]}`), "there is no key for signatures in it"},
		"for encryption":      {with("use", "enc"), "there is no key for signatures in it"},
		"a private JWK":       {with("d", "AA"), "key 1: this is a private key, which must not be here; keep only its public members"},
		"a secret":            {[]byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`), "key 1: this is a private key"},
		"an unknown kind":     {[]byte(`{"kty":"OKP","crv":"X25519","x":"AA"}`), "key 1: the JWK does not parse"},
		"HS256":               {with("alg", "HS256"), "key 1: signing algorithm 'HS256' is not supported"},
		"another algorithm":   {with("alg", "ES384"), "key 1: signing algorithm ES384 is for P-384 keys, this key is P-256"},
		"a point off curve":   {with("x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "key 1: the JWK does not parse"},
		"a long kid":          {with("kid", strings.Repeat("k", 257)), "key 1: the kid has 257 bytes; use at most 256"},
		"the second of a set": {set(ed.doc, with("alg", "none")), "key 2: signing algorithm 'none' is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, _, err := ParseVerifyKeys(tc.data)
			if err == nil || !strings.Contains(err.Error(), tc.want) || keys != nil {
				t.Errorf("got %v, %v, want %q", keys, err, tc.want)
			}
		})
	}
}

// TestVerifyKeysThatAreNotNeeded checks that what is wrong with a certificate, with its
// chain, or with another key of a set, does not keep a key from being used.
func TestVerifyKeysThatAreNotNeeded(t *testing.T) {
	key := mustKey(t, ES256, testenv.Now)
	ca := testpki.MustCA(t)
	with := func(name string, value any) []byte {
		return publicJWK(t, key, func(m map[string]any) { m[name] = value })
	}
	unknown := []byte(`{"kty":"OKP","crv":"X25519","x":"AA","kid":"u"}`)
	for name, test := range map[string]struct {
		data     []byte
		warnings string
	}{
		"a chain":                 {append(certificatePEM(t, key), ca.PEM()...), ""},
		"a chain of another kind": {append(certificatePEM(t, key), testpki.UnreadablePEM(t, testpki.NegativeSerial, "Old CA")...), ""},
		"x5c that is damaged":     {with("x5c", []string{"AAAA"}), ""},
		"x5t that is stale":       {with("x5t#S256", strings.Repeat("A", 43)), ""},
		"another of no kind":      {[]byte(`{"keys":[` + string(unknown) + `,` + string(with("use", "sig")) + `]}`), "key 1: the JWK does not parse: "},
	} {
		t.Run(name, func(t *testing.T) {
			keys, warnings, err := ParseVerifyKeys(test.data)
			if err != nil || len(keys) != 1 {
				t.Fatalf("%d keys, %v", len(keys), err)
			}
			if got := strings.Join(warnings, "; "); test.warnings == "" && got != "" || !strings.HasPrefix(got, test.warnings) {
				t.Errorf("warnings %q", got)
			}
		})
	}
}

func jwkN(t testing.TB, key *rsa.PublicKey) string {
	t.Helper()
	return base64.RawURLEncoding.EncodeToString(key.N.Bytes())
}

func mustVerifyKeys(t testing.TB, data []byte) []*VerifyKey {
	t.Helper()
	keys, _, err := ParseVerifyKeys(data)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestVerifyKeysArePublishedAndNeverSign(t *testing.T) {
	old := exampleKey(t)
	verify := mustVerifyKeys(t, publicPEM(t, old.private.Public()))
	own := mustKey(t, ES256, testenv.Now)
	ring, err := New(own).WithVerifyKeys(verify...)
	if err != nil {
		t.Fatal(err)
	}
	if got := states(ring); got != own.ID+" active, "+old.ID+" verify" || ring.Signing() != own || len(ring.published) != 2 {
		t.Errorf("states are %q", got)
	}
	if want := `{"keys":[` + string(own.doc) + `,` + string(old.doc) + `]}`; string(ring.JWKS().Body) != want {
		t.Errorf("the JWKS is %s, want %s", ring.JWKS().Body, want)
	}
	if key, known := Fixed(ring).PublicKey(old.ID, ES256); !known || key.Algorithm != EdDSA || !key.Key.(ed25519.PublicKey).Equal(old.private.Public()) {
		t.Errorf("the key is %v, %v", key, known)
	}
	if ring, err := New(old).WithVerifyKeys(verify...); err != nil || states(ring) != old.ID+" active" || !Fixed(ring).Owns(old.ID) || Fixed(ring).Owns(own.ID) {
		t.Errorf("our own key: %v", err)
	}
	if _, err := New(own).WithVerifyKeys(append(verify, verify...)...); err == nil || !strings.Contains(err.Error(), "two keys have the kid") {
		t.Errorf("a kid twice: %v", err)
	}
}

func TestVerifyKeysBesideManagedOnes(t *testing.T) {
	old := exampleKey(t)
	storage := newStorage(t)
	store, _ := newTestStore(t, storage)
	store.VerifyKeys = mustVerifyKeys(t, publicPEM(t, old.private.Public()))
	source := mustManaged(t, store, nil)
	if _, known := source.PublicKey(old.ID, ES256); !known || len(source.Infos()) != 1 {
		t.Error("without managed keys the others are not accepted")
	}
	source.Wait(t.Context())
	ring, err := source.Ensure(t.Context())
	if err != nil || states(ring) != ring.Signing().ID+" active, "+old.ID+" verify" {
		t.Errorf("states are %q, %v", states(ring), err)
	}
	// retiring the managed keys does not affect it
	kid, err := source.Rotate(t.Context(), true)
	if err != nil || states(source.Current()) != kid+" active, "+old.ID+" verify" {
		t.Errorf("states are %q, %v", states(source.Current()), err)
	}
}

// FuzzParseVerifyKeys parses any file. Each resulting key has a kid, verifies
// with its one algorithm, and is published without private members.
func FuzzParseVerifyKeys(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, _, err := ParseVerifyKeys(data)
		if err != nil {
			if err.Error() == "" || keys != nil {
				t.Fatalf("got %v, %v", keys, err)
			}
			return
		}
		for _, key := range keys {
			kind, natural := describePublicKey(key.Key)
			if key.ID == "" || natural == "" || key.Algorithm.keyType() != kind {
				t.Fatalf("%s was read as %+v", data, key)
			}
			var members map[string]json.RawMessage
			if err := json.Unmarshal(key.doc, &members); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "k", "x5c"} {
				if _, ok := members[name]; ok {
					t.Fatalf("published as %s", key.doc)
				}
			}
			again, _, err := ParseVerifyKeys(key.doc)
			if err != nil || len(again) != 1 || again[0].Algorithm != key.Algorithm {
				t.Fatalf("%s does not survive: %v", key.doc, err)
			}
		}
	})
}
