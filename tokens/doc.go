// Package tokens issues and verifies access tokens. It is an OAuth 2.0
// authorization server (RFC 6749) with one grant, client credentials, whose
// JWT access tokens (RFC 9068) are bound to the TLS client certificate of the
// request (RFC 8705 §3). It knows neither Caddy nor the registered clients,
// and works in any Go server.
//
// A server needs three things: keys, an [Issuer] that uses them, and for each
// token request a [Grant] with what the authenticated client may have.
//
//	keys, err := keyring.Managed(keyring.Config{Storage: storage, Realm: "default", Issuer: url}, nil)
//	...
//	issuer, err := tokens.NewIssuer(tokens.IssuerConfig{URL: url}, keys)
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
// An [Error] is what a caller may see. Its Cause is why it happened; it is
// meant for the log and is never written to a response.
package tokens
