package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// The reasons why a token that verifies is inactive, or is not revoked. Each
// is a [*TokenError].
var (
	errTokenRevoked    error = &TokenError{"token_revoked", "it was revoked"}
	errTokenOfOther    error = &TokenError{"token_of_other", "it is neither the caller's nor for an API that the caller is"}
	errTokenClientGone error = &TokenError{"token_client_gone", "its client is not registered any more, or disabled"}
	errCredentialGone  error = &TokenError{"token_credential_gone", "its client no longer has the credential that it got it with"}
	errTokenDenied     error = &TokenError{"certificate_revoked", "the deny file lists the certificate that it is bound to"}
)

// Introspector is an authenticated client that asks about a token.
type Introspector struct {
	// ClientID is the client. It sees its own tokens.
	ClientID string
	// Resources are the APIs that the client is. It sees the tokens that have
	// one of them in `aud`.
	Resources []string
}

// Introspection is the answer to an introspection request (RFC 7662 §2.2).
type Introspection struct {
	// Token is the token, nil if it is inactive.
	Token *VerifiedToken
	// Cause is why it is inactive, a [*TokenError] for the log; it is not part
	// of the answer.
	Cause error
}

// Introspect returns what a client may know about a token. A token is active
// if this issuer issued it and it is valid, it belongs to the caller or to an
// API that the caller is, its client is registered and has the credential that it got
// the token with, its certificate is not denied, and it has not been revoked. A scope that has been taken from its client is left
// out. The caller learns nothing about any other token (RFC 7662 §2.2,
// §4).
//
// The error is temporarily_unavailable while there are no keys, or while the
// list of revoked tokens has not been read; ctx bounds how long keys are
// waited for.
func (i *Issuer) Introspect(ctx context.Context, caller Introspector, token string) (Introspection, *Error) {
	if _, err := i.keys.Ensure(ctx); err != nil {
		return Introspection{}, unavailable(err)
	}
	if !i.config.RevokedTokens.Known() {
		return Introspection{}, revokedUnavailable(errors.New("the list has not been read yet"))
	}
	verified, err := i.verifier.Verify(token)
	switch {
	case err != nil:
		return Introspection{Cause: err}, nil //nolint:nilerr // such a token is inactive, which is not an error (RFC 7662 §2.2)
	case !caller.maySee(verified):
		return Introspection{Cause: errTokenOfOther}, nil
	case !i.clients.Registered(verified.ClientID):
		return Introspection{Cause: errTokenClientGone}, nil
	case !i.hasCredential(verified):
		return Introspection{Cause: errCredentialGone}, nil
	case i.config.RevokedTokens.Revoked(verified.ClientID, verified.ID, verified.IssuedAt):
		return Introspection{Cause: errTokenRevoked}, nil
	case i.config.Denied != nil && i.config.Denied(verified.Thumbprint):
		return Introspection{Cause: errTokenDenied}, nil
	}
	verified.Scopes = slices.DeleteFunc(verified.Scopes, func(scope string) bool { return !i.clients.HasScope(verified.ClientID, scope) })
	return Introspection{Token: verified}, nil
}

// hasCredential reports whether the client of a token has the credential that it got
// the token with, as far as the token says.
func (i *Issuer) hasCredential(token *VerifiedToken) bool {
	is, tagged := credentialOf(token)
	return !tagged || i.clients.HasCredential(token.ClientID, is)
}

func (c Introspector) maySee(token *VerifiedToken) bool {
	return token.ClientID == c.ClientID ||
		slices.ContainsFunc(token.Audience, func(aud string) bool { return slices.Contains(c.Resources, aud) })
}

// RevokeResult is the outcome of a revocation request. The caller does not
// learn it: the answer is 200 in any case (RFC 7009 §2.2).
type RevokeResult struct {
	// TokenID is the `jti` of the revoked token, "" if none was revoked.
	TokenID string
	// Cause is why none was revoked, a [*TokenError] for the log.
	Cause error
}

// Revoke revokes a token of the client (RFC 7009 §2.1). A token that does not
// verify, or that belongs to another client, is left as it is, which is not an
// error. A token that expired less than a day ago is revoked all the same: it may
// be good on a node whose clock differs. The error is temporarily_unavailable if the token could not be revoked, because there are no keys to verify it with or storage failed, and
// unsupported_token_type if the issuer cannot revoke tokens.
func (i *Issuer) Revoke(ctx context.Context, clientID, token string) (RevokeResult, *Error) {
	if i.config.RevokedTokens == nil {
		return RevokeResult{}, NewError(CodeUnsupportedTokenType, "access tokens cannot be revoked here")
	}
	if _, err := i.keys.Ensure(ctx); err != nil {
		return RevokeResult{}, unavailable(err)
	}
	verified, err := i.revocable.Verify(token)
	switch {
	case err != nil:
		return RevokeResult{Cause: err}, nil //nolint:nilerr // revoking such a token succeeds (RFC 7009 §2.2)
	case verified.ClientID != clientID:
		return RevokeResult{Cause: errTokenOfOther}, nil
	}
	if err := i.config.RevokedTokens.Revoke(ctx, verified); err != nil {
		return RevokeResult{}, revokedUnavailable(err)
	}
	return RevokeResult{TokenID: verified.ID}, nil
}

func revokedUnavailable(cause error) *Error {
	return NewError(CodeTemporarilyUnavailable, "the list of revoked tokens is not available, try again later").
		withCause(cause).withHeader("Retry-After", retryAfter)
}

// introspected is the answer for an active token (RFC 7662 §2.2), with the
// confirmation of RFC 8705 §3.2.
type introspected struct {
	Active       bool         `json:"active"`
	Scope        string       `json:"scope,omitempty"`
	ClientID     string       `json:"client_id"`
	TokenType    string       `json:"token_type"`
	Expires      int64        `json:"exp"`
	IssuedAt     int64        `json:"iat"`
	NotBefore    int64        `json:"nbf,omitempty"`
	Subject      string       `json:"sub"`
	Audience     audience     `json:"aud"`
	Issuer       string       `json:"iss"`
	ID           string       `json:"jti"`
	Confirmation confirmation `json:"cnf"`
}

// introspectionMembers are the members of an answer that no claim of a client
// may replace, besides the reserved ones.
var introspectionMembers = []string{"active", "token_type", "username"}

// MarshalJSON returns the body of the answer: {"active":false} and nothing else
// for an inactive token, and for an active one the members of RFC 7662 §2.2,
// `cnf`, and the client's own claims.
func (r Introspection) MarshalJSON() ([]byte, error) {
	if r.Token == nil {
		return []byte(`{"active":false}`), nil
	}
	t := r.Token
	answer := introspected{
		Active:       true,
		Scope:        strings.Join(t.Scopes, " "),
		ClientID:     t.ClientID,
		TokenType:    "Bearer",
		Expires:      t.Expires.Unix(),
		IssuedAt:     t.IssuedAt.Unix(),
		Subject:      t.Subject,
		Audience:     t.Audience,
		Issuer:       t.Issuer,
		ID:           t.ID,
		Confirmation: confirmation{Thumbprint: t.Thumbprint},
	}
	if !t.NotBefore.IsZero() {
		answer.NotBefore = t.NotBefore.Unix()
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(t.Claims)) {
		if !ValidClaimName(name) || ReservedClaim(name) || slices.Contains(introspectionMembers, strings.ToLower(name)) {
			continue
		}
		body = fmt.Appendf(body[:len(body)-1], ",%q:%s}", name, t.Claims[name])
	}
	return body, nil
}

// WriteIntrospection writes r as the response: JSON that must not be stored
// (RFC 7662 §2.2, §4).
func WriteIntrospection(w http.ResponseWriter, r Introspection) {
	writeJSON(w, http.StatusOK, r)
}

// WriteRevoked writes the response to a revocation request, whether or not a
// token was revoked: 200 without a body (RFC 7009 §2.2).
func WriteRevoked(w http.ResponseWriter) {
	noStore(w.Header())
	w.WriteHeader(http.StatusOK)
}
