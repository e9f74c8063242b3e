package mtlsauth

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	defaultTokenHeader     = "Authorization"
	defaultGatewayLifetime = time.Minute
	maxGatewayLifetime     = 5 * time.Minute
)

// ForwardToken gives the upstream a signed identity that it can verify: a JWT with
// `typ` `gateway+jwt`, signed with the keys of the realm's issuer. Its claims are
// `iss`, `sub` and `client_id`, `aud`, `scope`, `iat`, `exp` (never later than the
// certificate's end), `jti`, the client's claims, and in `client_cert_x5t#S256`
// the thumbprint of the certificate (SHA-256, base64url), for audit. It is not an
// access token, and it is not bound to anything.
//
// The requests that a client makes with one certificate share a token until a
// third of its lifetime is left, so its `jti` does not identify a request. If a
// token cannot be issued, the request is refused with 503.
type ForwardToken struct {
	// The request header that carries the token. In `Authorization` the token
	// follows `Bearer `; any other header has the token alone. The caller's value
	// of this header is removed. Default: `Authorization`.
	Header string `json:"header,omitempty"`

	// The audience of the token (`aud`). Required. No issuer, resource or
	// `mtls_bearer` of any realm may use the same one.
	Audience string `json:"audience"`

	// The scopes that the token may have. It gets those of them that the client is
	// registered for. Default: all scopes that the client is registered for.
	Scopes []string `json:"scopes,omitempty"`

	// The lifetime of the token, from `1s` to `5m`. Default: `60s`.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`
}

// header is the canonical name of the header.
func (f *ForwardToken) header() string {
	return textproto.CanonicalMIMEHeaderKey(cmp.Or(f.Header, defaultTokenHeader))
}

func checkGatewayLifetime(d caddy.Duration) error {
	if d := time.Duration(d); d < time.Second || d > maxGatewayLifetime {
		return fmt.Errorf("it is %s; use 1s to %s", d, maxGatewayLifetime)
	}
	return nil
}

// check returns what is wrong with the configuration, as far as its text shows.
func (f *ForwardToken) check() error {
	if f.Header != "" {
		if err := headerguard.CheckName(f.Header); err != nil {
			return err
		}
	}
	if f.Audience == "" {
		return errors.New("it has no audience; add one that nothing else uses")
	}
	if f.Scopes != nil && len(f.Scopes) == 0 {
		return errors.New("scopes is an empty list; name a scope or leave it out")
	}
	for _, scope := range f.Scopes {
		if err := syntax.CheckScope(scope); err != nil {
			return err
		}
	}
	if f.Lifetime != 0 {
		if err := checkGatewayLifetime(f.Lifetime); err != nil {
			return fmt.Errorf("lifetime '%s': %w", time.Duration(f.Lifetime), err)
		}
	}
	return nil
}

// provision returns the minter of a directive's tokens.
func (f *ForwardToken) provision(app *App, realm *Realm) (*gatewayMinter, error) {
	if realm.issuer == nil {
		return nil, fmt.Errorf("realm '%s' has no issuer to sign it; add 'issuer <https-url>' to the realm", realm.name)
	}
	if f.Audience == "" { // Validate runs only later
		return nil, f.check()
	}
	audience, err := expand(f.Audience)
	if err != nil {
		return nil, fmt.Errorf("audience '%s': %w", f.Audience, err)
	}
	if err := app.checkGatewayAudience(audience); err != nil {
		return nil, err
	}
	m := &gatewayMinter{
		realm: realm, now: app.Now, header: f.header(),
		audience: audience, scopes: f.Scopes,
		lifetime: cmp.Or(time.Duration(f.Lifetime), defaultGatewayLifetime),
	}
	if m.header == defaultTokenHeader {
		m.prefix = "Bearer "
	}
	return m, nil
}

// checkGatewayAudience refuses an audience of access tokens, because an API that
// accepts those would accept gateway tokens too.
func (a *App) checkGatewayAudience(audience string) error {
	for _, name := range slices.Sorted(maps.Keys(a.Realms)) {
		issuer := a.Realms[name].issuer
		if issuer == nil {
			continue
		}
		taken := ""
		switch {
		case audience == issuer.url:
			taken = "the issuer"
		case slices.Contains(issuer.config.Audience, audience):
			taken = "an audience of the issuer"
		case slices.ContainsFunc(issuer.config.Resources, func(r tokens.Resource) bool { return r.Name == audience }):
			taken = "a resource"
		}
		if taken != "" {
			return fmt.Errorf("audience '%s' is also %s of realm '%s', so its access tokens and gateway tokens could be mistaken for each other; choose another audience", audience, taken, name)
		}
	}
	return a.declared.reserveAudience(audience, usedByForwardToken)
}

// withoutToken ends a request whose token cannot be issued. With report_only, the
// request is passed on without an identity.
func (h *Handler) withoutToken(state *requestState, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, id identity, failure *tokens.Error) error {
	h.realm.metrics.Certificates.Count("")
	h.realm.metrics.CountTokenError(failure.Code)
	state.reason = validators.Reason(failure.Code)
	line := refusedRequest{failed: true, refusal: tokenFailure(failure), clientID: id.clientID()}
	if h.ReportOnly {
		line.message = "request passed on without identity: gateway token unavailable"
		logRefusal(h.realm, r, line)
		return h.pass(w, r, next)
	}
	refused := caddyhttp.Error(http.StatusServiceUnavailable, errors.New(tokens.CodeTemporarilyUnavailable))
	line.message, line.errorID = "request refused: gateway token unavailable", refused.ID
	logRefusal(h.realm, r, line)
	w.Header().Set("Cache-Control", "no-store")
	maps.Copy(w.Header(), failure.Header) // Retry-After
	return refused
}

// tokenFailure returns a failure of the issuer as a refusal.
func tokenFailure(failure *tokens.Error) *validators.Refusal {
	return &validators.Refusal{Reason: validators.Reason(failure.Code), Detail: failure.Error()}
}
