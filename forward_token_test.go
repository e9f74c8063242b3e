package mtlsauth

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/authserver"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// minterRig is a minter with a clock that tests move and a client's certificate.
type minterRig struct {
	*gatewayMinter
	t     *testing.T
	clock *testenv.Clock
	leaf  *testpki.Leaf
}

func newKeyring(t *testing.T) *keyring.Keyring {
	t.Helper()
	key, err := keyring.NewKey(testpki.MustKey(t, testpki.P256), keyring.ES256, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return keyring.New(key)
}

func newMinterRig(t *testing.T, lifetime time.Duration, opts ...testpki.Option) *minterRig {
	t.Helper()
	clock, leaf := testenv.NewClockAt(time.Now()), testpki.MustSelfSigned(t, opts...)
	realm := &Realm{name: "default", app: &App{Now: clock.Now}, logger: zap.NewNop(), metrics: metrics.NewRealm("default"), memory: new(realmMemory)}
	keys := keyring.Fixed(newKeyring(t))
	server, err := tokens.NewIssuer(tokens.IssuerConfig{URL: "https://auth.test", Now: clock.Now}, keys)
	if err != nil {
		t.Fatal(err)
	}
	realm.issuer = &authserver.Server{Keys: keys, Issuer: server}
	realm.current.issuer, realm.current.config.Now = realm.issuer, clock.Now
	r := &minterRig{
		gatewayMinter: &gatewayMinter{realm: realm, now: clock.Now, header: "Authorization", prefix: "Bearer ", audience: "urn:api", lifetime: lifetime},
		t:             t, clock: clock, leaf: leaf,
	}
	r.decide()
	return r
}

// decide replaces the realm's snapshot.
func (r *minterRig) decide() {
	r.t.Helper()
	record := pinned("a", r.leaf)
	record.Scope = "read write"
	r.realm.current.use(components{registry: registryOf(r.t, record), trust: new(trustpool.Trust)})
}

func (r *minterRig) identity() identity {
	r.t.Helper()
	id, refusal := r.realm.authenticate(context.Background(), r.leaf.Presented(), "")
	if refusal != nil {
		r.t.Fatal(refusal)
	}
	return id
}

func (r *minterRig) ask() string {
	r.t.Helper()
	value, refusal, failure := r.token(context.Background(), r.identity())
	if refusal != nil || failure != nil || !strings.HasPrefix(value, "Bearer ") {
		r.t.Fatalf("%v %v %q", refusal, failure, value)
	}
	return value
}

func TestWarmToken(t *testing.T) {
	r := newMinterRig(t, time.Minute)
	first := r.ask()
	r.clock.Advance(39 * time.Second)
	if r.ask() != first {
		t.Error("a warm token is not reused")
	}
	r.clock.Advance(2 * time.Second) // less than a third is left
	second := r.ask()
	if second == first {
		t.Error("a token that is due for renewal is not renewed")
	}
	r.clock.Advance(10 * time.Second)
	if r.ask() != second {
		t.Error("the renewed token is not kept")
	}
	r.clock.Advance(10 * time.Minute)
	if third := r.ask(); third == first || third == second {
		t.Error("an expired token is used")
	}
	// after the clock is set back, tokens are from the future and must not be used
	last := r.ask()
	r.clock.Advance(-time.Hour)
	if r.ask() == last {
		t.Error("a token from the future is used")
	}
}

// TestWarmTokenOfAClient checks that a token is kept while the client stays the same,
// and not longer.
func TestWarmTokenOfAClient(t *testing.T) {
	r := newMinterRig(t, time.Minute)
	old, first := r.identity(), r.ask()
	r.realm.current.change(func(c *components) { c.trust = new(trustpool.Trust) })
	if r.ask() != first {
		t.Error("a token does not survive a change that is not about its client")
	}
	r.decide()
	second := r.ask()
	if second == first {
		t.Error("a token survives a change of the client")
	}
	// the client before decided this request
	if value, refusal, failure := r.token(context.Background(), old); refusal != nil || failure != nil || value == second {
		t.Errorf("%v %v", refusal, failure)
	}
	if r.ask() != second {
		t.Error("a request that was on its way changes the token of the client")
	}
}

// TestWarmTokensGrowWithTheClients checks that tokens stay when there is room for more
// clients.
func TestWarmTokensGrowWithTheClients(t *testing.T) {
	r := newMinterRig(t, time.Minute)
	first, id := r.ask(), r.identity()
	for clients, want := range map[int]int{0: minWarmTokens, 2 * minWarmTokens: 4 * minWarmTokens} {
		r.warmFor(clients)
		if token := r.warmFor(1).get(id.Client(), id.Thumbprint); token == nil || token.value != first {
			t.Errorf("the token is gone with %d clients", clients)
		}
		if got := r.warmFor(clients).Len(); got < want {
			t.Errorf("%d slots for %d clients, want %d", got, clients, want)
		}
	}
	if got := r.warmFor(1 << 30).Len(); got != maxWarmTokens {
		t.Errorf("%d slots, at most %d are wanted", got, maxWarmTokens)
	}
}

// TestWarmTokenOfARetiredKey checks that tokens are not used once their key is no
// longer published.
func TestWarmTokenOfARetiredKey(t *testing.T) {
	r := newMinterRig(t, time.Minute)
	first := r.ask()
	r.realm.issuer.Keys = keyring.Fixed(newKeyring(t))
	if r.ask() == first {
		t.Error("a token of a retired key is used")
	}
}

// TestWarmTokenIsRenewedOnce checks that only one of many simultaneous requests
// renews a token.
func TestWarmTokenIsRenewedOnce(t *testing.T) {
	r := newMinterRig(t, time.Minute)
	first, id := r.ask(), r.identity()
	r.clock.Advance(45 * time.Second)
	token := r.warmFor(1).get(id.Client(), id.Thumbprint)
	token.refreshing.Store(true) // as if another request were renewing it
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if value, _, _ := r.token(context.Background(), id); value != first {
				t.Error("two requests renew one token")
			}
		})
	}
	group.Wait()
	token.refreshing.Store(false)
	if r.ask() == first {
		t.Error("no request renews the token")
	}
}

// TestWarmTokenAtTheEndOfTheCertificate checks that a token expires with the
// certificate, and is not renewed if a new one would not last longer.
func TestWarmTokenAtTheEndOfTheCertificate(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := newMinterRig(t, time.Minute, testpki.Validity(now.Add(-time.Hour), now.Add(20*time.Second)))
	r.clock.Advance(now.Sub(r.clock.Now()))
	first := r.ask()
	r.clock.Advance(19 * time.Second)
	if r.ask() != first {
		t.Error("a token is renewed although it cannot last longer")
	}
	r.clock.Advance(time.Second) // the certificate is still valid, but a token would not be
	_, refusal, failure := r.token(context.Background(), r.identity())
	if failure != nil || refusal == nil || refusal.Reason != validators.CertificateExpired {
		t.Errorf("%v %v", refusal, failure)
	}
}

func TestWarmTokensAreBounded(t *testing.T) {
	r := newMinterRig(t, time.Minute)
	warm, client := r.warmFor(1), r.identity().Client()
	if warm.Len() != minWarmTokens {
		t.Fatalf("%d slots", warm.Len())
	}
	for n := range 10 * minWarmTokens {
		token := &warmToken{client: client, thumbprint: testpki.HashOf(fmt.Append(nil, n)), expires: r.clock.Now().Add(time.Duration(n))}
		warm.put(token)
		if warm.get(client, token.thumbprint) != token {
			t.Fatal("the newest token is not kept")
		}
	}
	// older tokens are replaced first
	kept := 0
	for token := range warm.All() {
		if !token.expires.Before(r.clock.Now().Add(5 * minWarmTokens)) {
			kept++
		}
	}
	if kept < minWarmTokens*9/10 {
		t.Errorf("only %d of %d are of the newer half", kept, minWarmTokens)
	}
}

// TestWarmTokenCostsNothing checks that a request with a warm token signs and
// allocates nothing.
func TestWarmTokenCostsNothing(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("SKIPPED: the race detector allocates")
	}
	r := newMinterRig(t, time.Minute)
	id := r.identity()
	r.ask()
	if allocations := testing.AllocsPerRun(100, func() { _, _, _ = r.token(context.Background(), id) }); allocations > 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func TestAudiencesHaveOneUse(t *testing.T) {
	a := declarations{audiences: make(map[string]string)}
	for _, test := range []struct{ audience, use, want string }{
		{"urn:one", usedByForwardToken, ""},
		{"urn:one", usedByForwardToken, ""},
		{"urn:one", "mtls_bearer of realm 'a'", "audience 'urn:one' is used by forward_token and by mtls_bearer of realm 'a', so their tokens could be mistaken for each other; choose another audience"},
		{"urn:two", "mtls_bearer of realm 'a'", ""},
		{"urn:two", "mtls_bearer of realm 'b'", ""},
		{"urn:two", usedByForwardToken, "audience 'urn:two' is used by mtls_bearer of realm 'a' and by forward_token"},
	} {
		if err := a.reserveAudience(test.audience, test.use); test.want == "" && err != nil {
			t.Error(err)
		} else if test.want != "" {
			testtool.WantError(t, err, test.want)
		}
	}
}

// TestAuthorizationIsRemoved_A10 checks that the caller's header of the token's name
// is removed in any spelling, whatever happens to the request.
func TestAuthorizationIsRemoved_A10(t *testing.T) {
	leaf, stranger := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	key := testtool.WriteTemp(t, t.TempDir(), "key.pem", testpki.KeyPEM(t, testpki.MustKey(t, testpki.P256)))
	for _, test := range []struct {
		name, directive, header string
		leaf                    *testpki.Leaf
		status                  int
	}{
		{"optional", `"optional":true,"forward_token":{"audience":"urn:api"}`, "Authorization", nil, 0},
		{"report_only", `"report_only":true,"forward_token":{"audience":"urn:api"}`, "Authorization", stranger, 0},
		{"refused", `"forward_token":{"audience":"urn:api"}`, "Authorization", stranger, http.StatusUnauthorized},
		{"not allowed", `"allow":["b"],"forward_token":{"audience":"urn:api"}`, "Authorization", leaf, http.StatusForbidden},
		{"another header", `"optional":true,"forward_token":{"audience":"urn:api","header":"x-gateway-token"}`, "X-Gateway-Token", nil, 0},
		{"admitted", `"forward_token":{"audience":"urn:api"}`, "Authorization", leaf, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			realm := strings.TrimSuffix(pinnedRealm(leaf, ""), "}") + `,"issuer":{"url":"https://auth.test","signing_key":"` + filepath.ToSlash(key) + `"}}`
			handler := provisionHandlers(t, realm, noClients, test.directive)[0]
			for _, name := range []string{test.header, strings.ToLower(test.header), strings.ReplaceAll(test.header, "-", "_"), strings.ReplaceAll(test.header, "-", ".")} {
				r, _ := newRequest(test.leaf)
				r.Header[name] = []string{"Bearer forged"}
				r.Header["Connection"] = []string{"keep-alive, " + name}
				_, err := serve(r, handler)
				if (err != nil) != (test.status > 0) {
					t.Fatal(err)
				}
				for key, values := range r.Header {
					if strings.Contains(strings.Join(values, ""), "forged") || key == "Connection" && strings.Contains(values[0], name) {
						t.Errorf("%s: %q is left", key, values)
					}
				}
			}
		})
	}
}
