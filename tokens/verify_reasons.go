package tokens

// TokenReason is why an access token was refused, one word of a closed list.
// Logs and metrics carry it; the caller only learns that the token is invalid
// (RFC 6750 §3.1).
type TokenReason string

// The reasons of [Verifier], a closed list.
const (
	// TokenMalformed means that it is not a signed JWT, that it is larger than
	// 16 KiB or its header than 2 KiB, or that its header or claims violate RFC
	// 7515, RFC 7519 or RFC 9068.
	TokenMalformed TokenReason = "token_malformed"
	// TokenType means that `typ` is not that of an access token (RFC 9068 §4).
	TokenType TokenReason = "token_type"
	// TokenAlgorithm means that it is signed with an algorithm that is not
	// accepted, or that is not the key's (RFC 8725 §3.1).
	TokenAlgorithm TokenReason = "token_algorithm"
	// TokenKeyUnknown means that the issuer does not publish a key with that
	// `kid`.
	TokenKeyUnknown TokenReason = "token_key_unknown"
	// TokenKeysUnavailable means that no key of the issuer is known yet.
	TokenKeysUnavailable TokenReason = "token_keys_unavailable"
	// TokenSignature means that the signature does not verify.
	TokenSignature TokenReason = "token_signature"
	// TokenIssuer means that another issuer issued it.
	TokenIssuer TokenReason = "token_issuer"
	// TokenAudience means that it is for another API.
	TokenAudience TokenReason = "token_audience"
	// TokenExpired means that it has expired.
	TokenExpired TokenReason = "token_expired"
	// TokenNotYetValid means that it was issued, or becomes valid, in the
	// future.
	TokenNotYetValid TokenReason = "token_not_yet_valid"
	// TokenConfirmation means that it is bound to something other than a
	// certificate, or in a way that is not supported (RFC 7800 §3.1).
	TokenConfirmation TokenReason = "token_confirmation"
	// TokenUnbound means that it is not bound to a certificate.
	TokenUnbound TokenReason = "token_unbound"
)

// TokenReasons lists all reasons in a fixed order, for metrics and
// documentation.
var TokenReasons = []TokenReason{
	TokenMalformed, TokenType, TokenAlgorithm, TokenKeyUnknown, TokenKeysUnavailable, TokenSignature,
	TokenIssuer, TokenAudience, TokenExpired, TokenNotYetValid, TokenConfirmation, TokenUnbound,
}

// TokenError is the error of [Verifier]: the reason for machines, and the
// detail for the operator's log. The detail never holds the token, and quotes
// and cuts everything that comes from it.
type TokenError struct {
	Reason TokenReason
	Detail string
}

// Error returns the reason followed by the detail.
func (e *TokenError) Error() string { return string(e.Reason) + ": " + e.Detail }
