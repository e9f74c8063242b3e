package clients

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// who returns the clients that have the certificate as a pin, and the kind of pin.
func who(r *Registry, leaf *testpki.Leaf) string {
	var ids []string
	for _, pin := range r.Pins(leaf.Cert, sha256.Sum256(leaf.Cert.Raw)) {
		ids = append(ids, pin.Client.ID+" by "+string(pin.Kind))
	}
	return strings.Join(ids, ", ")
}

// TestJWKSInTheRegistry_R10: every certificate of a JWKS counts, as a pin.
func TestJWKSInTheRegistry_R10(t *testing.T) {
	one, two := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	client := mustClient(t, Record{ClientID: "a", JWKS: testpki.JWKS(t, one, two)})
	registry, err := newRegistry([]*Client{client})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range []*testpki.Leaf{one, two} {
		if got := who(registry, leaf); got != "a by jwks" {
			t.Errorf("it is %q", got)
		}
		pin := registry.Pins(leaf.Cert, sha256.Sum256(leaf.Cert.Raw))[0]
		if sum := sha256.Sum256(leaf.Cert.Raw); pin.Value != hex.EncodeToString(sum[:]) || !pin.Kind.Pinned() {
			t.Errorf("credential %+v", pin)
		}
		if near := registry.CertificateWithKey(sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo)); near != pin {
			t.Errorf("near miss %+v", near)
		}
	}
	if !registry.HasPins() || registry.HasPKI() || client.HasPKI() || len(registry.Listed(client)) != 2 || registry.Conflicts() != nil || registry.ambiguities.Len() != 0 {
		t.Error("a JWKS is no pins")
	}
	if cred := client.Credentials[0]; cred.Kind != KindJWKS || cred.Value != "written out" {
		t.Errorf("declared %+v", cred)
	}
}

// TestJWKSStealsNothing_B10: listing a certificate that another client
// declares has no effect.
func TestJWKSStealsNothing_B10(t *testing.T) {
	victim := testpki.MustSelfSigned(t, testpki.CommonName("billing"), testpki.DNSNames("billing.example.com"), testpki.URIs("spiffe://prod.example/ns/billing"))
	own := testpki.MustSelfSigned(t)
	dir := t.TempDir()
	file, _, err := victim.WriteFiles(dir, "victim")
	if err != nil {
		t.Fatal(err)
	}
	sum, old := sha256.Sum256(victim.Cert.Raw), sha1.Sum(victim.Cert.Raw)
	key := sha256.Sum256(victim.Cert.RawSubjectPublicKeyInfo)
	for kind, holder := range map[Kind]Record{
		KindThumbprint:        {Thumbprints: Strings{hex.EncodeToString(sum[:])}},
		KindThumbprint + "-1": {Thumbprints: Strings{hex.EncodeToString(old[:])}},
		KindThumbprint + "-2": {Thumbprints: Strings{hex.EncodeToString(sum[:]) + " until 2020-01-01T00:00:00Z"}},
		KindPublicKey:         {PublicKeys: Strings{hex.EncodeToString(key[:])}},
		KindCertificate:       {CertificateFiles: Strings{file}},
		KindSubject:           {SubjectDN: Strings{"cn=Billing"}},
		KindSANDNS:            {SANDNS: Strings{"*.example.com"}},
		KindSANURI:            {SANURI: Strings{"spiffe://prod.example/ns/*"}},
	} {
		for _, order := range []string{"holder first", "thief first"} {
			t.Run(string(kind)+", "+order, func(t *testing.T) {
				holder.ClientID = "holder"
				list := []*Client{mustClient(t, holder), mustClient(t, Record{ClientID: "thief", JWKS: testpki.JWKS(t, victim, own)})}
				if order == "thief first" {
					list[0], list[1] = list[1], list[0]
				}
				registry, err := newRegistry(list)
				if err != nil {
					t.Fatal(err)
				}
				if got := who(registry, victim); strings.Contains(got, "thief") {
					t.Errorf("it is %q", got)
				}
				if got := who(registry, own); got != "thief by jwks" {
					t.Errorf("what is his own is %q", got)
				}
				conflicts := registry.Conflicts()
				if registry.ambiguities.Len() != 0 || len(conflicts) != 1 || conflicts[0].Client.ID != "thief" || conflicts[0].Holder.Client.ID != "holder" ||
					conflicts[0].Thumbprint != hex.EncodeToString(sum[:]) || !strings.HasPrefix(string(kind), string(conflicts[0].Holder.Kind)) {
					t.Errorf("conflicts %+v", conflicts)
				}
			})
		}
	}
}

// TestJWKSThatListOneCertificate_B10: a certificate in several JWKS is a
// credential of each of these clients in any order, and is reported unless all of
// them share it.
func TestJWKSThatListOneCertificate_B10(t *testing.T) {
	leaf, own := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	sum := sha256.Sum256(leaf.Cert.Raw)
	for _, test := range []struct {
		shared []bool // of the clients a, b, …
		want   string
	}{
		{[]bool{false}, ""},
		{[]bool{false, false}, "[a b]"},
		{[]bool{true, false}, "[a b]"},
		{[]bool{false, true}, "[a b]"},
		{[]bool{true, true}, ""},
		{[]bool{false, false, false}, "[a b c]"},
		{[]bool{true, true, false}, "[a b c]"},
		{[]bool{true, true, true}, ""},
	} {
		var list []*Client
		var want []string
		for i, shared := range test.shared {
			id := string(rune('a' + i))
			record := Record{ClientID: id, JWKS: testpki.JWKS(t, leaf), SharedCredential: shared}
			if i == 0 {
				record.JWKS = testpki.JWKS(t, own, leaf)
			}
			list, want = append(list, mustClient(t, record)), append(want, id+" by jwks")
		}
		for range 2 {
			registry, err := newRegistry(list)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Split(who(registry, leaf), ", ")
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%v: it is %q, want %q", test.shared, got, want)
			}
			if got := who(registry, own); got != "a by jwks" {
				t.Errorf("%v: what one lists alone is %q", test.shared, got)
			}
			told := ""
			for _, a := range registry.allAmbiguities() {
				if told += fmt.Sprint(a.ClientIDs); a.Thumbprint != hex.EncodeToString(sum[:]) {
					t.Errorf("%v: thumbprint %s", test.shared, a.Thumbprint)
				}
			}
			if told != test.want || len(registry.Conflicts()) != 0 {
				t.Errorf("%v: ambiguous for %s, conflicts %+v", test.shared, told, registry.Conflicts())
			}
			slices.Reverse(list)
		}
	}
}

// TestJWKSShareOnlyWithJWKS_B10: a declared credential is not shared with a JWKS, even
// if both clients allow it. Otherwise the owner of the JWKS could impersonate the
// other client, or keep it out.
func TestJWKSShareOnlyWithJWKS_B10(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.CommonName("x"))
	sum := sha256.Sum256(leaf.Cert.Raw)
	for _, declared := range []Record{{Thumbprints: Strings{hex.EncodeToString(sum[:])}}, {SubjectDN: Strings{"CN=x"}}} {
		declared.ClientID, declared.SharedCredential = "a", true
		registry, err := newRegistry([]*Client{
			mustClient(t, Record{ClientID: "b", JWKS: testpki.JWKS(t, leaf), SharedCredential: true}), mustClient(t, declared),
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := who(registry, leaf); strings.Contains(got, "jwks") {
			t.Errorf("it is %q", got)
		}
		if conflicts := registry.Conflicts(); len(conflicts) != 1 || conflicts[0].Client.ID != "b" || conflicts[0].Holder.Client.ID != "a" {
			t.Errorf("conflicts %+v", conflicts)
		}
	}
}

// TestDeclaredComesBeforeJWKS_B10: a certificate that an operator declares is no
// longer ambiguous, and the client that declares it may list it too.
func TestDeclaredComesBeforeJWKS_B10(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.CommonName("x"))
	sum := sha256.Sum256(leaf.Cert.Raw)
	list := []*Client{
		mustClient(t, Record{ClientID: "a", JWKS: testpki.JWKS(t, leaf)}),
		mustClient(t, Record{ClientID: "b", JWKS: testpki.JWKS(t, leaf)}),
	}
	for name, test := range map[string]struct {
		declared Record
		want     string
	}{
		"by a third client":         {Record{ClientID: "c", SubjectDN: Strings{"CN=x"}}, ""},
		"by one that lists it too":  {Record{ClientID: "c", Thumbprints: Strings{hex.EncodeToString(sum[:])}, JWKS: testpki.JWKS(t, leaf)}, "c by thumbprint, c by jwks"},
		"by one that lists nothing": {Record{ClientID: "c", Thumbprints: Strings{hex.EncodeToString(sum[:])}}, "c by thumbprint"},
	} {
		registry, err := newRegistry(append(slices.Clip(list), mustClient(t, test.declared)))
		if err != nil {
			t.Fatal(err)
		}
		if got := who(registry, leaf); got != test.want {
			t.Errorf("%s: it is %q", name, got)
		}
		var told []string
		for _, c := range registry.Conflicts() {
			told = append(told, c.Client.ID+" to "+c.Holder.Client.ID)
		}
		if fmt.Sprint(told) != "[a to c b to c]" || registry.ambiguities.Len() != 0 {
			t.Errorf("%s: lost are %q, ambiguous %v", name, told, registry.allAmbiguities())
		}
	}
}
