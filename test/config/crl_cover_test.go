package config_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestWarnsAboutCAsWithoutCRL checks the warnings about CAs of the trust pool that no
// CRL covers, and about exempt hashes that are those of none.
func TestWarnsAboutCAsWithoutCRL(t *testing.T) {
	dir, ca := t.TempDir(), testpki.MustCA(t, testpki.CommonName("Root"))
	sub := testpki.MustIntermediate(t, ca, testpki.CommonName("Sub"))
	silent := testpki.MustCA(t, testpki.CommonName("Silent"))
	tomorrow := time.Now().Add(24 * time.Hour)
	file := func(name string, ca *testpki.CA) string {
		return testtool.WriteTemp(t, dir, name, testpki.CRL(t, ca, 1, tomorrow))
	}
	ofRoot, ofSub := file("root.crl", ca), file("sub.crl", sub)
	const uncovered = "no CRL covers a CA of the trust pool"
	const unmatched = "exempt hash is that of no CA in the trust pool"
	for name, test := range map[string]struct {
		pool   []*testpki.CA
		crl    []string
		exempt []string
		more   map[string]any
		want   []string
	}{
		"all covered":            {[]*testpki.CA{ca, silent}, []string{ofRoot, file("silent.crl", silent)}, nil, nil, nil},
		"one not":                {[]*testpki.CA{ca, silent}, []string{ofRoot}, nil, nil, []string{uncovered + " CN=Silent"}},
		"exempt by certificate":  {[]*testpki.CA{ca, silent}, []string{ofRoot}, []string{testpki.HashOf(silent.Cert.Raw)}, nil, nil},
		"exempt by key":          {[]*testpki.CA{ca, silent}, []string{ofRoot}, []string{testpki.HashOf(silent.Cert.RawSubjectPublicKeyInfo)}, nil, nil},
		"exempt, but nobody":     {[]*testpki.CA{ca}, []string{ofRoot}, []string{testpki.HashOf(silent.Cert.Raw)}, nil, []string{unmatched}},
		"responders":             {[]*testpki.CA{ca, silent}, []string{ofRoot}, nil, map[string]any{"ocsp": []string{"http://127.0.0.1:1/"}}, nil},
		"a root above another":   {[]*testpki.CA{ca, sub}, []string{ofSub}, nil, nil, nil},
		"a CA that has no CRL":   {[]*testpki.CA{ca}, []string{ofSub}, nil, nil, []string{uncovered + " CN=Root"}},
		"a URL, not yet fetched": {[]*testpki.CA{ca, silent}, []string{ofRoot, "http://127.0.0.1:1/crl"}, nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var pem []byte
			for _, ca := range test.pool {
				pem = append(pem, ca.PEM()...)
			}
			revocation := map[string]any{"crl": test.crl}
			if test.exempt != nil {
				revocation["exempt"] = test.exempt
			}
			maps.Copy(revocation, test.more)
			got := loadRealm(t, revokedByPool(t, dir, pem, revocation))
			if got.err != nil {
				t.Fatal(got.err)
			}
			var warned []string
			for _, line := range got.lines {
				if line["level"] == "warn" && line["hint"] != nil {
					ca, _ := line["ca"].(string)
					warned = append(warned, strings.TrimSpace(line["msg"].(string)+" "+ca))
				}
			}
			if !slices.Equal(warned, test.want) {
				t.Errorf("warned %q, want %q", warned, test.want)
			}
		})
	}
	got := loadRealm(t, revokedBy(t, dir, ca, map[string]any{"crl": []string{ofRoot}, "exempt": []string{"{env.MTLS_TEST_UNSET}"}}))
	testtool.WantError(t, got.err, "realm 'default': revocation: exempt '{env.MTLS_TEST_UNSET}'")
	got = loadRealm(t, revokedBy(t, dir, ca, map[string]any{"crl": []string{ofRoot}, "exempt": []string{"abc"}}))
	testtool.WantError(t, got.err, "realm 'default': revocation: exempt 'abc': ")
}
