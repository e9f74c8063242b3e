package issuer_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// TestSigningAlgorithms_R30_R47 checks that the published keys suffice to verify tokens
// of every algorithm.
func TestSigningAlgorithms_R30_R47(t *testing.T) {
	shared := testpki.MustKey(t, testpki.RSA2048) // shared because generating RSA keys is slow
	for _, algorithm := range keyring.Algorithms() {
		t.Run(string(algorithm), func(t *testing.T) {
			r := rig.New(t)
			sensor := r.SelfSigned("sensor")
			r.Issue("billing")
			options := "signing_algorithm " + string(algorithm)
			if strings.HasSuffix(strings.TrimRight(string(algorithm), "0123456789"), "S") && algorithm[0] != 'E' && algorithm != keyring.PS256 {
				options += "\nsigning_key " + rig.SigningKeyPEM(r, t, "rsa.pem", shared) // PS256 generates its own key
			}
			r.Start(rig.IssuerRealm(options), rig.IssuerSite)
			for _, protocol := range rig.Protocols {
				if header := rig.VerifiedToken(r, t, protocol, sensor, "https://auth.test"); header["alg"] != string(algorithm) {
					t.Errorf("alg is %v", header["alg"])
				}
			}
		})
	}
}

// TestProfileAtWork_R45_R47 checks that profile fapi2 issues tokens to clients but not
// for a certificate with a weak key.
func TestProfileAtWork_R45_R47(t *testing.T) {
	r := rig.New(t)
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	billing, weak := r.Issue("billing"), r.Issue("weak", testpki.CommonName("billing"), testpki.Key(key))
	sensor := r.SelfSigned("sensor")
	for _, profile := range []string{"", "profile fapi2\n"} {
		if profile == "" {
			r.Start(rig.IssuerRealm("signing_algorithm PS256"), rig.IssuerSite)
		} else {
			r.Reload(rig.IssuerRealm(profile+"signing_algorithm PS256"), rig.IssuerSite)
		}
		for _, protocol := range rig.Protocols {
			rig.Token(r, t, r.Caller(t, protocol, billing), "https://auth.test/connect/token", rig.Form("billing.partner"))
			header := rig.VerifiedToken(r, t, protocol, sensor, "https://auth.test")
			got := r.Caller(t, protocol, weak).Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner"))
			if profile == "" {
				got.WantStatus(t, http.StatusOK)
				continue
			}
			if header["alg"] != "PS256" {
				t.Errorf("the header is %v", header)
			}
			got.WantStatus(t, http.StatusBadRequest)
			if entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID); entry.Str("reason") != "certificate_unsuitable" || !strings.Contains(entry.Str("detail"), "1024 bits") {
				t.Errorf("the log line is %v", entry)
			}
		}
	}
}

// TestProfileWaitsForTheNextKey checks that the profile is rejected while the active
// key uses an algorithm it does not allow.
func TestProfileWaitsForTheNextKey(t *testing.T) {
	r := rig.New(t)
	sensor := r.SelfSigned("sensor")
	r.Issue("billing")
	r.Start(rig.IssuerRealm("signing_algorithm ES384"), rig.IssuerSite)
	kid := rig.VerifiedToken(r, t, "h2", sensor, "https://auth.test")["kid"]
	err := r.Load(rig.IssuerRealm("profile fapi2"), rig.IssuerSite)
	if err == nil || !strings.Contains(err.Error(), "profile fapi2: the active key '"+kid.(string)+"' is for ES384, which is not allowed; add the profile once a key for signing_algorithm has replaced it") {
		t.Errorf("loading the configuration: %v", err)
	}
	if again := rig.VerifiedToken(r, t, "h2", sensor, "https://auth.test")["kid"]; again != kid {
		t.Errorf("the kid is %v, was %v", again, kid)
	}
}

func TestSigningKeyFile(t *testing.T) {
	r := rig.New(t)
	sensor := r.SelfSigned("sensor")
	r.Issue("billing")
	keys := map[string]testpki.KeyType{"ES256": testpki.P256, "ES384": testpki.P384, "ES512": testpki.P521, "EdDSA": testpki.Ed25519, "RS256": testpki.RSA2048}
	kids := make(map[string]bool)
	started := false
	for algorithm, kind := range keys {
		options := rig.IssuerRealm("signing_key " + rig.SigningKeyPEM(r, t, algorithm+".pem", testpki.MustKey(t, kind)))
		if !started {
			r.Start(options, rig.IssuerSite)
			started = true
		} else {
			r.Reload(options, rig.IssuerSite)
		}
		header := rig.VerifiedToken(r, t, "h2", sensor, "https://auth.test")
		kid, _ := header["kid"].(string)
		if header["alg"] != algorithm || kid == "" || kids[kid] {
			t.Errorf("a %s key signs tokens with header %v", algorithm, header)
		}
		kids[kid] = true
	}
	if entries, err := os.ReadDir(filepath.Join(r.Dir, "storage", "mtls")); err == nil && len(entries) > 0 {
		t.Errorf("keys were stored despite the key file: %v", entries)
	}
	// a key must match the algorithm, and two realms cannot share one
	ed := "signing_key @DIR@/EdDSA.pem"
	if err := r.Load(rig.IssuerRealm("signing_algorithm ES256\n"+ed), rig.IssuerSite); err == nil || !strings.Contains(err.Error(), "EdDSA.pem") {
		t.Errorf("a key that does not match the algorithm: %v", err)
	}
	second := "\nmtls second {\nclient sensor-7 {\ncertificate @DIR@/sensor.pem\n}\nissuer https://alias.test {\n" + ed + "\n}\n}\n"
	if err := r.Load(rig.IssuerRealm(ed)+second, rig.IssuerSite); err == nil || !strings.Contains(err.Error(), "signing_key") {
		t.Errorf("two realms share a signing key: %v", err)
	}
}

func TestManagedKeySurvivesARestart(t *testing.T) {
	r := rig.New(t)
	sensor := r.SelfSigned("sensor")
	r.Issue("billing")
	sites := rig.IssuerSite + `
https://alias.test:@HTTPS@ {
	import mtls
	mtls_issuer {
		realm second
	}
}
`
	options := rig.IssuerRealm("") + `
mtls second {
	client sensor-7 {
		certificate "@DIR@/sensor.pem"
	}
	issuer https://alias.test
}
`
	r.Start(options, sites)
	first := rig.VerifiedToken(r, t, "h1", sensor, "https://auth.test")["kid"]
	second := rig.VerifiedToken(r, t, "h1", sensor, "https://alias.test")["kid"]
	if first == second {
		t.Error("two realms sign with the same key")
	}
	for name, restart := range map[string]func(){
		"reload":  func() { r.Reload(options+"\n# changed", sites) },
		"restart": func() { _ = caddy.Stop(); r.Reload(options, sites) },
	} {
		restart()
		for _, protocol := range rig.Protocols {
			if kid := rig.VerifiedToken(r, t, protocol, sensor, "https://auth.test")["kid"]; kid != first {
				t.Errorf("%s: the kid is %v, was %v", name, kid, first)
			}
			if kid := rig.VerifiedToken(r, t, protocol, sensor, "https://alias.test")["kid"]; kid != second {
				t.Errorf("%s: the other realm's kid is %v, was %v", name, kid, second)
			}
		}
	}
	for _, realm := range []string{"default", "second"} {
		files, err := filepath.Glob(filepath.Join(r.Dir, "storage", "mtls", realm, "keys", "*.json"))
		if err != nil || len(files) != 1 {
			t.Fatalf("realm %s has the keys %q in storage", realm, files)
		}
		info, err := os.Stat(files[0])
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("the stored key has mode %v", info.Mode())
		}
	}

	// after a change of algorithm, the new key is published before it signs
	r.Reload(strings.Replace(options, "issuer https://auth.test {", "issuer https://auth.test {\nsigning_algorithm ES384", 1), sites)
	if kid := rig.VerifiedToken(r, t, "h2", sensor, "https://auth.test")["kid"]; kid != first {
		t.Error("a key signs before it was published")
	}
	metadata := r.Caller(t, "h2", nil)
	rig.Await(r, t, "the new algorithm is in the metadata", func() bool {
		return strings.Contains(metadata.Get("https://auth.test/.well-known/openid-configuration").Body, `"id_token_signing_alg_values_supported":["ES256","ES384"]`)
	})
	jwks := r.Caller(t, "h2", nil).Get("https://auth.test/.well-known/openid-configuration/jwks").Body
	if !strings.Contains(jwks, first.(string)) || strings.Count(jwks, `"kid"`) != 2 || strings.Contains(jwks, `"d":`) {
		t.Errorf("the keys are %s, want the old one included and no private key", jwks)
	}
}

// TestStorageUnusableAtFirstStart puts a regular file in place of the storage folder
// because file permissions would not stop root.
func TestStorageUnusableAtFirstStart(t *testing.T) {
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			r, clock := rig.New(t), rig.NewClock(t)
			billing, _ := r.Issue("billing"), r.SelfSigned("sensor")
			blocker := r.Write("storage", nil)
			r.Start(rig.ClockRealmOf(t), rig.IssuerSite+rig.OneSite)
			c := r.Caller(t, protocol, billing)
			jwksPlace := "https://auth.test/.well-known/openid-configuration/jwks"

			for range 2 {
				c.Get("https://auth.test/.well-known/openid-configuration").WantStatus(t, http.StatusOK)
				c.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
				for _, got := range []rig.Reply{c.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner")), c.Get(jwksPlace)} {
					got.WantStatus(t, http.StatusServiceUnavailable)
					if rig.JSON(t, got.Body)["error"] != "temporarily_unavailable" || got.Header.Get("Retry-After") == "" || got.Header.Get("Cache-Control") != "no-store" {
						t.Errorf("without keys: %q %v", got.Body, got.Header)
					}
					if strings.Contains(got.Body, r.Dir) {
						t.Errorf("the response reveals the storage path: %q", got.Body)
					}
					entry := r.Logs.WithErrorID(t, "token request refused", got.ErrorID)
					if entry.Str("reason") != "temporarily_unavailable" || !strings.Contains(entry.Str("detail"), "storage") {
						t.Errorf("the log line is %v", entry)
					}
				}
			}
			// an unauthenticated caller does not learn about the failure
			stranger := r.Caller(t, protocol, nil).Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner"))
			stranger.WantStatus(t, http.StatusBadRequest)

			if err := os.Remove(blocker); err != nil {
				t.Fatal(err)
			}
			clock.Advance(time.Minute) // past the pause between attempts
			rig.Token(r, t, c, "https://auth.test/connect/token", rig.Form("billing.partner"))
			c.Get(jwksPlace).WantStatus(t, http.StatusOK)
		})
	}
}

// TestStorageLostAtRunTime checks that keys in memory stay in use after storage is
// lost.
func TestStorageLostAtRunTime(t *testing.T) {
	r := rig.New(t)
	sensor := r.SelfSigned("sensor")
	r.Issue("billing")
	r.Start(rig.IssuerRealm(""), rig.IssuerSite)
	kid := rig.VerifiedToken(r, t, "h2", sensor, "https://auth.test")["kid"]
	if err := os.RemoveAll(filepath.Join(r.Dir, "storage")); err != nil {
		t.Fatal(err)
	}
	r.Write("storage", nil)
	for _, protocol := range rig.Protocols {
		if again := rig.VerifiedToken(r, t, protocol, sensor, "https://auth.test")["kid"]; again != kid {
			t.Errorf("the kid is %v, was %v", again, kid)
		}
	}
	r.Reload(rig.IssuerRealm("")+"\n# changed", rig.IssuerSite)
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, sensor)
		got := c.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("sensor-7"))
		if got.Status != http.StatusOK {
			t.Errorf("after a reload without storage: %d %q", got.Status, got.Body)
		}
	}
}

// TestStorageOfARealm checks that a realm can keep its keys in its own storage.
func TestStorageOfARealm(t *testing.T) {
	r := rig.New(t)
	sensor := r.SelfSigned("sensor")
	r.Issue("billing")
	realm := strings.Replace(rig.IssuerRealm(""), "issuer https", "storage file_system \"@DIR@/elsewhere\"\nissuer https", 1)
	r.Start(realm, rig.IssuerSite)
	kid := rig.VerifiedToken(r, t, "h2", sensor, "https://auth.test")["kid"]
	files, err := filepath.Glob(filepath.Join(r.Dir, "elsewhere", "mtls", "default", "keys", "*.json"))
	if err != nil || len(files) != 1 {
		t.Errorf("the storage of the realm has %v, %v", files, err)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "storage", "mtls")); !os.IsNotExist(err) {
		t.Errorf("Caddy's storage has keys: %v", err)
	}

	// a new storage receives the keys in use
	r.Reload(strings.Replace(realm, "elsewhere", "moved", 1), rig.IssuerSite)
	rig.Await(r, t, "the keys are in the new storage", func() bool {
		files, err := filepath.Glob(filepath.Join(r.Dir, "moved", "mtls", "default", "keys", "*.json"))
		return err == nil && len(files) == 1
	})
	if again := rig.VerifiedToken(r, t, "h2", sensor, "https://auth.test")["kid"]; again != kid {
		t.Errorf("the kid is %v, was %v", again, kid)
	}
}

// TestKeysOfAServerThatIsReplaced checks that tokens of a replaced server still verify
// with the published keys and in mtls_bearer.
func TestKeysOfAServerThatIsReplaced(t *testing.T) {
	r := rig.New(t)
	sensor := r.SelfSigned("sensor")
	r.Issue("billing")
	old := rig.MustSigner(t)
	rig.SigningKeyPEM(r, t, "old.pem", old)
	r.Start(rig.IssuerRealm(`signing_key "@DIR@/old.pem"`), rig.BearerSites)
	answer, header, _ := rig.Token(r, t, r.Caller(t, "h2", sensor), "https://auth.test/connect/token", rig.Form("sensor-7"))
	public, err := x509.MarshalPKIXPublicKey(old.Public())
	if err != nil {
		t.Fatal(err)
	}
	r.Write("old.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	r.Reload(rig.IssuerRealm(`verify_key "@DIR@/old.pub"`), rig.BearerSites)
	for _, protocol := range rig.Protocols {
		if again := rig.VerifiedToken(r, t, protocol, sensor, "https://auth.test")["kid"]; again == header["kid"] {
			t.Error("the key of the old server signs")
		}
		if _, err := rig.Verify(t, r.Caller(t, protocol, nil), "https://auth.test", "https://auth.test", answer["access_token"].(string)); err != nil {
			t.Errorf("a token of the old server is refused: %v", err)
		}
		r.Caller(t, protocol, sensor).Get("https://api.test/", rig.Bearer(answer["access_token"].(string))).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
	}
}
