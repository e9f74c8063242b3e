package mtlsauth

import (
	"crypto"
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

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// signingKeyPEM writes a private key where a configuration can name it.
func (r *rig) signingKeyPEM(t *testing.T, name string, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	r.secrets = append(r.secrets, strings.Split(string(text), "\n")[1])
	return r.write(name, text)
}

// mustSigner makes a P-256 key.
func mustSigner(t *testing.T) crypto.Signer {
	t.Helper()
	return testpki.MustKey(t, testpki.P256)
}

// verifiedToken gets a token, has go-oidc verify it, and returns its header.
func (r *rig) verifiedToken(t *testing.T, protocol string, leaf *testpki.Leaf, issuer string) map[string]any {
	t.Helper()
	answer, header, _ := r.token(t, r.caller(t, protocol, leaf), issuer+"/connect/token", form("sensor-7"))
	if _, err := verify(t, r.caller(t, protocol, nil), issuer, issuer, answer["access_token"].(string)); err != nil {
		t.Error(err)
	}
	return header
}

// TestR30_R47_SigningAlgorithms: a token of every algorithm verifies with the
// published keys alone.
func TestR30_R47_SigningAlgorithms(t *testing.T) {
	shared := testpki.MustKey(t, testpki.RSA2048) // one for all, for making one takes long
	for _, algorithm := range keyring.Algorithms() {
		t.Run(string(algorithm), func(t *testing.T) {
			r := newRig(t)
			sensor := r.selfSigned("sensor")
			r.issue("billing")
			options := "signing_algorithm " + string(algorithm)
			if strings.HasSuffix(strings.TrimRight(string(algorithm), "0123456789"), "S") && algorithm[0] != 'E' && algorithm != keyring.PS256 {
				options += "\nsigning_key " + r.signingKeyPEM(t, "rsa.pem", shared) // PS256 makes one of its own
			}
			r.start(issuerRealm(options), issuerSite)
			for _, protocol := range rigProtocols {
				if header := r.verifiedToken(t, protocol, sensor, "https://auth.test"); header["alg"] != string(algorithm) {
					t.Errorf("alg is %v", header["alg"])
				}
			}
		})
	}
}

// TestR45_R47_ProfileAtWork: with profile fapi2, clients get their tokens, and a
// certificate with a weak key gets none.
func TestR45_R47_ProfileAtWork(t *testing.T) {
	r := newRig(t)
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	billing, weak := r.issue("billing"), r.issue("weak", testpki.CommonName("billing"), testpki.Key(key))
	sensor := r.selfSigned("sensor")
	for _, profile := range []string{"", "profile fapi2\n"} {
		if profile == "" {
			r.start(issuerRealm("signing_algorithm PS256"), issuerSite)
		} else {
			r.reload(issuerRealm(profile+"signing_algorithm PS256"), issuerSite)
		}
		for _, protocol := range rigProtocols {
			r.token(t, r.caller(t, protocol, billing), "https://auth.test/connect/token", form("billing.partner"))
			header := r.verifiedToken(t, protocol, sensor, "https://auth.test")
			got := r.caller(t, protocol, weak).do(http.MethodPost, "https://auth.test/connect/token", form("billing.partner"))
			if profile == "" {
				got.wantStatus(t, http.StatusOK)
				continue
			}
			if header["alg"] != "PS256" {
				t.Errorf("the header is %v", header)
			}
			got.wantStatus(t, http.StatusUnauthorized)
			if entry := r.logs.withErrorID(t, "client refused", got.errorID); entry.str("reason") != "certificate_unsuitable" || !strings.Contains(entry.str("detail"), "1024 bits") {
				t.Errorf("the log line is %v", entry)
			}
		}
	}
}

// The profile has to wait while a key signs that it does not allow.
func TestProfileWaitsForTheNextKey(t *testing.T) {
	r := newRig(t)
	sensor := r.selfSigned("sensor")
	r.issue("billing")
	r.start(issuerRealm("signing_algorithm ES384"), issuerSite)
	kid := r.verifiedToken(t, "h2", sensor, "https://auth.test")["kid"]
	err := r.load(issuerRealm("profile fapi2"), issuerSite)
	if err == nil || !strings.Contains(err.Error(), "profile fapi2: the active key '"+kid.(string)+"' is for ES384, which is not allowed; add the profile when a key of signing_algorithm has taken its place") {
		t.Errorf("the configuration loads: %v", err)
	}
	if again := r.verifiedToken(t, "h2", sensor, "https://auth.test")["kid"]; again != kid {
		t.Errorf("the kid is %v, was %v", again, kid)
	}
}

func TestSigningKeyFile(t *testing.T) {
	r := newRig(t)
	sensor := r.selfSigned("sensor")
	r.issue("billing")
	keys := map[string]testpki.KeyType{"ES256": testpki.P256, "ES384": testpki.P384, "ES512": testpki.P521, "EdDSA": testpki.Ed25519, "RS256": testpki.RSA2048}
	kids := make(map[string]bool)
	started := false
	for algorithm, kind := range keys {
		options := issuerRealm("signing_key " + r.signingKeyPEM(t, algorithm+".pem", testpki.MustKey(t, kind)))
		if !started {
			r.start(options, issuerSite)
			started = true
		} else {
			r.reload(options, issuerSite)
		}
		header := r.verifiedToken(t, "h2", sensor, "https://auth.test")
		kid, _ := header["kid"].(string)
		if header["alg"] != algorithm || kid == "" || kids[kid] {
			t.Errorf("a %s key signs with header %v", algorithm, header)
		}
		kids[kid] = true
	}
	if entries, err := os.ReadDir(filepath.Join(r.dir, "storage", "mtls")); err == nil && len(entries) > 0 {
		t.Errorf("with a key file, keys were put into storage: %v", entries)
	}
	// a key that does not fit the algorithm, and one key for two realms
	ed := "signing_key @DIR@/EdDSA.pem"
	if err := r.load(issuerRealm("signing_algorithm ES256\n"+ed), issuerSite); err == nil || !strings.Contains(err.Error(), "EdDSA.pem") {
		t.Errorf("a key of another algorithm: %v", err)
	}
	second := "\nmtls second {\nclient sensor-7 {\ncertificate @DIR@/sensor.pem\n}\nissuer https://alias.test {\n" + ed + "\n}\n}\n"
	if err := r.load(issuerRealm(ed)+second, issuerSite); err == nil || !strings.Contains(err.Error(), "signing_key") {
		t.Errorf("two realms share a signing key: %v", err)
	}
}

func TestManagedKeySurvivesARestart(t *testing.T) {
	r := newRig(t)
	sensor := r.selfSigned("sensor")
	r.issue("billing")
	sites := issuerSite + `
https://alias.test:@HTTPS@ {
	import mtls
	mtls_issuer {
		realm second
	}
}
`
	options := issuerRealm("") + `
mtls second {
	client sensor-7 {
		certificate "@DIR@/sensor.pem"
	}
	issuer https://alias.test
}
`
	r.start(options, sites)
	first := r.verifiedToken(t, "h1", sensor, "https://auth.test")["kid"]
	second := r.verifiedToken(t, "h1", sensor, "https://alias.test")["kid"]
	if first == second {
		t.Error("two realms sign with the same key")
	}
	for name, restart := range map[string]func(){
		"reload":  func() { r.reload(options+"\n# changed", sites) },
		"restart": func() { _ = caddy.Stop(); r.reload(options, sites) },
	} {
		restart()
		for _, protocol := range rigProtocols {
			if kid := r.verifiedToken(t, protocol, sensor, "https://auth.test")["kid"]; kid != first {
				t.Errorf("%s: the kid is %v, was %v", name, kid, first)
			}
			if kid := r.verifiedToken(t, protocol, sensor, "https://alias.test")["kid"]; kid != second {
				t.Errorf("%s: the other realm's kid is %v, was %v", name, kid, second)
			}
		}
	}
	for _, realm := range []string{"default", "second"} {
		files, err := filepath.Glob(filepath.Join(r.dir, "storage", "mtls", realm, "keys", "*.json"))
		if err != nil || len(files) != 1 {
			t.Fatalf("realm %s has the keys %q in storage", realm, files)
		}
		info, err := os.Stat(files[0])
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("the stored key has mode %v", info.Mode())
		}
	}

	// the algorithm changes: a key of it is announced, and nothing else signs
	r.reload(strings.Replace(options, "issuer https://auth.test {", "issuer https://auth.test {\nsigning_algorithm ES384", 1), sites)
	if kid := r.verifiedToken(t, "h2", sensor, "https://auth.test")["kid"]; kid != first {
		t.Error("a key signs that was never announced")
	}
	metadata := r.caller(t, "h2", nil)
	r.await(t, "the new algorithm is in the metadata", func() bool {
		return strings.Contains(metadata.get("https://auth.test/.well-known/openid-configuration").body, `"id_token_signing_alg_values_supported":["ES256","ES384"]`)
	})
	jwks := r.caller(t, "h2", nil).get("https://auth.test/.well-known/openid-configuration/jwks").body
	if !strings.Contains(jwks, first.(string)) || strings.Count(jwks, `"kid"`) != 2 || strings.Contains(jwks, `"d":`) {
		t.Errorf("the keys are %s, want the old one among them and nothing private", jwks)
	}
}

// await polls for a condition.
func (r *rig) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(rigPatience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never comes about that %s", what)
		}
	}
}

// A regular file stands where the storage folder should be: that stops even
// root, which file permissions would not.
func TestStorageUnusableAtFirstStart(t *testing.T) {
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			r, clock := newRig(t), newRigClock(t)
			billing, _ := r.issue("billing"), r.selfSigned("sensor")
			blocker := r.write("storage", nil)
			r.start(clockRealmOf(t), issuerSite+oneSite)
			c := r.caller(t, protocol, billing)
			jwksPlace := "https://auth.test/.well-known/openid-configuration/jwks"

			for range 2 {
				c.get("https://auth.test/.well-known/openid-configuration").wantStatus(t, http.StatusOK)
				c.get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
				for _, got := range []reply{c.do(http.MethodPost, "https://auth.test/connect/token", form("billing.partner")), c.get(jwksPlace)} {
					got.wantStatus(t, http.StatusServiceUnavailable)
					if asJSON(t, got.body)["error"] != "temporarily_unavailable" || got.header.Get("Retry-After") == "" || got.header.Get("Cache-Control") != "no-store" {
						t.Errorf("without keys: %q %v", got.body, got.header)
					}
					if strings.Contains(got.body, r.dir) {
						t.Errorf("the answer tells where storage is: %q", got.body)
					}
					entry := r.logs.withErrorID(t, "token request refused", got.errorID)
					if entry.str("reason") != "temporarily_unavailable" || !strings.Contains(entry.str("detail"), "storage") {
						t.Errorf("the log line is %v", entry)
					}
				}
			}
			// who is not authenticated does not learn of it
			stranger := r.caller(t, protocol, nil).do(http.MethodPost, "https://auth.test/connect/token", form("billing.partner"))
			stranger.wantStatus(t, http.StatusUnauthorized)

			if err := os.Remove(blocker); err != nil {
				t.Fatal(err)
			}
			clock.advance(time.Minute) // past the pause between two attempts
			r.token(t, c, "https://auth.test/connect/token", form("billing.partner"))
			c.get(jwksPlace).wantStatus(t, http.StatusOK)
		})
	}
}

// Storage that goes away later stops nobody who has the keys.
func TestStorageLostAtRunTime(t *testing.T) {
	r := newRig(t)
	sensor := r.selfSigned("sensor")
	r.issue("billing")
	r.start(issuerRealm(""), issuerSite)
	kid := r.verifiedToken(t, "h2", sensor, "https://auth.test")["kid"]
	if err := os.RemoveAll(filepath.Join(r.dir, "storage")); err != nil {
		t.Fatal(err)
	}
	r.write("storage", nil)
	for _, protocol := range rigProtocols {
		if again := r.verifiedToken(t, protocol, sensor, "https://auth.test")["kid"]; again != kid {
			t.Errorf("the kid is %v, was %v", again, kid)
		}
	}
	r.reload(issuerRealm("")+"\n# changed", issuerSite)
	for _, protocol := range rigProtocols {
		c := r.caller(t, protocol, sensor)
		got := c.do(http.MethodPost, "https://auth.test/connect/token", form("sensor-7"))
		if got.status != http.StatusOK {
			t.Errorf("after a reload without storage: %d %q", got.status, got.body)
		}
	}
}

// A realm may keep its keys somewhere else.
func TestStorageOfARealm(t *testing.T) {
	r := newRig(t)
	sensor := r.selfSigned("sensor")
	r.issue("billing")
	realm := strings.Replace(issuerRealm(""), "issuer https", "storage file_system \"@DIR@/elsewhere\"\nissuer https", 1)
	r.start(realm, issuerSite)
	kid := r.verifiedToken(t, "h2", sensor, "https://auth.test")["kid"]
	files, err := filepath.Glob(filepath.Join(r.dir, "elsewhere", "mtls", "default", "keys", "*.json"))
	if err != nil || len(files) != 1 {
		t.Errorf("the storage of the realm has %v, %v", files, err)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "storage", "mtls")); !os.IsNotExist(err) {
		t.Errorf("Caddy's storage has keys: %v", err)
	}

	// another one gets the keys in use
	r.reload(strings.Replace(realm, "elsewhere", "moved", 1), issuerSite)
	r.await(t, "the keys are in the new storage", func() bool {
		files, err := filepath.Glob(filepath.Join(r.dir, "moved", "mtls", "default", "keys", "*.json"))
		return err == nil && len(files) == 1
	})
	if again := r.verifiedToken(t, "h2", sensor, "https://auth.test")["kid"]; again != kid {
		t.Errorf("the kid is %v, was %v", again, kid)
	}
}

// The tokens of a server that is being replaced are accepted by whoever reads
// the published keys, and by mtls_bearer.
func TestKeysOfAServerThatIsReplaced(t *testing.T) {
	r := newRig(t)
	sensor := r.selfSigned("sensor")
	r.issue("billing")
	old := mustSigner(t)
	r.signingKeyPEM(t, "old.pem", old)
	r.start(issuerRealm(`signing_key "@DIR@/old.pem"`), bearerSites)
	answer, header, _ := r.token(t, r.caller(t, "h2", sensor), "https://auth.test/connect/token", form("sensor-7"))
	public, err := x509.MarshalPKIXPublicKey(old.Public())
	if err != nil {
		t.Fatal(err)
	}
	r.write("old.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	r.reload(issuerRealm(`verify_key "@DIR@/old.pub"`), bearerSites)
	for _, protocol := range rigProtocols {
		if again := r.verifiedToken(t, protocol, sensor, "https://auth.test")["kid"]; again == header["kid"] {
			t.Error("the key of the old server signs")
		}
		if _, err := verify(t, r.caller(t, protocol, nil), "https://auth.test", "https://auth.test", answer["access_token"].(string)); err != nil {
			t.Errorf("a token of the old server is refused: %v", err)
		}
		r.caller(t, protocol, sensor).get("https://api.test/", bearer(answer["access_token"].(string))).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
	}
}
