package reasons

// Tokens are the texts about the reasons for which mtls_bearer refuses a request,
// besides those of [Certificates].
var Tokens = []Text{
	{
		"token_missing",
		"There is no `Authorization` header, or its scheme is not `Bearer`.",
		"Have the client send its token as `Authorization: Bearer <token>`.",
	},
	{
		"authorization_malformed",
		"There are two `Authorization` headers, or there is not exactly one token after `Bearer`.",
		"Look for a proxy that adds a header or a token.",
	},
	{
		"token_malformed",
		"The token is not a signed JWT that can be read.",
		"Have the client send the access token as it got it; `detail` says what is wrong. " +
			"It is not a signed JWT, is longer than 16 KiB, has a header longer than 2 KiB or with more than 16 members, or its header or claims are not as in RFC 9068.",
	},
	{
		"token_type",
		"The `typ` of the token is not `at+jwt`.",
		"For a server that writes `JWT`, set [`type JWT`](mtls_bearer.md#type). A token of `forward_token` is never admitted.",
	},
	{
		"token_algorithm",
		"The algorithm of the token is not in `algorithms`, or does not fit its key.",
		"Add it to [`algorithms`](mtls_bearer.md#algorithms) if the issuer is meant to use it.",
	},
	{
		"token_key_unknown",
		"The issuer publishes no key with the `kid` of the token.",
		"Have the client get a new token. The keys of another server are being fetched again. " +
			"If the next token is refused for the same reason, the token is old or comes from somewhere else.",
	},
	{
		"token_keys_unavailable",
		"No key of the issuer is known yet.",
		"Look for the log line that says why the keys could not be read or fetched.",
	},
	{
		"token_signature",
		"The signature is wrong: the token was changed or cut off.",
		"Have the client get a new token, and send it unchanged. " +
			"With a certificate that the realm refuses, the signature of the realm's tokens is not looked at.",
	},
	{
		"token_issuer",
		"The issuer of the token is not trusted here.",
		"Add the issuer with [`trust_issuer`](mtls_bearer.md#trust_issuer) if its tokens are to be admitted. " +
			"Issuers are compared byte for byte, including a slash at the end.",
	},
	{
		"token_audience",
		"The token is for another API.",
		"Have the client ask for the right `resource`, or add the name to [`audience`](mtls_bearer.md#audience).",
	},
	{
		"token_expired",
		"The token has expired.",
		"Have the client get a new token before this one expires.",
	},
	{
		"token_not_yet_valid",
		"The token was issued more than 10 seconds in the future.",
		"Compare the clocks.",
	},
	{
		"token_confirmation",
		"The `cnf` of the token is not just a certificate's `x5t#S256`.",
		"Have the server bind its tokens to certificates (RFC 8705 §3). Other methods are not supported.",
	},
	{
		"token_unbound",
		"The token has no `cnf`, so anybody could use it.",
		"Have the server bind its tokens to certificates (RFC 8705 §3); [`allow_unbound`](mtls_bearer.md#allow_unbound) gives that up.",
	},
	{
		"token_certificate",
		"The token is bound to another certificate.",
		"Have the client get a new token, as it must after each renewal of its certificate. " +
			"If it has not renewed its certificate, somebody else may be using its token.",
	},
	{
		"token_revoked",
		"The token has been revoked, or the list of revoked tokens has not been read since startup.",
		"Have the client get a new token. If all clients are refused, another log line says why the list cannot be read.",
	},
	{
		"token_client",
		"The client of the token has, with `id_prefix`, the name of a client of the realm, or one that no client can have.",
		"Choose another [`id_prefix`](mtls_bearer.md#id_prefix). A name must be a [`client_id`](client.md) without a comma.",
	},
}

// TokenRequests are the texts about the OAuth error codes with which the issuer refuses
// a request for another reason than those of [Certificates].
var TokenRequests = []Text{
	{
		"invalid_request",
		"The request cannot be read, or lacks something.",
		"Repair the client's request; `detail` says what is wrong with it.",
	},
	{
		"invalid_client",
		"The request has `Authorization: Basic` with a password.",
		"Configure the client without a secret, because it authenticates with its certificate alone.",
	},
	{
		"unsupported_grant_type",
		"The `grant_type` is not `client_credentials`.",
		"Configure the client for `grant_type=client_credentials`.",
	},
	{
		"invalid_scope",
		"The client may not have a scope that it asks for, or its scopes do not belong to one API.",
		"Add the scope to the client's [`scopes`](client.md#scopes), or have the client ask for others. " +
			"`detail` names the scope. If the scopes belong to several [resources](issuer.md#resource), the request must name one of them.",
	},
	{
		"invalid_target",
		"The client may not have a token for the `resource` that it names, or names none where it must.",
		"Add the resource to the client's [`resources`](client.md#resources), or have the client ask for another. " +
			"A resource must be declared at the [issuer](issuer.md#resource), and be an absolute URI in a request.",
	},
	{
		"unsupported_token_type",
		"The issuer keeps no list of revoked tokens.",
		"Have the client drop the token instead of revoking it; it is good until it expires.",
	},
	{
		"server_error",
		"The issuer could not issue the token.",
		"Read `detail`, which says why.",
	},
	{
		"temporarily_unavailable",
		"The issuer has no signing key, or cannot read or write the list of revoked tokens.",
		"Check the realm's [storage](../storage.md); other log lines say since when it fails, and why.",
	},
}
