// Package tokens is the token authority of a realm: an OAuth 2.0
// authorization server (RFC 6749) that knows one grant, client credentials,
// and issues JWT access tokens (RFC 9068) bound to the TLS client certificate
// they were requested with (RFC 8705 §3). It knows nothing about Caddy or
// about who is registered, and works in any Go server.
//
// A server needs three things: keys, an [Issuer] over them, and for each token
// request a [Grant] that says what the authenticated client may have.
//
//	keys, err := keyring.Managed(keyring.Config{Storage: storage, Realm: "default", Issuer: url}, nil)
//	...
//	issuer, err := tokens.NewIssuer(tokens.IssuerConfig{URL: url, Scopes: []string{"api1"}}, keys)
//	...
//	req, oauthErr := tokens.ParseTokenRequest(r)
//	...  // authenticate req.ClientID by the certificate of the connection
//	token, oauthErr := issuer.Mint(r.Context(), &tokens.Grant{
//		ClientID:   "mtls.client",
//		Scopes:     []string{"api1"},
//		Thumbprint: validators.X5tS256(sha256.Sum256(leaf.Raw)),
//		NotAfter:   leaf.NotAfter,
//	}, req)
//
// What a caller may see is an [Error]; why it happened is its Cause, which is
// for the log and never written to a response.
package tokens
