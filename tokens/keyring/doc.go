// Package keyring keeps the signing keys of a token issuer. It makes, stores,
// rotates and retires keys in a storage that several nodes share, and decides
// which key signs and which are published.
//
// A server gets its keys from a [Source]: a single key file ([Fixed]), or keys
// that are managed in storage ([Managed]).
package keyring
