package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

func TestMintedClaims_R31(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{URL: testURL + "/tenant1/", Audience: []string{"api"}})
	g := newGrant("api1", "telemetry")
	var err error
	if g.Claims, err = PrepareClaims(map[string]any{"tenant": "acme", "level": 3}); err != nil {
		t.Fatal(err)
	}
	token := mustMint(t, issuer, g, newRequest(""))
	if token.TokenType != "Bearer" || token.ExpiresIn != 3599 || token.Scope != "api1 telemetry" {
		t.Errorf("response is %+v", token)
	}
	header, claims := verify(t, issuer, token.AccessToken)
	kid := issuer.keys.Current().Signing().ID
	if want := map[string]any{"typ": "at+jwt", "alg": "ES256", "kid": kid}; fmt.Sprint(header) != fmt.Sprint(want) {
		t.Errorf("header is %v, want %v", header, want)
	}
	want := map[string]any{
		"iss":       testURL + "/tenant1/",
		"sub":       "mtls.client",
		"client_id": "mtls.client",
		"aud":       "api",
		"iat":       float64(testenv.Now.Unix()),
		"exp":       float64(testenv.Now.Unix() + 3600),
		"jti":       token.ID,
		"scope":     "api1 telemetry",
		"cnf":       map[string]any{"x5t#S256": g.Thumbprint},
		"tenant":    "acme",
		"level":     3.0,
	}
	if fmt.Sprint(claims) != fmt.Sprint(want) {
		t.Errorf("claims are %v, want %v", claims, want)
	}
}

func TestEveryAlgorithmSigns_R30(t *testing.T) {
	for _, alg := range keyring.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			issuer, err := NewIssuer(IssuerConfig{URL: testURL, Now: testenv.NewClock().Now}, fixedKeys(mustKey(t, alg)))
			if err != nil {
				t.Fatal(err)
			}
			header, _ := verify(t, issuer, mustMint(t, issuer, newGrant("api1"), newRequest("")).AccessToken)
			if header["alg"] != string(alg) || header["typ"] != "at+jwt" {
				t.Errorf("header is %v", header)
			}
		})
	}
}

func TestConfirmation_R12_R22(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	leaf := testpki.MustSelfSigned(t)
	g := newGrant("api1")
	g.Thumbprint = validators.X5tS256(sha256.Sum256(leaf.Cert.Raw))
	_, claims := verify(t, issuer, mustMint(t, issuer, g, newRequest("")).AccessToken)
	want := map[string]any{"x5t#S256": g.Thumbprint}
	if fmt.Sprint(claims["cnf"]) != fmt.Sprint(want) {
		t.Errorf("cnf is %v, want %v", claims["cnf"], want)
	}
}

func TestNoTokenWithoutConfirmation(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	for _, thumbprint := range []string{"", "A", strings.Repeat("A", 44), strings.Repeat("a", 40)} {
		g := newGrant("api1")
		g.Thumbprint = thumbprint
		if _, err := issuer.Mint(t.Context(), g, newRequest("")); err == nil || err.Code != CodeServerError || err.Status != http.StatusInternalServerError {
			t.Errorf("%q: error is %+v", thumbprint, err)
		}
	}
}

func TestAudienceIsAStringOrAnArray(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{Resources: apis})
	g := newGrant("orders.read", "billing")
	_, one := verify(t, issuer, mustMint(t, issuer, g, newRequest("", orders)).AccessToken)
	if one["aud"] != orders {
		t.Errorf("aud is %v", one["aud"])
	}
	_, two := verify(t, issuer, mustMint(t, issuer, g, newRequest("", orders, billing)).AccessToken)
	if aud, ok := two["aud"].([]any); !ok || !slices.Equal(aud, []any{orders, billing}) {
		t.Errorf("aud is %v", two["aud"])
	}
}

func TestTokenNeverOutlivesTheCertificate_C6(t *testing.T) {
	for name, tc := range map[string]struct {
		lifetime, ofClient time.Duration
		left               time.Duration // of the certificate
		want               int64         // seconds; 0 for none
	}{
		"default":                    {0, 0, 24 * time.Hour, 3600},
		"issuer's":                   {10 * time.Minute, 0, 24 * time.Hour, 600},
		"client's, shorter":          {0, time.Minute, 24 * time.Hour, 60},
		"client's, longer":           {0, 2 * time.Hour, 24 * time.Hour, 7200},
		"client's, below a second":   {0, time.Millisecond, 24 * time.Hour, 1},
		"certificate ends first":     {0, 0, 90 * time.Second, 90},
		"certificate ends with it":   {0, 0, time.Hour, 3600},
		"fractions are cut off":      {0, 0, 90*time.Second + 999*time.Millisecond, 90},
		"fraction of a lifetime":     {1500 * time.Millisecond, 0, time.Hour, 1},
		"a second left":              {0, 0, time.Second, 1},
		"less than a second left":    {0, 0, 999 * time.Millisecond, 0},
		"the certificate ends now":   {0, 0, 0, 0},
		"the certificate has ended":  {0, 0, -time.Second, 0},
		"it has ended long ago":      {0, 0, -100 * 365 * 24 * time.Hour, 0},
		"no end that is worth a try": {0, 0, 250 * 365 * 24 * time.Hour, 3600},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := newTestIssuer(t, IssuerConfig{Lifetime: tc.lifetime})
			g := newGrant("api1")
			g.Lifetime = tc.ofClient
			g.NotAfter = testenv.Now.Truncate(time.Second).Add(tc.left)
			token, err := issuer.Mint(t.Context(), g, newRequest(""))
			if tc.want == 0 {
				if err == nil || !errors.Is(err, ErrCertificateExpired) || err.Code != CodeInvalidClient || err.Status != http.StatusBadRequest {
					t.Fatalf("error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, claims := verify(t, issuer, token.AccessToken)
			exp, iat := int64(claims["exp"].(float64)), int64(claims["iat"].(float64))
			// the clock is just past a whole second
			if token.ExpiresIn != tc.want-1 || exp-iat != tc.want || iat != testenv.Now.Unix() {
				t.Errorf("expires_in %d, exp-iat %d, want %d", token.ExpiresIn, exp-iat, tc.want)
			}
			if time.Unix(exp, 0).After(g.NotAfter) {
				t.Error("the token outlives the certificate")
			}
		})
	}
	g := newGrant("api1")
	g.NotAfter = time.Time{}
	if _, err := newTestIssuer(t, IssuerConfig{}).Mint(t.Context(), g, newRequest("")); err == nil || !errors.Is(err, ErrCertificateExpired) {
		t.Errorf("no end given: error is %v", err)
	}
}

// TestExpiresInIsKept checks that a token lasts as long as the response says,
// whatever the fraction of the second in which it was issued.
func TestExpiresInIsKept(t *testing.T) {
	for _, fraction := range []time.Duration{0, time.Nanosecond, time.Millisecond, 500 * time.Millisecond, time.Second - time.Nanosecond} {
		for _, left := range []time.Duration{time.Hour, 10 * time.Second, 9*time.Second + 500*time.Millisecond, 9 * time.Second} {
			clock := testenv.NewClock()
			clock.Advance(testenv.Now.Truncate(time.Second).Sub(testenv.Now) + fraction)
			issuer := newTestIssuer(t, IssuerConfig{Lifetime: 10 * time.Second, Now: clock.Now})
			g := newGrant("api1")
			g.NotAfter = clock.Now().Truncate(time.Second).Add(left)
			token := mustMint(t, issuer, g, newRequest(""))
			claims, err := issuer.verifier.Verify(token.AccessToken)
			if err != nil {
				t.Fatal(err)
			}
			promised, lasts := time.Duration(token.ExpiresIn)*time.Second, claims.Expires.Sub(clock.Now())
			if promised > lasts || lasts-promised >= time.Second || claims.Expires.After(g.NotAfter) || claims.IssuedAt.After(clock.Now()) {
				t.Errorf("%v into the second, with %v left: expires_in is %v, the token lasts %v", fraction, left, promised, lasts)
			}
			clock.Advance(promised - time.Nanosecond)
			if err := issuer.verifier.Recheck(claims); err != nil {
				t.Errorf("%v into the second: refused within %v: %v", fraction, promised, err)
			}
		}
	}
}

func TestTokenIDsAreRandom(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	seen := make(map[string]bool)
	for range 100 {
		id := mustMint(t, issuer, newGrant(), newRequest("")).ID
		raw, err := base64.RawURLEncoding.DecodeString(id)
		if err != nil || len(raw)*8 < 128 || seen[id] {
			t.Fatalf("jti %q: %v", id, err)
		}
		seen[id] = true
	}
}

func TestNoRefreshToken_R29(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	body, err := json.Marshal(mustMint(t, issuer, newGrant("api1"), newRequest("api1")))
	if err != nil {
		t.Fatal(err)
	}
	var response map[string]any
	if err := json.Unmarshal(body, &response); err != nil {
		t.Fatal(err)
	}
	if len(response) != 4 || response["scope"] != "api1" || response["token_type"] != "Bearer" || response["expires_in"] != 3599.0 {
		t.Errorf("response is %s", body)
	}
}

func TestMintChecksTheGrantType(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	for grant, code := range map[string]string{"password": CodeUnsupportedGrantType, "": CodeInvalidRequest} {
		if _, err := issuer.Mint(t.Context(), newGrant("api1"), TokenRequest{GrantType: grant}); err == nil || err.Code != code {
			t.Errorf("%q: error is %v", grant, err)
		}
	}
}

// TestRequestsDoNotChooseClaims_A10 sends every claim name as a parameter.
// Only scope and resource reach the token, and only as far as they are
// granted.
func TestRequestsDoNotChooseClaims_A10(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	var body strings.Builder
	body.WriteString(minimal)
	for _, name := range reservedClaims {
		if name != "client_id" && name != "scope" {
			body.WriteString("&" + name + "=forged")
		}
	}
	body.WriteString("&audience=forged&tenant=forged")
	req, err := ParseTokenRequest(post(body.String()))
	if err != nil {
		t.Fatal(err)
	}
	g := newGrant("api1")
	req.ClientID = "forged" // only the authenticated client counts
	_, claims := verify(t, issuer, mustMint(t, issuer, g, req).AccessToken)
	if strings.Contains(fmt.Sprint(claims), "forged") {
		t.Errorf("claims are %v", claims)
	}
}

func TestClientNamesAreEncoded(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	g := newGrant("api1")
	g.ClientID = `a","sub":"admin<&>` + "\u2028"
	_, claims := verify(t, issuer, mustMint(t, issuer, g, newRequest("")).AccessToken)
	if claims["sub"] != g.ClientID || claims["client_id"] != g.ClientID {
		t.Errorf("claims are %v", claims)
	}
}

func TestMintNeedsNoLivingContextOnceThereIsAKey(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := issuer.Mint(ctx, newGrant("api1"), newRequest("")); err != nil {
		t.Error(err)
	}
}

func newGatewayGrant(scopes ...string) *Grant {
	g := newGrant(scopes...)
	g.Lifetime = time.Minute
	return g
}

func TestMintGateway(t *testing.T) {
	for _, alg := range keyring.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			issuer, err := NewIssuer(IssuerConfig{URL: testURL, Lifetime: time.Hour, Now: testenv.NewClock().Now}, fixedKeys(mustKey(t, alg)))
			if err != nil {
				t.Fatal(err)
			}
			g := newGatewayGrant("read", "write")
			g.DefaultScopes = []string{"read"} // for token requests only
			if g.Claims, err = PrepareClaims(map[string]any{"tenant": "acme"}); err != nil {
				t.Fatal(err)
			}
			token, failure := issuer.MintGateway(t.Context(), g, "urn:api")
			if failure != nil {
				t.Fatal(failure)
			}
			header, claims := verify(t, issuer, token.Token)
			if want := map[string]any{"typ": "gateway+jwt", "alg": string(alg), "kid": token.KeyID}; fmt.Sprint(header) != fmt.Sprint(want) {
				t.Errorf("header is %v, want %v", header, want)
			}
			id, _ := claims["jti"].(string)
			want := map[string]any{
				"iss": testURL, "sub": "mtls.client", "client_id": "mtls.client", "aud": "urn:api",
				"iat": float64(testenv.Now.Unix()), "exp": float64(testenv.Now.Unix() + 60), "jti": id,
				"scope": "read write", "tenant": "acme", "client_cert_x5t#S256": g.Thumbprint,
			}
			if fmt.Sprint(claims) != fmt.Sprint(want) || len(id) != 22 {
				t.Errorf("claims are %v, want %v", claims, want)
			}
			if token.IssuedAt.Unix() != testenv.Now.Unix() || token.Expires.Unix() != testenv.Now.Unix()+60 {
				t.Errorf("issued at %v, ends at %v", token.IssuedAt, token.Expires)
			}
			// an access token of the same key has another type
			if header, _ := verify(t, issuer, mustMint(t, issuer, g, newRequest("")).AccessToken); header["typ"] != "at+jwt" {
				t.Errorf("an access token has typ %v", header["typ"])
			}
		})
	}
}

func TestMintGatewayBounds(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	g := newGatewayGrant()
	g.NotAfter = testenv.Now.Add(9 * time.Second)
	token, failure := issuer.MintGateway(t.Context(), g, "urn:api")
	if failure != nil {
		t.Fatal(failure)
	}
	if _, claims := verify(t, issuer, token.Token); claims["exp"] != float64(g.NotAfter.Unix()) || claims["scope"] != nil {
		t.Errorf("of a certificate that ends in 9 s, without scopes: %v", claims)
	}
	for name, test := range map[string]struct {
		change   func(*Grant)
		audience string
		code     string
		cause    error
	}{
		"certificate at its end": {func(g *Grant) { g.NotAfter = testenv.Now }, "urn:api", CodeInvalidClient, ErrCertificateExpired},
		"no thumbprint":          {func(g *Grant) { g.Thumbprint = "" }, "urn:api", CodeServerError, nil},
		"no audience":            {func(*Grant) {}, "", CodeServerError, nil},
		"no lifetime":            {func(g *Grant) { g.Lifetime = 0 }, "urn:api", CodeServerError, nil},
	} {
		g := newGatewayGrant()
		test.change(g)
		_, failure := issuer.MintGateway(t.Context(), g, test.audience)
		if failure == nil || failure.Code != test.code || test.cause != nil && !errors.Is(failure, test.cause) {
			t.Errorf("%s: %v", name, failure)
		}
	}
}

// TestMintGatewayWithoutKeys checks that without a key there is no token, and
// no substitute.
func TestMintGatewayWithoutKeys(t *testing.T) {
	storage := newStorage(t)
	storage.OnList = func(context.Context, string) error { return errors.New("down") }
	keys := managedKeys(t, storage, testenv.NewClock())
	issuer, err := NewIssuer(IssuerConfig{URL: testURL, Now: testenv.NewClock().Now}, keys)
	if err != nil {
		t.Fatal(err)
	}
	token, failure := issuer.MintGateway(context.Background(), newGatewayGrant(), "urn:api")
	if token != nil || failure == nil || failure.Code != CodeTemporarilyUnavailable || failure.Header.Get("Retry-After") == "" {
		t.Errorf("%v %v", token, failure)
	}
}
