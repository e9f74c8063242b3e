// Package validators decides what an X.509 client certificate is: whether it
// may be used for client authentication now, which names and keys it carries,
// and whether its chain leads to a trusted CA. It knows nothing about
// registered clients, HTTP or Caddy, and works in any Go server.
package validators
