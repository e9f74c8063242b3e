// Package clients has the registered callers of a realm: their records (RFC 7591
// client metadata with the members of RFC 8705), the registry, which finds the
// client of a credential, and what sources of clients implement.
package clients
