// Package trustpool loads CA certificates from Caddy's tls.ca_pool.source
// modules and keeps them up to date: files are watched, all other sources are
// loaded again from time to time.
package trustpool
