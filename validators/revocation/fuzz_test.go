package revocation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// fuzzNow is when the committed CRLs and OCSP responses are fresh. The keys that signed
// them are lost.
var fuzzNow = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func fuzzCert(tb testing.TB, name string) *x509.Certificate {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".pem"))
	if err != nil {
		tb.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// fuzzSeed reads a committed input.
func fuzzSeed(tb testing.TB, target, name string) []byte {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "fuzz", target, name))
	if err != nil {
		tb.Fatal(err)
	}
	_, literal, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	seed, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(literal, "[]byte("), ")"))
	if err != nil {
		tb.Fatal(err)
	}
	return []byte(seed)
}

func checkErrorText(t *testing.T, err error) {
	t.Helper()
	if text := err.Error(); len(text) > 4<<10 || !testtool.Printable(text) {
		t.Fatalf("error %q is not fit for a log", text)
	}
}

// Only CRLs that the CA has signed count.
func FuzzParseCRL(f *testing.F) {
	ca, leaf := fuzzCert(f, "ca"), fuzzCert(f, "leaf")
	genuine := make(map[[sha256.Size]byte]certStatus)
	for name, says := range map[string]bool{
		"good": true, "revoking": true, "entry_extension": true, "only_users": true, "distribution_point": false, "stale": false, "delta": false,
	} {
		crl, err := parseCRL(fuzzSeed(f, "FuzzParseCRL", name))
		if err != nil {
			f.Fatalf("%s: %v", name, err)
		}
		status, err := crlSetOf(crl).statusOf(leaf, ca, fuzzNow)
		if says == (err != nil) || says == (status == certStatus{}) || status.Revoked != (name == "revoking") {
			f.Fatalf("%s: %+v, %v", name, status, err)
		}
		genuine[sha256.Sum256(crl.list.RawTBSRevocationList)] = status
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		crls, err := parseCRLs(data)
		if err != nil {
			checkErrorText(t, err)
		}
		for _, crl := range crls {
			checkFuzzedCRL(t, crl, len(data))
			status, err := crlSetOf(crl).statusOf(leaf, ca, fuzzNow)
			if err != nil {
				checkErrorText(t, err)
			}
			if status != (certStatus{}) && status != genuine[sha256.Sum256(crl.list.RawTBSRevocationList)] {
				t.Fatalf("says %+v, %v", status, err)
			}
		}
	})
}

// checkFuzzedCRL checks what holds for every CRL, and compares it with what x509 reads.
func checkFuzzedCRL(t *testing.T, crl *parsedCRL, size int) {
	t.Helper()
	if crl.list.NextUpdate.IsZero() && crl.scope.unusable == "" || len(crl.revoked) > size || !testtool.Printable(crl.scope.unusable) {
		t.Fatalf("%d entries until %s, %q", len(crl.revoked), crl.list.NextUpdate, crl.scope.unusable)
	}
	again, err := parseCRL(crl.list.Raw)
	if err != nil || len(again.revoked) != len(crl.revoked) || again.checkReplaces(crl) != nil || crl.checkReplaces(again) != nil || !again.isOf(crl) {
		t.Fatalf("read again: %v", err)
	}
	whole, err := x509.ParseRevocationList(crl.list.Raw)
	if err != nil {
		return // it is stricter
	}
	if len(whole.RevokedCertificateEntries) < len(crl.revoked) || !bytes.Equal(whole.RawTBSRevocationList, crl.list.RawTBSRevocationList) {
		t.Fatalf("x509 reads %d entries, not %d", len(whole.RevokedCertificateEntries), len(crl.revoked))
	}
	for _, entry := range whole.RevokedCertificateEntries {
		if slices.ContainsFunc(entry.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidCertificateIssuer) }) {
			return // entries from here on may be for another issuer
		}
		if _, listed := crl.revoked[serialKey(entry.SerialNumber)]; !listed && entry.ReasonCode != removeFromCRL && entry.SerialNumber.Sign() >= 0 {
			t.Fatalf("%s is not revoked", entry.SerialNumber)
		}
	}
}

// Only OCSP responses that the CA or its delegate has signed count.
func FuzzParseOCSP(f *testing.F) {
	ca, leaf := fuzzCert(f, "ca"), fuzzCert(f, "leaf")
	genuine := make(map[[sha256.Size]byte]bool)
	for _, name := range []string{"good", "by_delegate", "revoked", "unknown"} {
		seed := fuzzSeed(f, "FuzzParseOCSP", name)
		status, err := parseOCSP(seed, leaf, ca, fuzzNow)
		if (err != nil) != (name == "unknown") || status.Revoked != (name == "revoked") || (status.Signer != nil) != (name == "by_delegate") {
			f.Fatalf("%s: %+v, %v", name, status, err)
		}
		response, err := ocsp.ParseResponse(seed, nil)
		if err != nil {
			f.Fatal(err)
		}
		genuine[sha256.Sum256(response.TBSResponseData)] = true
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		status, err := parseOCSP(data, leaf, ca, fuzzNow)
		if err != nil {
			checkErrorText(t, err)
			if status != (certStatus{}) {
				t.Fatalf("%+v with %v", status, err)
			}
			if !errors.Is(err, errOCSPUnknown) {
				return
			}
		} else if !fuzzNow.Before(status.Until) {
			t.Fatalf("stale: %+v", status)
		}
		response, err := ocsp.ParseResponseForCert(data, leaf, nil)
		if err != nil || !genuine[sha256.Sum256(response.TBSResponseData)] {
			t.Fatalf("%+v is taken, %v", status, err)
		}
	})
}

func FuzzParseDenyList(f *testing.F) {
	ca, leaf := fuzzCert(f, "ca"), fuzzCert(f, "leaf")
	chain := []*x509.Certificate{leaf, ca}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseDenyList(text)
		if err != nil {
			checkErrorText(t, err)
			if list != nil {
				t.Fatal("a list with an error")
			}
			return
		}
		lines := strings.Count(string(text), "\n") + 1
		if list.Len() > lines {
			t.Fatalf("%d rules in %d lines", list.Len(), lines)
		}
		detail, denied := list.match(chain)
		if denied != (detail != "") || denied && list.Len() == 0 || !testtool.Printable(detail) {
			t.Fatalf("%v: %q", denied, detail)
		}
		// More rules deny more.
		more, err := parseDenyList(append(append([]byte{}, text...), "\ntbs "+digest(leaf.RawTBSCertificate)...))
		if err != nil || more.Len() < list.Len() {
			t.Fatal(err)
		}
		if _, denied := more.match(chain); !denied {
			t.Fatal("a rule does not count")
		}
		both := list.union(more)
		if both.Len() != more.Len() {
			t.Fatalf("%d rules together, want %d", both.Len(), more.Len())
		}
	})
}
