package keyring

import (
	"crypto"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

const testURL = "https://auth.example.com"

func newStorage(t testing.TB) *testenv.Storage { return testenv.NewStorage(t.TempDir()) }

// rsaKey is shared by all tests, because generating one is slow.
var rsaKey = sync.OnceValues(func() (crypto.Signer, error) { return Generate(RS256) })

// mustKey returns a new key each time, except for RSA.
func mustKey(t testing.TB, alg Algorithm, created time.Time) *Key {
	t.Helper()
	generate := func() (crypto.Signer, error) { return Generate(alg) }
	if alg.keyType() == "RSA" {
		generate = rsaKey
	}
	private, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(private, alg, created)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// examplePEM is the example key of RFC 8410 §10.3.
const examplePEM = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
`

func exampleKey(t testing.TB) *Key {
	t.Helper()
	key, err := parsePrivateKeyPEM([]byte(examplePEM), EdDSA, testenv.Now)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
