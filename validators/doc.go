// Package validators examines X.509 client certificates: whether one may be
// used for client authentication now, which names and keys it carries, and
// whether its chain leads to a trusted CA. It knows nothing about registered
// clients or Caddy, and works in any Go server.
package validators
