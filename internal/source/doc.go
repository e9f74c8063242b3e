// Package source reads what a configuration keeps outside of itself: files that
// are watched, and documents behind URLs that are kept fresh. It starts no
// goroutines; who has a source looks at it from time to time.
package source
