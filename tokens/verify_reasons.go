package tokens

// TokenReason says, in one word of a closed list, why an access token was
// refused. It is what logs and metrics carry; the caller only learns that the
// token is invalid (RFC 6750 §3.1).
type TokenReason string

// The closed list of reasons of [Verifier].
const (
	// TokenMalformed means that it is no signed JWT, that it is larger than
	// 16 KiB, or that its header or claims are not what RFC 7515, RFC 7519 and
	// RFC 9068 allow.
	TokenMalformed TokenReason = "token_malformed"
	// TokenType means that `typ` is not that of an access token (RFC 9068 §4).
	TokenType TokenReason = "token_type"
	// TokenAlgorithm means that it is signed with an algorithm that is not
	// accepted, or that is not the one of the key (RFC 8725 §3.1).
	TokenAlgorithm TokenReason = "token_algorithm"
	// TokenKeyUnknown means that the issuer publishes no key with that `kid`.
	TokenKeyUnknown TokenReason = "token_key_unknown"
	// TokenKeysUnavailable means that no key of the issuer is known yet.
	TokenKeysUnavailable TokenReason = "token_keys_unavailable"
	// TokenSignature means that the signature does not verify.
	TokenSignature TokenReason = "token_signature"
	// TokenIssuer means that it is from another issuer.
	TokenIssuer TokenReason = "token_issuer"
	// TokenAudience means that it is for another API.
	TokenAudience TokenReason = "token_audience"
	// TokenExpired means that it has expired.
	TokenExpired TokenReason = "token_expired"
	// TokenNotYetValid means that it was issued, or becomes valid, in the
	// future.
	TokenNotYetValid TokenReason = "token_not_yet_valid"
	// TokenConfirmation means that it is bound to something else than a
	// certificate, or to one in a way that is not understood (RFC 7800 §3.1).
	TokenConfirmation TokenReason = "token_confirmation"
	// TokenUnbound means that it is not bound to a certificate.
	TokenUnbound TokenReason = "token_unbound"
)

// TokenReasons is the closed list in a fixed order, for metrics and
// documentation.
var TokenReasons = []TokenReason{
	TokenMalformed, TokenType, TokenAlgorithm, TokenKeyUnknown, TokenKeysUnavailable, TokenSignature,
	TokenIssuer, TokenAudience, TokenExpired, TokenNotYetValid, TokenConfirmation, TokenUnbound,
}

// TokenError is the error of [Verifier]: the reason for machines, and the
// detail for the operator's log, which never holds the token and in which
// whatever is from the token is quoted and cut.
type TokenError struct {
	Reason TokenReason
	Detail string
}

// Error returns the reason followed by the detail.
func (e *TokenError) Error() string { return string(e.Reason) + ": " + e.Detail }
