package mtlsauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"hash/maphash"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The reasons for which mtls_bearer refuses a request, besides those of
// tokens.TokenReasons and validators.Reasons.
const (
	// tokenMissing means that the request has no bearer token.
	tokenMissing validators.Reason = "token_missing"
	// authorizationMalformed means that there are several Authorization headers,
	// or that RFC 6750 §2.1 does not allow the one there is.
	authorizationMalformed validators.Reason = "authorization_malformed"
	// tokenCertificate means that the token is bound to a different certificate.
	tokenCertificate validators.Reason = "token_certificate"
	// tokenRevoked means that the token has been revoked.
	tokenRevoked validators.Reason = "token_revoked"
	// tokenClient means that a client of another server has the name of a client
	// of the realm, or one that no client can have.
	tokenClient validators.Reason = "token_client"
)

// bearerReasons returns all reasons of the log line `token refused`.
func bearerReasons() []validators.Reason {
	reasons := []validators.Reason{tokenMissing, authorizationMalformed}
	for _, reason := range tokens.TokenReasons {
		reasons = append(reasons, validators.Reason(reason))
	}
	reasons = append(reasons, tokenCertificate, tokenRevoked, tokenClient)
	for _, reason := range validators.Reasons {
		if reason != validators.ClientNotAllowed { // mtls_bearer has no allow
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

// bearerAnswer is what the caller learns.
type bearerAnswer struct {
	status int
	word   string
}

// bearerOutcome returns what the caller learns of a reason (RFC 6750 §3.1,
// RFC 8705 §3).
func bearerOutcome(reason validators.Reason) bearerAnswer {
	switch reason {
	case tokenMissing:
		return bearerAnswer{http.StatusUnauthorized, string(tokenMissing)}
	case authorizationMalformed:
		return bearerAnswer{http.StatusBadRequest, "invalid_request"}
	case validators.ScopeMissing:
		return bearerAnswer{http.StatusForbidden, "insufficient_scope"}
	case validators.Reason(tokens.TokenKeysUnavailable), validators.ConfigurationEnded:
		return bearerAnswer{http.StatusServiceUnavailable, "temporarily_unavailable"}
	}
	return bearerAnswer{http.StatusUnauthorized, "invalid_token"}
}

// onlyAuthorization keeps Connection and trailers from removing or adding an
// Authorization header.
var onlyAuthorization = headerguard.Only("Authorization")

// bearerToken returns the token of the Authorization header (RFC 6750 §2.1). With
// a different scheme there is no token: the caller may not know that one is
// required.
func bearerToken(values []string) (string, *validators.Refusal) {
	switch len(values) {
	case 0:
		return "", refuse(tokenMissing, "the request has no Authorization header")
	case 1:
	default:
		return "", refuse(authorizationMalformed, "the request has %d Authorization headers", len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", refuse(tokenMissing, "the Authorization scheme is not Bearer")
	}
	token = strings.TrimLeft(token, " ")
	if len(token) > tokens.MaxTokenSize { // before anything looks at it
		return "", refuse(validators.Reason(tokens.TokenMalformed), "the token has %d bytes; at most %d are read", len(token), tokens.MaxTokenSize)
	}
	if !isB64Token(token) {
		return "", refuse(authorizationMalformed, "there is not exactly one token after Bearer")
	}
	return token, nil
}

// isB64Token reports whether a token has the syntax of RFC 6750 §2.1.
func isB64Token(token string) bool {
	token = strings.TrimRight(token, "=")
	for i := range len(token) {
		if !b64TokenCharacters[token[i]] {
			return false
		}
	}
	return token != ""
}

var b64TokenCharacters = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") {
		set[c] = true
	}
	return set
}()

// bearerIdentity is the client that a token was issued to.
type bearerIdentity struct {
	clientID, realm, scope string
	scopes                 []string
	token                  *tokens.VerifiedToken
	leaf                   *x509.Certificate // nil for an unbound token
	// client is the registered client whose scopes the identity is limited to; nil
	// for a client of another server.
	client *clients.Client
}

// value returns the value of a placeholder.
func (b *bearerIdentity) value(name string) string {
	switch name {
	case "client_id":
		return b.clientID
	case "realm":
		return b.realm
	case "scope":
		return b.scope
	case "credential":
		return "token"
	case "thumbprint":
		return b.token.Thumbprint
	}
	if claim, ok := strings.CutPrefix(name, claimPrefix); ok {
		if value := b.token.Claims[claim]; string(value) != "null" {
			return headerguard.EscapeControl(syntax.ClaimText(value))
		}
		return ""
	}
	if b.leaf == nil {
		return ""
	}
	return certificateText(b.leaf, name)
}

const detailNotPresented = "a token is bound to a certificate, but none was presented"

const (
	// minCachedTokens and maxCachedTokens bound how many tokens a directive keeps. It
	// keeps at least two for each client of the realm.
	minCachedTokens = 1 << 12
	maxCachedTokens = 1 << 16
	// maxCachedBytes bounds a cached token together with its certificate.
	maxCachedBytes = 8 << 10
)

// cachedToken is a token that has been verified with a certificate.
type cachedToken struct {
	by       *trustedVerifier
	token    *tokens.VerifiedToken
	identity atomic.Pointer[bearerIdentity]
	// generation is that of the revocation sources when the certificate was last
	// checked.
	generation uint64

	hash uint64
	text string
	leaf []byte // nil without a certificate
}

// identityOf returns the identity of a token of the realm's own. A scope that has been
// taken from the client since the token was issued is no longer part of it.
func (c *cachedToken) identityOf(client *clients.Client) *bearerIdentity {
	known := c.identity.Load()
	if known.client == client {
		return known
	}
	current := *known
	current.client = client
	current.scopes = slices.DeleteFunc(slices.Clone(c.token.Scopes), func(scope string) bool { return !client.HasScope(scope) })
	current.scope = strings.Join(current.scopes, " ")
	c.identity.Store(&current)
	return &current
}

// isFor reports whether the entry is about this token and this certificate.
func (c *cachedToken) isFor(token string, leaf []byte) bool {
	return c.text == token && bytes.Equal(c.leaf, leaf)
}

// bearerTokens verifies the tokens that a directive admits, and keeps those that it has
// verified.
type bearerTokens struct {
	realm     *Realm
	verifiers []*trustedVerifier
	cached    *cache.Growing[cachedToken]
}

// cachedTokens returns the tokens that are kept.
func (t *bearerTokens) cachedTokens() *cache.Table[cachedToken] {
	if t.realm.directory == nil { // only tokens of other servers
		return t.cachedFor(0)
	}
	return t.cachedFor(t.realm.directory.Registry().Len())
}

// cachedFor returns the tokens that are kept, with room for that many clients.
func (t *bearerTokens) cachedFor(clients int) *cache.Table[cachedToken] {
	return t.cached.For(min(max(minCachedTokens, 2*clients), maxCachedTokens), func(c *cachedToken) uint64 { return c.hash })
}

// verifyCached verifies that a token is valid and bound to the first certificate. Of a
// token that has been verified before, only the octets of token and certificate are
// compared, and its expiry and its key are checked again.
func (t *bearerTokens) verifyCached(ctx context.Context, token string, presented []*x509.Certificate, noCertificate *validators.Refusal) (*cachedToken, *validators.Refusal) {
	var raw []byte
	if len(presented) > 0 {
		raw = presented[0].Raw
	}
	if len(token)+len(raw) > maxCachedBytes {
		return t.verify(ctx, token, presented, noCertificate)
	}
	hash, generation := maphash.String(cache.Seed, token)^maphash.Bytes(cache.Seed, raw), t.realm.revocation.generation()
	is := func(c *cachedToken) bool { return c.hash == hash && c.isFor(token, raw) }
	kept := t.cachedTokens()
	if cached := kept.Find(hash, is); cached != nil && cached.generation == generation {
		if err := cached.by.verifier.Recheck(cached.token); err != nil {
			return nil, tokenRefusal(err)
		}
		return cached, nil
	}
	cached, refusal := t.verify(ctx, token, presented, noCertificate)
	if refusal != nil {
		return nil, refusal
	}
	cached.hash, cached.generation = hash, generation
	cached.text, cached.leaf = strings.Clone(token), bytes.Clone(raw)
	now := t.realm.app.Now()
	kept.Replace(hash, cached, is, func(old *cachedToken) bool { return !now.Before(old.token.Expires) })
	return cached, nil
}

// verify verifies a token that is not cached.
func (t *bearerTokens) verify(ctx context.Context, token string, presented []*x509.Certificate, noCertificate *validators.Refusal) (*cachedToken, *validators.Refusal) {
	by, verified, refusal := t.verifyByAny(ctx, token, presented)
	switch {
	case refusal != nil && refusal.Reason == validators.CertificateMissing && noCertificate != nil:
		return nil, noCertificate
	case refusal != nil:
		return nil, refusal
	}
	var leaf *x509.Certificate // nil if it proves nothing about an unbound token
	if verified.Thumbprint != "" {
		if len(presented) > 0 {
			leaf = presented[0]
		}
		if refusal := t.checkBound(verified, leaf, noCertificate); refusal != nil {
			return nil, refusal
		}
	}
	identity := &bearerIdentity{
		clientID: by.prefix + verified.ClientID, scopes: verified.Scopes, scope: strings.Join(verified.Scopes, " "), token: verified, leaf: leaf,
	}
	if by.own {
		identity.realm = t.realm.name
	} else if err := checkForeignID(identity.clientID); err != nil {
		return nil, refuse(tokenClient, "client %.80q of issuer %s: %v", verified.ClientID, by.issuer, err)
	}
	cached := &cachedToken{by: by, token: verified}
	cached.identity.Store(identity)
	return cached, nil
}

// checkBound checks that the token is bound to the certificate (RFC 8705 §3), and
// that the deny file does not list the certificate.
func (t *bearerTokens) checkBound(token *tokens.VerifiedToken, leaf *x509.Certificate, noCertificate *validators.Refusal) *validators.Refusal {
	switch {
	case noCertificate != nil:
		return noCertificate
	case leaf == nil:
		return refuse(validators.CertificateMissing, detailNotPresented)
	}
	if sum := sha256.Sum256(leaf.Raw); validators.X5tS256(sum) != token.Thumbprint {
		bound, _ := validators.ParseThumbprint(token.Thumbprint) // the verifier has checked its form
		return refuse(tokenCertificate, "the token of client %q is bound to certificate %s, but certificate %x was presented", token.ClientID, bound, sum)
	}
	if t.realm.revocation != nil {
		return t.realm.revocation.checker.CheckDenied(leaf)
	}
	return nil
}

// verifyByAny verifies a token with the keys of its issuer. If the token does not say
// at little cost which one that is, it tries the keys of all, and the refusal is that
// of the issuer whose verifier came furthest.
func (t *bearerTokens) verifyByAny(ctx context.Context, token string, presented []*x509.Certificate) (by *trustedVerifier, verified *tokens.VerifiedToken, refusal *validators.Refusal) {
	read, err := tokens.ReadToken(token)
	if err != nil {
		return nil, nil, tokenRefusal(err)
	}
	candidates := t.verifiers
	if len(candidates) > 1 {
		if name := read.ClaimedIssuer(); name != "" {
			i := slices.IndexFunc(candidates, func(v *trustedVerifier) bool { return v.issuer == name })
			if i < 0 {
				return nil, nil, refuse(validators.Reason(tokens.TokenIssuer), "issuer %.200q is not trusted", name)
			}
			candidates = candidates[i : i+1]
		}
	}
	furthest := -1
	for _, by := range candidates {
		verified, failure := t.verifyBy(ctx, by, read, presented)
		if failure == nil {
			return by, verified, nil
		}
		reason := tokens.TokenReason(failure.Reason)
		if reason == tokens.TokenMalformed {
			return nil, nil, failure // its header is not malformed, so this issuer signed it
		}
		if !slices.Contains(tokens.TokenReasons, reason) { // its certificate, instead of its signature
			reason = tokens.TokenSignature
		}
		// the reasons are in the order of the checks
		if step := slices.Index(tokens.TokenReasons, reason); step > furthest {
			furthest, refusal = step, failure
		}
	}
	return nil, nil, refusal
}

// verifyBy verifies a token with the keys of one issuer. It looks at the certificate
// before the signature if the issuer is the realm's: a refusal is remembered, and a
// signature can cost milliseconds.
func (t *bearerTokens) verifyBy(ctx context.Context, by *trustedVerifier, token *tokens.ReadableToken, presented []*x509.Certificate) (*tokens.VerifiedToken, *validators.Refusal) {
	if by.own && by.verifier.CheckHeader(token) == nil {
		_, refusal := t.realm.authenticate(ctx, presented, "")
		if refusal != nil && refusal.Reason != validators.CertificateAmbiguous { // the token names the client
			return nil, unlessStolen(token, presented, refusal)
		}
	}
	verified, err := by.verifier.VerifyRead(token)
	if err != nil {
		return nil, tokenRefusal(err)
	}
	return verified, nil
}

// unlessStolen returns the refusal of certificates, or a better one if the token says
// that it is bound to another one. Nothing proves what it says.
func unlessStolen(token *tokens.ReadableToken, presented []*x509.Certificate, refusal *validators.Refusal) *validators.Refusal {
	bound, err := validators.ParseThumbprint(token.ClaimedThumbprint())
	if err != nil || len(presented) == 0 {
		return refusal
	}
	sum := sha256.Sum256(presented[0].Raw)
	if bound == validators.Thumbprint(sum[:]) {
		return refusal
	}
	return refuse(tokenCertificate, "the token says that it is bound to certificate %s, but certificate %x was presented: %s", bound, sum, refusal.Detail)
}

func tokenRefusal(err error) *validators.Refusal {
	var refused *tokens.TokenError
	if !errors.As(err, &refused) {
		return refuse(validators.Reason(tokens.TokenMalformed), "%.200q", err.Error())
	}
	return &validators.Refusal{Reason: validators.Reason(refused.Reason), Detail: refused.Detail}
}
