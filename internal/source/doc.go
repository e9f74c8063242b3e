// Package source reads what a configuration keeps outside of itself: watched
// files, and documents behind URLs that are kept fresh. It starts no
// goroutines; the owner of a source runs [Poll], or looks at it from time to
// time.
package source
