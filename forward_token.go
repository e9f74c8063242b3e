package mtlsauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/authserver"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/problem"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
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
		return fmt.Errorf("lifetime %s is too short or too long; use 1s to %s", d, maxGatewayLifetime)
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
	if err := checkScopes("scopes", f.Scopes); err != nil {
		return err
	}
	if f.Lifetime != 0 {
		if err := checkGatewayLifetime(f.Lifetime); err != nil {
			return err
		}
	}
	return nil
}

// provision returns the minter of a directive's tokens.
func (f *ForwardToken) provision(realm *Realm) (*gatewayMinter, error) {
	audience, err := caddyfileutil.Expand(f.Audience)
	if err != nil {
		return nil, fmt.Errorf("audience '%s': %w", f.Audience, err)
	}
	if err := checkGatewayAudience(realm.app, audience); err != nil {
		return nil, err
	}
	m := &gatewayMinter{
		realm: realm, now: realm.app.Now, header: f.header(),
		audience: audience, scopes: f.Scopes,
		lifetime: cmp.Or(time.Duration(f.Lifetime), defaultGatewayLifetime),
	}
	realm.app.declared.addCache(realm.name, cacheGatewayTokens, m.warm.Entries)
	if m.header == defaultTokenHeader {
		m.prefix = "Bearer "
	}
	return m, nil
}

// checkGatewayAudience refuses an audience of access tokens, because an API that
// accepts those would accept gateway tokens too.
func checkGatewayAudience(app *App, audience string) error {
	for _, name := range slices.Sorted(maps.Keys(app.Realms)) {
		issuer := app.Realms[name].issuer
		if issuer == nil {
			continue
		}
		taken := ""
		switch {
		case audience == issuer.Config.URL:
			taken = "the issuer"
		case slices.Contains(issuer.Config.Audience, audience):
			taken = "an audience of the issuer"
		case slices.ContainsFunc(issuer.Config.Resources, func(r tokens.Resource) bool { return r.Name == audience }):
			taken = "a resource"
		}
		if taken != "" {
			return fmt.Errorf("audience '%s' is also %s of realm '%s', so its access tokens and gateway tokens could be mistaken for each other; choose another audience", audience, taken, name)
		}
	}
	return app.declared.reserveAudience(audience, usedByForwardToken)
}

// withoutToken refuses a request whose token cannot be issued. With report_only, the
// request goes on without an identity.
func (h *Handler) withoutToken(state *requestState, w http.ResponseWriter, r *http.Request, id identity, failure *tokens.Error) error {
	h.realm.metrics.Certificates.Count("")
	h.realm.metrics.CountTokenError(failure.Code)
	state.refused = tokenFailure(failure)
	line := reporter.Refused{Directive: directiveAuth, Failed: true, Refusal: state.refused, ClientID: id.registeredID()}
	if h.ReportOnly {
		line.ReportOnly = true
		line.Message = "request passed on without identity: gateway token unavailable"
		logRefusal(h.realm, r, line)
		return nil
	}
	refused := caddyhttp.Error(http.StatusServiceUnavailable, problem.Word(tokens.CodeTemporarilyUnavailable))
	line.Message, line.ErrorID = "request refused: gateway token unavailable", refused.ID
	logRefusal(h.realm, r, line)
	w.Header().Set("Cache-Control", "no-store")
	maps.Copy(w.Header(), failure.Header) // Retry-After
	return refused
}

// tokenFailure returns a failure of the issuer as a refusal.
func tokenFailure(failure *tokens.Error) *validators.Refusal {
	return &validators.Refusal{Reason: validators.Reason(failure.Code), Detail: failure.Error()}
}

// The bounds on how many tokens a directive keeps warm. It keeps at least two for each
// client.
const (
	minWarmTokens = 1 << 10
	maxWarmTokens = 1 << 16
)

// gatewayMinter issues the gateway tokens of one directive, and keeps each one for
// the next requests with the same certificate.
type gatewayMinter struct {
	realm          *Realm
	now            func() time.Time
	header, prefix string
	audience       string
	scopes         []string
	lifetime       time.Duration

	warm cache.Growing[warmToken]
}

// warmTokens are the tokens that a directive keeps. What they say depends on the client
// alone, so each is good for as long as requests are found to be that client's.
type warmTokens struct{ *cache.Table[warmToken] }

// warmToken is the token of a client with one certificate.
type warmToken struct {
	client     *clients.Client
	thumbprint string
	value      string // of the header
	keyID      string
	// issued, refresh and expires are the times at which the token was issued, is
	// due for renewal, and expires
	issued, refresh, expires time.Time
	refreshing               atomic.Bool
}

// warmFor returns the tokens that are kept, with room for that many clients.
func (m *gatewayMinter) warmFor(clients int) warmTokens {
	size := min(max(minWarmTokens, 2*clients), maxWarmTokens)
	return warmTokens{m.warm.For(size, func(token *warmToken) uint64 { return hashThumbprint(token.thumbprint) })}
}

func hashThumbprint(thumbprint string) uint64 { return maphash.String(cache.Seed, thumbprint) }

// isFor reports whether the token belongs to this client with this certificate.
func (t *warmToken) isFor(client *clients.Client, thumbprint string) bool {
	return t.client == client && t.thumbprint == thumbprint
}

func (t warmTokens) get(client *clients.Client, thumbprint string) *warmToken {
	return t.Find(hashThumbprint(thumbprint), func(token *warmToken) bool { return token.isFor(client, thumbprint) })
}

// put keeps a token, in place of the previous one, or of an expired one if there is
// any.
func (t warmTokens) put(token *warmToken) {
	t.Replace(hashThumbprint(token.thumbprint), token,
		func(old *warmToken) bool { return old.isFor(token.client, token.thumbprint) },
		func(old *warmToken) bool { return !token.issued.Before(old.expires) })
}

// token returns the value of the header for an admitted client. It returns a
// refusal if the certificate expires within a second, and a failure if there is no
// key to sign with.
func (m *gatewayMinter) token(ctx context.Context, id identity) (string, *validators.Refusal, *tokens.Error) {
	client, now := id.Client(), m.now()
	warm := m.warmFor(id.decidedBy.registry.Len())
	token := warm.get(client, id.Thumbprint)
	usable := token != nil && m.usable(token, now)
	// one request renews a token that is due; the others use it meanwhile
	if usable && (now.Before(token.refresh) || !token.refreshing.CompareAndSwap(false, true)) {
		return token.value, nil, nil
	}
	fresh, failure := m.mint(ctx, id)
	switch {
	case failure == nil:
		warm.put(fresh)
		return fresh.value, nil, nil
	case errors.Is(failure, tokens.ErrCertificateExpired):
		return "", &validators.Refusal{Reason: validators.CertificateExpired, Detail: failure.Cause.Error()}, nil
	case usable:
		token.refreshing.Store(false)
		return token.value, nil, nil
	}
	return "", nil, failure
}

// usable reports whether the upstream still accepts the token: it has not expired,
// and its key is still published.
func (m *gatewayMinter) usable(token *warmToken, now time.Time) bool {
	if now.Before(token.issued) || !now.Before(token.expires) {
		return false
	}
	_, published := m.realm.issuer.Keys.PublicKey(token.keyID, "")
	return published
}

// mint signs a token.
func (m *gatewayMinter) mint(ctx context.Context, id identity) (*warmToken, *tokens.Error) {
	client := id.Client()
	grant, failure := authserver.GrantFor(&id.Identity)
	if failure != nil {
		return nil, failure
	}
	grant.Lifetime, grant.Credential = m.lifetime, tokens.Credential{} // nobody introspects it
	if m.scopes != nil {
		grant.Scopes = nil
		for _, scope := range m.scopes {
			if client.HasScope(scope) && !slices.Contains(grant.Scopes, scope) {
				grant.Scopes = append(grant.Scopes, scope)
			}
		}
	}
	minted, failure := id.decidedBy.issuer.MintGateway(ctx, &grant, m.audience)
	if failure != nil {
		return nil, failure
	}
	token := &warmToken{
		client: client, thumbprint: id.Thumbprint,
		value: m.prefix + minted.Token, keyID: minted.KeyID,
		issued: minted.IssuedAt, expires: minted.Expires, refresh: minted.Expires,
	}
	// no renewal if the next token would expire at the same time: with the
	// certificate, or within the same second
	if minted.Expires.Unix() < id.Leaf.NotAfter.Unix() && m.lifetime >= 2*time.Second {
		token.refresh = minted.Expires.Add(-m.lifetime / 3)
	}
	return token, nil
}
