package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// claims are those of an access token (RFC 9068 §2.2) that APIs need.
type claims struct {
	ClientID     string `json:"client_id"`
	Scope        string `json:"scope"`
	Confirmation struct {
		Thumbprint string `json:"x5t#S256"` // of the certificate that the token is bound to
	} `json:"cnf"`
}

// verifier verifies the tokens of one issuer.
type verifier struct {
	tokens *oidc.IDTokenVerifier
	// check is what is checked besides the token, if it is not nil.
	check func(*http.Request, *claims) error
}

func newVerifier(issuer, audience, tokenType string) (*verifier, error) {
	keys := &keySet{client: &http.Client{Timeout: 10 * time.Second}, tokenType: tokenType}
	provider, err := oidc.NewProvider(oidc.ClientContext(context.Background(), keys.client), issuer)
	if err == nil {
		err = errors.Join(provider.Claims(keys), keys.read())
	}
	if err != nil {
		return nil, fmt.Errorf("issuer '%s': %.300q; check that it runs and has this URL", issuer, err)
	}
	go keys.readRegularly()
	config := &oidc.Config{ClientID: audience} // go-oidc's name for the audience
	for _, algorithm := range algorithms {
		config.SupportedSigningAlgs = append(config.SupportedSigningAlgs, string(algorithm))
	}
	return &verifier{tokens: oidc.NewVerifier(issuer, keys, config)}, nil
}

// require calls next for requests with a token that has the scope.
func (v *verifier) require(scope string, next func(http.ResponseWriter, *http.Request, *claims)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := v.verify(r)
		switch {
		case errors.Is(err, errNoToken):
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case err != nil:
			log.Printf("token refused: %.300q", err)
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "the token is not valid", http.StatusUnauthorized)
		case scope != "" && !slices.Contains(strings.Fields(c.Scope), scope):
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer error=%q, scope=%q", "insufficient_scope", scope))
			http.Error(w, "the token lacks the scope "+scope, http.StatusForbidden)
		default:
			next(w, r, c)
		}
	}
}

var errNoToken = errors.New("a token is required")

// verify returns the claims of the request's token.
func (v *verifier) verify(r *http.Request) (*claims, error) {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, errNoToken
	}
	token, err := v.tokens.Verify(r.Context(), text)
	if err != nil {
		return nil, err
	}
	c := new(claims)
	if err := token.Claims(c); err != nil || v.check == nil {
		return c, err
	}
	return c, v.check(r, c)
}
