package mtlsauth

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The bounds on how many tokens a directive keeps warm. It keeps two for each
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

	warm atomic.Pointer[warmTokens]
}

// warmTokens are the tokens that were issued under one snapshot of the realm. They
// are dropped with it.
type warmTokens struct {
	decidedBy *snapshot
	cache.Table[warmToken]
}

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

func newWarmTokens(decidedBy *snapshot) *warmTokens {
	size := min(max(minWarmTokens, 2*decidedBy.registry.Len()), maxWarmTokens)
	return &warmTokens{decidedBy: decidedBy, Table: cache.New[warmToken](size)}
}

func hashThumbprint(thumbprint string) uint64 { return maphash.String(cache.Seed, thumbprint) }

// isFor reports whether the token belongs to this client with this certificate.
func (t *warmToken) isFor(client *clients.Client, thumbprint string) bool {
	return t.client == client && t.thumbprint == thumbprint
}

func (t *warmTokens) get(client *clients.Client, thumbprint string) *warmToken {
	return t.Find(hashThumbprint(thumbprint), func(token *warmToken) bool { return token.isFor(client, thumbprint) })
}

// put keeps a token, in place of the previous one, or of an expired one if there is
// any.
func (t *warmTokens) put(token *warmToken) {
	t.Replace(hashThumbprint(token.thumbprint), token, func(old *warmToken) bool {
		return old.isFor(token.client, token.thumbprint) || !token.issued.Before(old.expires)
	})
}

// token returns the value of the header for an admitted client. It returns a
// refusal if the certificate expires within a second, and a failure if there is no
// key to sign with.
func (m *gatewayMinter) token(ctx context.Context, id identity) (string, *validators.Refusal, *tokens.Error) {
	client, now := id.Client(), m.now()
	warm := m.warmFor(id.decidedBy)
	var token *warmToken
	if warm != nil {
		token = warm.get(client, id.Thumbprint)
	}
	usable := token != nil && m.usable(token, now)
	// one request renews a token that is due; the others use it meanwhile
	if usable && (now.Before(token.refresh) || !token.refreshing.CompareAndSwap(false, true)) {
		return token.value, nil, nil
	}
	fresh, failure := m.mint(ctx, id)
	switch {
	case failure == nil:
		if warm != nil {
			warm.put(fresh)
		}
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
	_, published := m.realm.issuer.keys.PublicKey(token.keyID, "")
	return published
}

// warmFor returns the tokens of the snapshot that a request was decided by, or nil
// if the realm no longer decides by it.
func (m *gatewayMinter) warmFor(decidedBy *snapshot) *warmTokens {
	warm := m.warm.Load()
	if warm != nil && warm.decidedBy == decidedBy {
		return warm
	}
	if m.realm.current.Load() != decidedBy {
		return nil
	}
	next := newWarmTokens(decidedBy)
	if m.warm.CompareAndSwap(warm, next) {
		return next
	}
	return nil
}

// mint signs a token.
func (m *gatewayMinter) mint(ctx context.Context, id identity) (*warmToken, *tokens.Error) {
	client := id.Client()
	grant := id.decidedBy.grants[client]
	grant.Thumbprint, grant.NotAfter, grant.Lifetime = id.Thumbprint, id.Leaf.NotAfter, m.lifetime
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
