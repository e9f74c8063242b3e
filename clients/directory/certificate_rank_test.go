package directory

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestCertificateOfAHigherRank_B10: a certificate that fits what a client declares is not
// that of a client of a lower rank which declares it in another way: by a pin instead of a
// name, by another hash, or by another of its names.
func TestCertificateOfAHigherRank_B10(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.Subject(pkix.Name{CommonName: "billing"}), testpki.DNSNames("billing.example", "other.example"))
	sum, old := sha256.Sum256(leaf.Cert.Raw), sha1.Sum(leaf.Cert.Raw)
	key := sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo)
	ways := map[string]clients.Record{
		"subject":    {SubjectDN: clients.Strings{"CN=billing"}},
		"name":       {SANDNS: clients.Strings{"billing.example"}},
		"other name": {SANDNS: clients.Strings{"other.example"}},
		"thumbprint": {Thumbprints: clients.Strings{hex.EncodeToString(sum[:])}},
		"ended":      {Thumbprints: clients.Strings{hex.EncodeToString(sum[:]) + " until 2020-01-01T00:00:00Z"}},
		"SHA-1":      {Thumbprints: clients.Strings{hex.EncodeToString(old[:])}},
		"public key": {PublicKeys: clients.Strings{hex.EncodeToString(key[:])}},
	}
	found := func(r *clients.Registry) string {
		var ids []string
		for _, pin := range r.Pins(leaf.Cert, sum) {
			ids = append(ids, pin.Client.ID)
		}
		names, _ := r.Names(leaf.Cert)
		for _, name := range names {
			ids = append(ids, name.Client.ID)
		}
		slices.Sort(ids)
		return strings.Join(ids, " ")
	}
	for _, shared := range []bool{false, true} {
		for highWay, high := range ways {
			for lowWay, low := range ways {
				if highWay == lowWay || highWay == "ended" && lowWay == "thumbprint" || highWay == "thumbprint" && lowWay == "ended" {
					continue // which is for Edit.Add
				}
				high.ClientID, low.ClientID = "high", "low"
				high.SharedCredential, low.SharedCredential, high.Disabled = shared, shared, true
				w := newWorld(t)
				first, second := newGuest("first", high), newGuest("second", low)
				w.config.Sources = []clients.Source{first, second}
				w.mustLoad()
				want := "high"
				if shared {
					want = "high low"
				}
				if got := found(w.Registry()); got != want {
					t.Errorf("%s above %s, shared %t: found %q, want %q", highWay, lowWay, shared, got, want)
				}
				if err := w.watch(first).Update(t.Context(), []clients.Entry{{ID: "high"}}); err != nil {
					t.Fatal(err)
				}
				if got := found(w.Registry()); got != "low" {
					t.Errorf("%s above %s: found %q after the higher one has gone", highWay, lowWay, got)
				}
			}
		}
	}
	// among clients of one rank, nothing is above anything else
	w := newWorld(t)
	both := newGuest("both", ways["subject"], ways["thumbprint"], ways["name"])
	var records []clients.Record
	for i, way := range []string{"subject", "thumbprint", "name"} {
		record := ways[way]
		record.ClientID = fmt.Sprint("c", i)
		records = append(records, record)
	}
	both.entries = entriesOf(records...)
	w.config.Sources, w.config.Records = []clients.Source{both}, []clients.Record{pinned("unrelated")}
	w.mustLoad()
	if got := found(w.Registry()); got != "c0 c1 c2" {
		t.Errorf("of one rank: %q", got)
	}
}
