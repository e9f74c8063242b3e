// Package revocation decides whether a certificate of a chain has been revoked:
// by a deny file, by certificate revocation lists (RFC 5280 §5) and by the
// Online Certificate Status Protocol (RFC 6960). It reads, fetches and watches
// these sources. It knows nothing about registered clients or Caddy, and works
// in any Go server.
package revocation
