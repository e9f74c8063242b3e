package reasons

// Certificates are the texts about the reasons of a decision about a certificate, in
// the order of validators.Reasons.
var Certificates = []Text{
	{
		"certificate_missing",
		"The request came without a client certificate.",
		"Check that the client sends its certificate, and that the site has `client_auth { mode request }`. " +
			"If the client is self-signed, remove a `trust_pool` from `client_auth`, because it tells clients to choose only certificates of its CAs. " +
			"Behind a proxy, `detail` names the header that the proxy did not send, or that was ignored because it did not come from the proxies of [`forwarded_certificate`](forwarded_certificate.md) or because the realm has none. " +
			"At an issuer with [`mtls_alias`](issuer.md#mtls_alias), `detail` says where the client should have sent its request.",
	},
	{
		"certificate_expired",
		"The certificate has expired, or is not valid yet.",
		"Have the client renew its certificate. If it is not valid yet, check the clocks.",
	},
	{
		"certificate_unknown",
		"No client has a name or hash of this certificate.",
		"To register it, paste the block in `register` into the realm, which pins this certificate. " +
			"To have it recognized by its name after a renewal too, paste what [`caddy mtls inspect`](commands.md#inspect) prints. " +
			"`hint` says what it comes close to, such as a subject declared in reverse order, and `names` lists its alternative names.",
	},
	{
		"certificate_untrusted",
		"The chain does not lead to the trust pool, or not through a CA of the client's `issued_by`.",
		"Check that the client sends its intermediate certificates, and that its CA is in `trust_pool`. " +
			"`detail` names the certificate that stops the chain, the cause and the remedy; see also [What nginx and OpenSSL accept and this does not](../what-openssl-accepts.md). " +
			"The CA must also be in the client's [`issued_by`](client.md#issued_by), if it has one. " +
			"Register a self-signed certificate by its thumbprint: paste the block in `register`.",
	},
	{
		"certificate_revoked",
		"The deny file, a CRL or an OCSP responder says that the certificate, or a CA above it, is revoked.",
		"Have the client get a new certificate, unless `detail` shows a mistake in what revoked this one. " +
			"A certificate on hold counts as revoked.",
	},
	{
		"revocation_unavailable",
		"No CRL and no OCSP responder has a fresh answer about a certificate of the chain.",
		"Repair a source of [`revocation`](revocation.md) for the CA that `detail` names. " +
			"`detail` says what is wrong with each source (no CRL of this CA, stale, signed with another key), which sources are failing now and why, and what to do.",
	},
	{
		"certificate_unsuitable",
		"The certificate is not made for clients, or what a proxy forwarded cannot be read.",
		"Have the client get a certificate that is made for clients; `detail` says what is wrong with this one. " +
			"It is unsuitable if it has extended key usages without `clientAuth`, or an empty list of them, more than 256 names, or an unknown critical extension, or if the caller presented more than 64 KiB of certificates. " +
			"For a client that is known by a name, a CA certificate is unsuitable too, and so is one that has a key usage without `digitalSignature`, which some client libraries do not even send. " +
			"For one that is known by a SPIFFE ID, only an X.509-SVID is suitable. With `profile fapi2`, a short RSA key is not.",
	},
	{
		"certificate_ambiguous",
		"The certificate matches several clients.",
		"Give each client its own credential, or have the client name itself in the token request. `mtls_auth` always refuses it.",
	},
	{
		"client_mismatch",
		"The `client_id` of the request, or of the token, is not the client of the certificate.",
		"Have the client use its own `client_id` together with its own certificate.",
	},
	{
		"client_disabled",
		"The client is registered with `disabled`.",
		"Remove [`disabled`](client.md#disabled) from the client if it is to be admitted again.",
	},
	{
		"client_not_allowed",
		"The client is not in `allow` here.",
		"Add the client to [`allow`](mtls_auth.md#allow).",
	},
	{
		"scope_missing",
		"The client, or its token, lacks a scope of `require_scope`.",
		"Add the scope to the client's [`scopes`](client.md#scopes). " +
			"With `mtls_bearer`, have the client ask for a token with it; a scope that has been taken from the client does not count.",
	},
}

// Requests are the texts about requests that are refused whoever sends them.
var Requests = []Text{
	{
		"connect_refused",
		"The method is `CONNECT`, which would open a tunnel to the upstream.",
		"Have the client send another method, unless somebody is looking for a way past the gateway. " +
			"A `CONNECT` that opens a WebSocket is admitted (RFC 8441, RFC 9220).",
	},
	{
		"too_early",
		"The request came in TLS early data, before the client had proved that it holds the key of its certificate.",
		"Do nothing if the client repeats the request by itself, as HTTP libraries do. " +
			"Otherwise, switch early data (0-RTT) off in the client.",
	},
}

var configurationEnded = Text{
	"configuration_ended",
	"The request came on a connection to a configuration that had been replaced or stopped more than 5 seconds before.",
	"Do nothing if this is rare: on a new connection, the client reaches the new configuration. " +
		"If there are many of one client, it may be trying to keep an access that the new configuration takes away.",
}
