package authn

import (
	"context"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestHintEndsWithAWholeSentence checks that a long hint is cut after a whole
// sentence, and that one that just fits is not cut.
func TestHintEndsWithAWholeSentence(t *testing.T) {
	ca := testpki.MustCA(t)
	key := testpki.MustKey(t, testpki.P256)
	long := func(c string) string { return strings.Repeat(c, 200) } // as long as the name of a client may be
	host := strings.Repeat(strings.Repeat("h", 60)+".", 4) + "example"
	after := testpki.MustSelfSigned(t)
	file := testtool.WriteTemp(t, t.TempDir(), "old.pem", testpki.MustSelfSigned(t, testpki.Key(key)).PEM())
	// joined is the hint of a certificate whose subject is so long, and what
	// there is to say
	joined := func(size int) (hint string, misses []string) {
		organization := strings.Repeat("o", size)
		leaf := testpki.MustSelfSigned(t, testpki.Key(key), testpki.DNSNames(host), testpki.Subject(pkix.Name{Organization: []string{organization}, CommonName: "client"}))
		keyHash, certificate := testpki.HashOf(leaf.Cert.RawSubjectPublicKeyInfo), testpki.HashOf(leaf.Cert.Raw)
		records := []clients.Record{
			{ClientID: long("k"), Thumbprints: clients.Strings{keyHash}},
			{ClientID: long("c"), PublicKeys: clients.Strings{certificate}},
			{ClientID: long("f"), CertificateFiles: clients.Strings{file}, SharedCredential: true},
			{ClientID: long("p"), Thumbprints: clients.Strings{testpki.HashOf(after.Cert.Raw)}},
			{ClientID: long("s"), SubjectDN: clients.Strings{"O=" + organization + ",CN=client"}},
			{ClientID: long("n"), SANDNS: clients.Strings{host}},
		}
		for _, id := range []string{"1", "2", "3", "4", "5"} {
			records = append(records, clients.Record{ClientID: long(id), PublicKeys: clients.Strings{keyHash}, RequireChain: true, SharedCredential: true})
		}
		auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, records...)
		presented := append(leaf.Presented(), after.Cert)
		_, refusal, _ := auth.Decide(context.Background(), presented, "")
		if refusal == nil {
			t.Fatal("admitted")
		}
		return auth.about(presented, refusal).hint(), auth.about(presented, refusal).nearMisses()
	}
	const some = 300
	_, misses := joined(some)
	fits := some + maxHintBytes - len(strings.Join(misses, "; "))
	for _, test := range []struct{ size, dropped int }{{some, 0}, {fits, 0}, {fits + 1, 1}} {
		hint, misses := joined(test.size)
		if want := strings.Join(misses[:len(misses)-test.dropped], "; "); hint != want {
			t.Errorf("a subject of %d: a hint of %d bytes %.60q, want %d bytes; all would be %d", test.size, len(hint), hint, len(want), len(strings.Join(misses, "; ")))
		}
	}
	if hint, _ := joined(fits); len(hint) != maxHintBytes {
		t.Errorf("a hint of %d bytes", len(hint))
	}
}
