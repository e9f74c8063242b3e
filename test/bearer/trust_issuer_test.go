package bearer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// otherServer is an authorization server that signs any claims a test asks for.
type otherServer struct {
	*httptest.Server
	t     *testing.T
	clock *rig.Clock

	mu      sync.Mutex
	keys    map[string]*ecdsa.PrivateKey // the published keys by key id
	down    bool
	fetches int // how often the keys were fetched
}

// newOtherServer starts a server and writes its certificate to other-server.pem.
func newOtherServer(t *testing.T, r *rig.Rig, clock *rig.Clock) *otherServer {
	s := &otherServer{t: t, clock: clock, keys: make(map[string]*ecdsa.PrivateKey)}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	r.Write("other-server.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	s.publish("k1")
	return s
}

func (s *otherServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down:
		http.Error(w, "down", http.StatusServiceUnavailable)
	case r.URL.Path == "/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": s.URL, "jwks_uri": s.URL + "/keys"})
	case r.URL.Path == "/keys":
		s.fetches++
		var set jose.JSONWebKeySet
		for kid, key := range s.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: "ES256", Use: "sig"})
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: []byte("secret"), KeyID: "leaked"})
		_ = json.NewEncoder(w).Encode(set)
	default:
		http.NotFound(w, r)
	}
}

// publish replaces all keys with new ones of these names.
func (s *otherServer) publish(kids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.keys)
	for _, kid := range kids {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			s.t.Fatal(err)
		}
		s.keys[kid] = key
	}
}

func (s *otherServer) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *otherServer) fetched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches
}

// token signs a token that is valid for an hour, with changes applied to its claims. A
// nil value removes a claim, and "typ" sets the header.
func (s *otherServer) token(leaf *testpki.Leaf, kid string, changes map[string]any) string {
	s.t.Helper()
	s.mu.Lock()
	key := s.keys[kid]
	s.mu.Unlock()
	now := s.clock.Now().Unix()
	claims := jwt.MapClaims{
		"iss": s.URL, "sub": "job", "client_id": "job", "aud": "https://api.test", "iat": now, "exp": now + 3600, "jti": "1",
		"scope": "read", "cnf": map[string]string{"x5t#S256": thumbprintOf(leaf)}, "tenant": "acme", "level": []int{1, 2},
	}
	maps.Copy(claims, changes)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"], token.Header["typ"] = kid, "at+jwt"
	if typ, ok := claims["typ"]; ok {
		token.Header["typ"] = typ
	}
	maps.DeleteFunc(claims, func(name string, value any) bool { return value == nil || name == "typ" })
	signed, err := token.SignedString(key)
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

// foreignSites trust the other server on its own, with every setting, and alongside a
// realm.
const foreignSites = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		trust_issuer OTHER {
			audience   https://api.test
			trust_pool file "@DIR@/other-server.pem"
		}
		header_up X-Client-ID {http.mtls.client_id}
		header_up X-Client-Other "{http.mtls.realm}|{http.mtls.scope}|{http.mtls.credential}|{http.mtls.thumbprint}|{http.mtls.subject}|{http.mtls.subject_legacy}|{http.mtls.fingerprint_sha256}|{http.mtls.claim.tenant}|{http.mtls.claim.level}|{http.mtls.claim.none}"
	}
	reverse_proxy @UP@
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		realm default
		trust_issuer OTHER {
			jwks_uri   OTHER/keys
			audience   https://other.test https://api.test
			id_prefix  other/
			algorithms ES256 RS256
			trust_pool file "@DIR@/other-server.pem"
		}
		require_scope read
	}
	reverse_proxy @UP@
}
https://alias.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		trust_issuer OTHER {
			audience   https://api.test
			type       JWT
			id_claim   sub
			allow_unbound
			trust_pool file "@DIR@/other-server.pem"
		}
		header_up X-Client-ID {http.mtls.client_id}
		header_up X-Client-Other "{http.mtls.thumbprint}{http.mtls.subject}{http.mtls.not_after}{http.mtls.subject_legacy}{http.mtls.issuer}{http.mtls.issuer_legacy}{http.mtls.serial}{http.mtls.not_before}{http.mtls.fingerprint_sha256}{http.mtls.fingerprint_sha1}"
	}
	reverse_proxy @UP@
}
` + rig.IssuerSite

// startForeign starts foreignSites and waits until the keys have been fetched.
func startForeign(t *testing.T) (*rig.Rig, *otherServer, *rig.Clock, *testpki.Leaf) {
	r, clock := rig.New(t), rig.NewClock(t)
	other := newOtherServer(t, r, clock)
	r.Issue("billing")
	r.SelfSigned("sensor")
	job := r.SelfSigned("job") // only the other server knows this client
	r.Write("deny.txt", []byte("# nobody\n"))
	r.Start(foreignRealm(t), strings.ReplaceAll(foreignSites, "OTHER", other.URL))
	r.Caller(t, "h2", nil).Get("https://auth.test/.well-known/openid-configuration/jwks").WantStatus(t, http.StatusOK) // waits for the realm's signing key
	for _, host := range []string{"api", "other", "alias"} {
		untilToken(t, r.Caller(t, "h2", job), "https://"+host+".test/", other.token(job, "k1", nil), http.StatusOK)
	}
	return r, other, clock, job
}

func foreignRealm(t *testing.T) string {
	return strings.Replace(rig.ClockRealmOf(t), "client billing.partner", "revocation {\ndeny \"@DIR@/deny.txt\"\n}\nclient other/billing {\nthumbprint "+testpki.SomeSHA256+"\n}\nclient billing.partner", 1)
}

// untilToken repeats a request over one open connection until it returns the status.
func untilToken(t *testing.T, c *rig.Caller, url, token string, status int) rig.Reply {
	t.Helper()
	var got rig.Reply
	for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got = c.Get(url, rig.Bearer(token)); got.Status == status {
			return got
		}
	}
	t.Fatalf("the status is still %d, want %d", got.Status, status)
	return got
}

// TestTokensOfAnotherServer_R19_R34 checks that clients of the other server need only a
// valid token and possession of its certificate.
func TestTokensOfAnotherServer_R19_R34(t *testing.T) {
	r, other, clock, job := startForeign(t)
	clock.Freeze()
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			c := r.Caller(t, protocol, job)
			got := c.Get("https://api.test/", rig.Bearer(other.token(job, "k1", nil))).WantStatus(t, http.StatusOK).WantClient(t, "job")
			if seen, want := got.Seen.Header.Get("X-Client-Other"), "|read|token|"+thumbprintOf(job)+"|CN=job|/CN=job|"+testpki.HashOf(job.Cert.Raw)+"|acme|[1,2]|"; seen != want {
				t.Errorf("the upstream received %q, want %q", seen, want)
			}
			c.Get("https://other.test/", rig.Bearer(other.token(job, "k1", nil))).WantStatus(t, http.StatusOK).WantClient(t, "other/job")
			// its claims are not read before the signature is verified
			long := other.token(job, "k1", map[string]any{"x": strings.Repeat("x", 4000)})
			c.Get("https://other.test/", rig.Bearer(long)).WantStatus(t, http.StatusOK).WantClient(t, "other/job")
			for name, test := range map[string]struct {
				host    string
				changes map[string]any
				reason  string
			}{
				"of another issuer":     {"api", map[string]any{"iss": "https://x.test"}, "token_issuer"},
				"of another, beside":    {"other", map[string]any{"iss": "https://x.test"}, "token_issuer"},
				"as of the realm":       {"other", map[string]any{"iss": "https://auth.test"}, "token_key_unknown"},
				"long, of another":      {"other", map[string]any{"iss": "https://x.test", "x": strings.Repeat("x", 4000)}, "token_issuer"},
				"for another API":       {"api", map[string]any{"aud": "https://other.test"}, "token_audience"},
				"without a scope":       {"other", map[string]any{"scope": "write"}, "scope_missing"},
				"JWT":                   {"api", map[string]any{"typ": "JWT"}, "token_type"},
				"gateway+jwt":           {"api", map[string]any{"typ": "gateway+jwt"}, "token_type"},
				"gateway+jwt, not JWT":  {"alias", map[string]any{"typ": "gateway+jwt"}, "token_type"},
				"unbound":               {"api", map[string]any{"cnf": nil}, "token_unbound"},
				"bound to a key":        {"alias", map[string]any{"cnf": map[string]string{"jkt": thumbprintOf(job)}}, "token_confirmation"},
				"bound to another":      {"alias", map[string]any{"cnf": map[string]string{"x5t#S256": strings.Repeat("A", 43)}}, "token_certificate"},
				"named as one of ours":  {"other", map[string]any{"client_id": "billing"}, "token_client"},
				"with a header in it":   {"api", map[string]any{"client_id": "a\r\nX-Admin: 1"}, "token_malformed"},
				"expired":               {"api", map[string]any{"exp": clock.Now().Unix()}, "token_expired"},
				"of a minute in future": {"api", map[string]any{"nbf": clock.Now().Unix() + 60}, "token_not_yet_valid"},
			} {
				t.Run(name, func(t *testing.T) {
					rig.WantBearer(r, t, c.Get("https://"+test.host+".test/", rig.Bearer(other.token(job, "k1", test.changes))), test.reason)
				})
			}
			// the settings of the third site accept these tokens
			got = c.Get("https://alias.test/", rig.Bearer(other.token(job, "k1", map[string]any{"typ": "JWT", "sub": "by-sub", "client_id": nil})))
			got.WantStatus(t, http.StatusOK).WantClient(t, "by-sub")
			for _, leaf := range []*testpki.Leaf{nil, job} {
				got = r.Caller(t, protocol, leaf).Get("https://alias.test/", rig.Bearer(other.token(job, "k1", map[string]any{"cnf": nil})))
				if got.WantStatus(t, http.StatusOK).WantClient(t, "job"); got.Seen.Header["X-Client-Other"] != nil {
					t.Errorf("the upstream received %q for an unbound token", got.Seen.Header["X-Client-Other"])
				}
			}
			rig.WantBearer(r, t, r.Caller(t, protocol, nil).Get("https://api.test/", rig.Bearer(other.token(job, "k1", nil))), "certificate_missing")
		})
	}
}

// TestTheCertificateOfAnotherServersToken_C1_C2 checks that every request honors the
// certificate's validity and the realm's deny file.
func TestTheCertificateOfAnotherServersToken_C1_C2(t *testing.T) {
	r, other, clock, _ := startForeign(t)
	job := r.SelfSigned("short", testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(30*time.Minute)))
	token := other.token(job, "k1", nil)
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, job)
		for _, host := range []string{"api", "other"} {
			c.Get("https://"+host+".test/", rig.Bearer(token)).WantStatus(t, http.StatusOK)
			clock.Advance(31 * time.Minute)
			rig.WantBearer(r, t, c.Get("https://"+host+".test/", rig.Bearer(token)), "certificate_expired")
			clock.Advance(-31 * time.Minute)
		}
	}
	c := r.Caller(t, "h1", job)
	c.Get("https://other.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK)
	if err := os.WriteFile(r.Dir+"/deny.txt", []byte("thumbprint "+testpki.HashOf(job.Cert.Raw)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.WantBearer(r, t, untilToken(t, c, "https://other.test/", token, http.StatusUnauthorized), "certificate_revoked")
	// a site without a realm has no deny file
	c.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK)
}

// TestForeignKeys checks that many unknown key ids cause a single fetch and that
// withdrawing a key invalidates its tokens. Known keys stay in use while the server is
// down and across a reload.
func TestForeignKeys(t *testing.T) {
	r, other, clock, job := startForeign(t)
	c := r.Caller(t, "h1", job)
	sites := strings.ReplaceAll(foreignSites, "OTHER", other.URL)
	old := other.token(job, "k1", nil)
	c.Get("https://api.test/", rig.Bearer(old)).WantStatus(t, http.StatusOK)

	r.Logs.Wait(t, "a key that is left out", func(e rig.LogEntry) bool {
		return e.Str("msg") == "keys of issuer left out" && e.Str("issuer") == other.URL && strings.Contains(fmt.Sprint(e["faults"]), "(kid 'leaked'): it has PRIVATE or secret members")
	})

	other.publish("k2")
	other.setDown(true)
	clock.Advance(time.Minute) // a minute after the last request for keys
	fetched := other.fetched()
	fresh := other.token(job, "k2", nil)
	rig.WantBearer(r, t, c.Get("https://api.test/", rig.Bearer(fresh)), "token_key_unknown")
	r.Logs.Wait(t, "keys that cannot be fetched", func(e rig.LogEntry) bool {
		return e.Str("msg") == "fetching issuer keys failed; keeping previous keys" && e.Str("issuer") == other.URL
	})
	c.Get("https://api.test/", rig.Bearer(old)).WantStatus(t, http.StatusOK)
	r.Reload(foreignRealm(t), sites)
	c = r.Caller(t, "h1", job)
	c.Get("https://api.test/", rig.Bearer(old)).WantStatus(t, http.StatusOK) // the reload kept the keys

	other.setDown(false)
	clock.Advance(time.Minute)
	untilToken(t, c, "https://api.test/", fresh, http.StatusOK)
	rig.WantBearer(r, t, c.Get("https://api.test/", rig.Bearer(old)), "token_key_unknown")
	after := other.fetched()
	if after == fetched {
		t.Error("no keys were fetched")
	}
	clock.Advance(time.Minute)
	signed := make([]string, 300)
	for i := range signed { // with keys that are withdrawn before Caddy fetches them
		kid := "flood" + strconv.Itoa(i)
		other.publish(kid)
		signed[i] = other.token(job, kid, nil)
	}
	other.publish("k3")
	for _, token := range signed {
		got := c.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusUnauthorized)
		if got.Seen != nil {
			t.Fatal("a token with an unpublished key is accepted")
		}
	}
	untilToken(t, c, "https://api.test/", other.token(job, "k3", nil), http.StatusOK)
	if n := other.fetched() - after; n != 1 {
		t.Errorf("a flood of unknown keys caused %d fetches, want one", n)
	}
}

// TestKeyRolloverOfAnotherCaddy_R41 uses a realm of Caddy itself as the other server.
// Its keys come over the network, and its certificate comes from a private CA.
func TestKeyRolloverOfAnotherCaddy_R41(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	for _, name := range []string{"one.pem", "two.pem"} {
		r.Write(name, testpki.KeyPEM(t, testpki.MustKey(t, testpki.P256)))
	}
	global := func(key string) string {
		return strings.Replace(rig.ClockRealmOf(t), "issuer https://auth.test {", "issuer https://localhost:@HTTPS@/as {\nsigning_key \"@DIR@/"+key+"\"", 1)
	}
	const sites = `
https://localhost:@HTTPS@ {
	import mtls
	mtls_issuer
}
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		trust_issuer https://localhost:@HTTPS@/as {
			audience   https://localhost:@HTTPS@/as
			id_prefix  as/
			trust_pool file "@DIR@/server-ca.pem"
		}
	}
	reverse_proxy @UP@
}
`
	r.Start(global("one.pem"), sites)
	mint := func() string {
		answer, _, _ := rig.Token(r, t, r.Caller(t, "h2", billing), "https://localhost:"+r.HTTPS+"/as/connect/token", rig.Form("billing.partner"))
		return answer["access_token"].(string)
	}
	first := mint()
	untilToken(t, r.Caller(t, "h2", billing), "https://api.test/", first, http.StatusOK).WantClient(t, "as/billing.partner")

	clock.Advance(time.Minute)
	r.Reload(global("two.pem"), sites)
	second, c := mint(), r.Caller(t, "h2", billing)
	c.Get("https://api.test/", rig.Bearer(first)).WantStatus(t, http.StatusOK) // the reload kept the keys
	rig.WantBearer(r, t, c.Get("https://api.test/", rig.Bearer(second)), "token_key_unknown")
	untilToken(t, c, "https://api.test/", second, http.StatusOK).WantClient(t, "as/billing.partner")
	rig.WantBearer(r, t, c.Get("https://api.test/", rig.Bearer(first)), "token_key_unknown")
}

// TestKeysOfAServerThatIsDown checks that callers are asked to retry until the keys
// have been fetched, rather than told that their token is invalid.
func TestKeysOfAServerThatIsDown(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	other := newOtherServer(t, r, clock)
	other.setDown(true)
	r.Issue("billing")
	r.SelfSigned("sensor")
	job := r.SelfSigned("job")
	r.Write("deny.txt", nil)
	r.Start(foreignRealm(t), strings.ReplaceAll(foreignSites, "OTHER", other.URL))
	c := r.Caller(t, "h1", job)
	got := c.Get("https://api.test/", rig.Bearer(other.token(job, "k1", nil))).WantStatus(t, http.StatusServiceUnavailable)
	if got.Header.Get("Retry-After") == "" {
		t.Error("Retry-After is missing")
	}
	r.Logs.Wait(t, "keys that are not there", func(e rig.LogEntry) bool {
		return e.Str("msg") == "token refused" && e.Str("reason") == "token_keys_unavailable"
	})
	other.setDown(false)
	clock.Advance(time.Hour)
	untilToken(t, c, "https://api.test/", other.token(job, "k1", nil), http.StatusOK)
}
