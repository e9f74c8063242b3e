package config_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// revokedBy returns a realm with a CA as its trust pool and this revocation block.
func revokedBy(t *testing.T, dir string, ca *testpki.CA, revocation map[string]any) string {
	t.Helper()
	return revokedByPool(t, dir, ca.PEM(), revocation)
}

// revokedByPool is revokedBy with several CAs.
func revokedByPool(t *testing.T, dir string, pool []byte, revocation map[string]any) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"trust_pool": map[string]any{"provider": "file", "pem_files": []string{testtool.WriteTemp(t, dir, "ca.pem", pool)}},
		"clients":    []map[string]any{{"client_id": "a", "tls_client_auth_subject_dn": "CN=a"}},
		"revocation": revocation,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func loadRealm(t *testing.T, realm string) loaded {
	t.Helper()
	return loadJSON(t, `{"apps":{"mtls":{"realms":{"default":`+realm+`}}}}`)
}

// TestCRLFileAtTheStart_B4 checks that a missing or invalid CRL file stops the load,
// and that the error is not logged as well.
func TestCRLFileAtTheStart_B4(t *testing.T) {
	dir, ca := t.TempDir(), testpki.MustCA(t)
	der := testpki.CRL(t, ca, 1, time.Now().Add(time.Hour))
	for name, test := range map[string]struct {
		content []byte // nil if the file is missing
		want    string
	}{
		"missing":   {nil, "no such file"},
		"empty":     {[]byte{}, "the CRL is empty"},
		"garbage":   {[]byte("garbage\n"), "not a CRL in DER or PEM"},
		"truncated": {der[:len(der)/2], "invalid CRL"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, name+".crl")
			if test.content != nil {
				testtool.WriteTemp(t, dir, name+".crl", test.content)
			}
			got := loadRealm(t, revokedBy(t, dir, ca, map[string]any{"crl": []string{file}}))
			testtool.WantError(t, got.err, "realm 'default': revocation: CRL "+file+": ", test.want)
			for _, line := range got.lines {
				if line["logger"] == "mtls" && line["level"] != "debug" {
					t.Errorf("logged besides the error: %v", line)
				}
			}
		})
	}
}

// TestCRLWarningsAtTheStart checks the warnings about a stale CRL, and about a CRL
// that names a CA but is signed with a different key.
func TestCRLWarningsAtTheStart(t *testing.T) {
	dir, ca, renewed := t.TempDir(), testpki.MustCA(t), testpki.MustCA(t)
	tomorrow, yesterday := time.Now().Add(24*time.Hour), time.Now().Add(-24*time.Hour)
	for name, test := range map[string]struct {
		crl  []byte
		want string // part of the only warning
	}{
		"good":           {testpki.CRL(t, ca, 1, tomorrow), ""},
		"stale":          {testpki.CRL(t, ca, 1, yesterday), "stale CRL no longer vouches for any certificate"},
		"of another key": {testpki.CRL(t, renewed, 1, tomorrow), "CRL has the name of a CA in the trust pool"},
		"of another CA":  {testpki.CRL(t, testpki.MustCA(t, testpki.CommonName("Other")), 1, tomorrow), "no CRL covers a CA of the trust pool"},
	} {
		t.Run(name, func(t *testing.T) {
			file := testtool.WriteTemp(t, dir, name+".crl", test.crl)
			got := loadRealm(t, revokedBy(t, dir, ca, map[string]any{"crl": []string{file}}))
			if got.err != nil {
				t.Fatal(got.err)
			}
			warned := got.warnings()
			if test.want == "" && len(warned) > 0 || test.want != "" && (len(warned) != 1 || !strings.HasPrefix(warned[0], test.want)) {
				t.Errorf("warned %q, want %q", warned, test.want)
			}
		})
	}
}
