package directory

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// largeFile is a file of many clients, one of which, the last but one, changes
// with the variant.
func largeFile(tb testing.TB, path string, count, variant int) {
	tb.Helper()
	var text strings.Builder
	text.WriteString("[")
	for i := range count {
		n := i
		if i == count-1 {
			n += variant
		}
		sum := sha256.Sum256(fmt.Append(nil, n))
		fmt.Fprintf(&text, `{"client_id":"client-%d","client_name":"Client %d","scope":"api1 api%d","x509_thumbprints":"%s","claims":{"tenant":"t%d"}},`+"\n",
			i, i, i%100, hex.EncodeToString(sum[:]), i)
	}
	sum := sha256.Sum256([]byte("end"))
	text.WriteString(`{"client_id":"end","x509_thumbprints":"` + hex.EncodeToString(sum[:]) + `"}]`)
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func TestDirectoryOfManyClients(t *testing.T) {
	path := filepath.Join(t.TempDir(), "many.json")
	largeFile(t, path, 10_000, 0)
	leaf := testpki.MustSelfSigned(t)
	file := &testFile{path: path}
	d, err := New(t.Context(), Config{
		Records: []clients.Record{{ClientID: "j", JWKS: testpki.JWKS(t, leaf)}}, Sources: []clients.Source{file},
	})
	if err != nil {
		t.Fatal(err)
	}
	first := d.Registry()
	if first.Len() != 10_002 {
		t.Errorf("%d clients", first.Len())
	}
	largeFile(t, path, 10_000, 7)
	file.poll(t.Context())
	second := d.Registry()
	if second == first || second.Len() != first.Len() || who(second, leaf) != "j by jwks" || second.Client("j") != first.Client("j") {
		t.Error("the change of one client is not in force, or is more than that")
	}
	if first.Client("client-9999").Credentials[0].Value == second.Client("client-9999").Credentials[0].Value {
		t.Error("the client has not changed")
	}
}

func BenchmarkDirectoryOfAHundredThousand(b *testing.B) {
	path := filepath.Join(b.TempDir(), "many.json")
	largeFile(b, path, 100_000, 0)
	for b.Loop() {
		if _, err := New(b.Context(), Config{Sources: []clients.Source{&testFile{path: path}}}); err != nil {
			b.Fatal(err)
		}
	}
}
