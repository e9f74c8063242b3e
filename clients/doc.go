// Package clients has the registered callers of a realm: their records (RFC 7591
// client metadata with the members of RFC 8705), the registry, which finds the
// client of a credential in constant time, and the directory, which keeps the
// registry up to date with the sources that clients come from.
package clients
