package keyring

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func TestParseAlgorithm_R30(t *testing.T) {
	for _, alg := range Algorithms() {
		if got, err := ParseAlgorithm(string(alg)); err != nil || got != alg {
			t.Errorf("ParseAlgorithm(%q) = %q, %v", alg, got, err)
		}
	}
	for _, name := range []string{"", "none", "None", "HS256", "HS512", "es256", "ES256K", "ES256 ", "EDDSA"} {
		_, err := ParseAlgorithm(name)
		if err == nil {
			t.Errorf("algorithm %q was accepted", name)
			continue
		}
		for _, want := range []string{"'" + name + "'", "ES256", "EdDSA"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not mention %s", err, want)
			}
		}
	}
}

func TestGenerateFitsItsAlgorithm(t *testing.T) {
	for _, alg := range []Algorithm{ES256, ES384, ES512, RS256, PS512, EdDSA} {
		private, err := Generate(alg)
		if err != nil {
			t.Fatal(err)
		}
		key, err := NewKey(private, alg, testenv.Now)
		if err != nil {
			t.Fatal(err)
		}
		if key.Algorithm != alg || !key.created.Equal(testenv.Now) {
			t.Errorf("%s: got algorithm %s, created %v", alg, key.Algorithm, key.created)
		}
	}
	if _, err := Generate("HS256"); err == nil {
		t.Error("a key for HS256 was generated")
	}
}

// TestKeyIDIsTheRFC7638Thumbprint uses the key and thumbprint of RFC 8037
// appendix A.1 and A.3.
func TestKeyIDIsTheRFC7638Thumbprint(t *testing.T) {
	seed, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(ed25519.NewKeyFromSeed(seed), "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; key.ID != want {
		t.Errorf("kid is %s, want %s", key.ID, want)
	}
	if want := (PublicKey{ID: key.ID, Algorithm: EdDSA, Key: key.private.Public()}); !reflect.DeepEqual(key.PublicKey, want) {
		t.Errorf("published as %+v", key.PublicKey)
	}
}

func pemBlock(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemBlock("PRIVATE KEY", der)
}

func TestParsePrivateKeyPEM(t *testing.T) {
	p256, p384 := testpki.MustKey(t, testpki.P256), testpki.MustKey(t, testpki.P384)
	p521, edKey := testpki.MustKey(t, testpki.P521), testpki.MustKey(t, testpki.Ed25519)
	anRSAKey := mustKey(t, RS256, time.Time{}).private
	sec1, err := x509.MarshalECPrivateKey(p256.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PrivateKey(anRSAKey.(*rsa.PrivateKey))

	for name, tc := range map[string]struct {
		pem       string
		alg, want Algorithm
		public    crypto.PublicKey
	}{
		"PKCS#8 P-256":        {pkcs8(t, p256), "", ES256, p256.Public()},
		"byte order mark":     {"\ufeff" + pkcs8(t, p256), "", ES256, p256.Public()},
		"PKCS#8 P-384":        {pkcs8(t, p384), "", ES384, p384.Public()},
		"PKCS#8 P-521":        {pkcs8(t, p521), "", ES512, p521.Public()},
		"PKCS#8 Ed25519":      {pkcs8(t, edKey), "", EdDSA, edKey.Public()},
		"PKCS#8 RSA":          {pkcs8(t, anRSAKey), "", RS256, anRSAKey.Public()},
		"PKCS#8 RSA as PS512": {pkcs8(t, anRSAKey), PS512, PS512, anRSAKey.Public()},
		"PKCS#1":              {pemBlock("RSA PRIVATE KEY", pkcs1), PS256, PS256, anRSAKey.Public()},
		"SEC 1":               {pemBlock("EC PRIVATE KEY", sec1), ES256, ES256, p256.Public()},
		"EC parameters first": {pemBlock("EC PARAMETERS", []byte{6, 0}) + pemBlock("EC PRIVATE KEY", sec1), "", ES256, p256.Public()},
		"text around it":      {"Private-Key: (256 bit)\n\n" + pkcs8(t, p256) + "\nbye\n", "", ES256, p256.Public()},
		"CRLF":                {strings.ReplaceAll(pkcs8(t, p256), "\n", "\r\n"), "", ES256, p256.Public()},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := ParsePrivateKeyPEM([]byte(tc.pem), tc.alg)
			if err != nil {
				t.Fatal(err)
			}
			if key.Algorithm != tc.want {
				t.Errorf("algorithm %s, want %s", key.Algorithm, tc.want)
			}
			if !tc.public.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.private.Public()) {
				t.Error("another key came out")
			}
		})
	}
}

func TestParsePrivateKeyPEMRefuses(t *testing.T) {
	p256, p384 := testpki.MustKey(t, testpki.P256), testpki.MustKey(t, testpki.P384)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := testpki.MustSelfSigned(t)
	public, err := x509.MarshalPKIXPublicKey(p256.Public())
	if err != nil {
		t.Fatal(err)
	}
	certificate := pemBlock("CERTIFICATE", leaf.Cert.Raw)
	cutOff := pkcs8(t, p256)
	cutOff = cutOff[:len(cutOff)-20]

	for name, tc := range map[string]struct {
		pem  string
		alg  Algorithm
		want string
	}{
		"nothing":             {"", "", "no private key in PEM form"},
		"DER":                 {string(leaf.Cert.Raw), "", "no private key in PEM form"},
		"certificate":         {certificate, "", "this is a certificate, not a private key"},
		"key and certificate": {pkcs8(t, p256) + certificate, "", "this is a certificate, not a private key"},
		"request":             {pemBlock("CERTIFICATE REQUEST", nil), "", "this is a certificate request"},
		"public key":          {pemBlock("PUBLIC KEY", public), "", "this is a public key"},
		"RSA public key":      {pemBlock("RSA PUBLIC KEY", nil), "", "this is a public key"},
		"encrypted PKCS#8":    {pemBlock("ENCRYPTED PRIVATE KEY", []byte("x")), "", "the private key is encrypted"},
		"encrypted, old":      {"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", "", "the private key is encrypted"},
		"OpenSSH":             {pemBlock("OPENSSH PRIVATE KEY", []byte("x")), "", "convert the file to PKCS#8"},
		"something else":      {pemBlock("DH PARAMETERS", []byte("x")), "", "a PEM block is not a private key"},
		"two keys":            {pkcs8(t, p256) + pkcs8(t, p384), "", "several private keys"},
		"garbage":             {pemBlock("PRIVATE KEY", []byte("garbage")), "", "does not parse"},
		"cut off":             {cutOff, "", "damaged or cut off"},
		"second one cut off":  {pkcs8(t, p384) + cutOff, "", "damaged or cut off"},
		"first one cut off":   {cutOff + "\n" + pkcs8(t, p384), "", "damaged or cut off"},
		"P-224":               {pkcs8(t, p224), "", "keys of type P-224 cannot be used for tokens"},
		"X25519":              {pkcs8(t, x25519), "", "cannot sign tokens"},
		"RSA 1024":            {pkcs8(t, small), "", "has 1024 bits; use one of at least 2048"},
		"ES256 with P-384":    {pkcs8(t, p384), ES256, "signing algorithm ES256 is for P-256 keys, this key is P-384"},
		"EdDSA with P-256":    {pkcs8(t, p256), EdDSA, "signing algorithm EdDSA is for Ed25519 keys, this key is P-256"},
		"PS256 with P-256":    {pkcs8(t, p256), PS256, "signing algorithm PS256 is for RSA keys, this key is P-256"},
		"HS256":               {pkcs8(t, p256), "HS256", "signing algorithm 'HS256' is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePrivateKeyPEM([]byte(tc.pem), tc.alg)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestRSAKeysBelow2048BitsAreRefused_R47(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 2047)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKey(small, RS256, time.Time{}); err == nil {
		t.Error("an RSA key of 2047 bits was accepted")
	}
}
