// Package keyring keeps the signing keys of a token issuer: which algorithms
// there are, which key signs now, which are published, and how keys in storage
// that several nodes share are made, rotated and retired.
//
// A server takes its keys from a [Source]: of one key file ([Fixed]), or of keys
// that are managed in storage ([Managed]).
package keyring
