// Package clients holds the registered callers of a realm: their records
// (RFC 7591 client metadata with the members of RFC 8705), and the registry
// that leads from a credential to a client in constant time.
package clients
