package clients

import (
	"crypto/sha1" //nolint:gosec // a thumbprint that may be declared
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// who returns the clients that the certificate is a pin of.
func who(r *Registry, leaf *testpki.Leaf) string {
	var ids []string
	for _, pin := range r.Pins(leaf.Cert, sha256.Sum256(leaf.Cert.Raw)) {
		ids = append(ids, pin.Client.ID+" by "+string(pin.Kind))
	}
	return strings.Join(ids, ", ")
}

// TestR10_JWKSInTheRegistry: every certificate of a JWKS counts, as a pin.
func TestR10_JWKSInTheRegistry(t *testing.T) {
	one, two := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	client := mustClient(t, Record{ClientID: "a", JWKS: testpki.JWKS(t, one, two)})
	registry, err := NewRegistry([]*Client{client})
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
	if !registry.HasPins() || registry.HasPKI() || !client.HasPins() || client.HasPKI() || len(registry.Listed(client)) != 2 || registry.Conflicts() != nil {
		t.Error("a JWKS is no pins")
	}
	if cred := client.Credentials[0]; cred.Kind != KindJWKS || cred.Value != "written out" {
		t.Errorf("declared %+v", cred)
	}
}

// TestB10_JWKSStealsNothing: a certificate that is a credential of another
// client is not the one's whose JWKS lists it.
func TestB10_JWKSStealsNothing(t *testing.T) {
	victim := testpki.MustSelfSigned(t, testpki.CommonName("billing"), testpki.DNSNames("billing.example.com"), testpki.URIs("spiffe://prod.example/ns/billing"))
	own := testpki.MustSelfSigned(t)
	dir := t.TempDir()
	file, _, err := victim.WriteFiles(dir, "victim")
	if err != nil {
		t.Fatal(err)
	}
	sum, old := sha256.Sum256(victim.Cert.Raw), sha1.Sum(victim.Cert.Raw) //nolint:gosec // see above
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
		KindJWKS:              {JWKS: testpki.JWKS(t, victim)},
	} {
		for _, order := range []string{"holder first", "thief first"} {
			if kind == KindJWKS && order == "thief first" {
				continue // who stands first holds
			}
			t.Run(string(kind)+", "+order, func(t *testing.T) {
				holder.ClientID = "holder"
				list := []*Client{mustClient(t, holder), mustClient(t, Record{ClientID: "thief", JWKS: testpki.JWKS(t, victim, own)})}
				if order == "thief first" {
					list[0], list[1] = list[1], list[0]
				}
				registry, err := NewRegistry(list)
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
				if len(conflicts) != 1 || conflicts[0].Client.ID != "thief" || conflicts[0].Holder.Client.ID != "holder" ||
					conflicts[0].Thumbprint != hex.EncodeToString(sum[:]) || !strings.HasPrefix(string(kind), string(conflicts[0].Holder.Kind)) {
					t.Errorf("conflicts %+v", conflicts)
				}
			})
		}
	}
}

// TestJWKSThatAreShared: both clients have to say so.
func TestJWKSThatAreShared(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.CommonName("x"))
	for _, test := range []struct {
		a, b bool
		want string
	}{{true, true, "a by jwks, b by jwks"}, {true, false, "a by jwks"}, {false, true, "a by jwks"}} {
		registry, err := NewRegistry([]*Client{
			mustClient(t, Record{ClientID: "a", JWKS: testpki.JWKS(t, leaf), SharedCredential: test.a}),
			mustClient(t, Record{ClientID: "b", JWKS: testpki.JWKS(t, leaf), SharedCredential: test.b}),
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := who(registry, leaf); got != test.want {
			t.Errorf("%+v: it is %q", test, got)
		}
	}
}

// TestB10_JWKSShareOnlyWithJWKS: what another client declares is not shared with
// a JWKS, whatever both say, for it would pass for that client, or keep it out,
// by what its owner lists.
func TestB10_JWKSShareOnlyWithJWKS(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.CommonName("x"))
	sum := sha256.Sum256(leaf.Cert.Raw)
	for _, declared := range []Record{{Thumbprints: Strings{hex.EncodeToString(sum[:])}}, {SubjectDN: Strings{"CN=x"}}} {
		declared.ClientID, declared.SharedCredential = "a", true
		registry, err := NewRegistry([]*Client{
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

// TestJWKSKeepWhatTheyHold: who held a certificate keeps it, whoever stands
// first; a certificate that is given up is free; what an operator declares
// comes before any JWKS.
func TestJWKSKeepWhatTheyHold(t *testing.T) {
	leaf, other := testpki.MustSelfSigned(t, testpki.CommonName("x")), testpki.MustSelfSigned(t)
	client := func(id string, leaves ...*testpki.Leaf) *Client {
		return mustClient(t, Record{ClientID: id, JWKS: testpki.JWKS(t, leaves...)})
	}
	registry, now := new(Registry), time.Now()
	step := func(want string, list ...*Client) {
		t.Helper()
		now = now.Add(time.Second)
		for _, client := range list {
			var before []listing
			if known := registry.Client(client.ID); known != nil {
				before = known.listed
			}
			client.listed = dated(client.listed, before, now)
		}
		var err error
		if registry, err = NewRegistry(list); err != nil {
			t.Fatal(err)
		}
		if got := who(registry, leaf); got != want {
			t.Errorf("it is %q, want %q", got, want)
		}
	}
	step("b by jwks", client("a", other), client("b", leaf))
	step("b by jwks", client("a", other, leaf), client("b", leaf))
	step("b by jwks", client("a", leaf), client("b", leaf))
	step("a by jwks", client("a", leaf), client("b", other))
	step("a by jwks", client("b", leaf), client("a", leaf))
	dn, err := validators.DNFromRaw(leaf.Cert.RawSubject)
	if err != nil {
		t.Fatal(err)
	}
	step("", client("a", leaf), client("b", leaf), mustClient(t, Record{ClientID: "c", SubjectDN: Strings{dn.String()}}))
	if got := fmt.Sprint(len(registry.Conflicts()), registry.Conflicts()[0].Holder.Client.ID); got != "2c" {
		t.Error(got)
	}
	step("a by jwks", client("b", leaf), client("a", leaf))
}
