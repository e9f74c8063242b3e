// Package validators decides what an X.509 client certificate is: whether it
// may be used for client authentication now, which names and keys it carries,
// whether its chain leads to a trusted CA, and whether a certificate of the
// chain has been revoked. It knows nothing about registered clients or Caddy,
// and works in any Go server.
package validators
