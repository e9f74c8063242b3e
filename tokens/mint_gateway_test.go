package tokens

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

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
