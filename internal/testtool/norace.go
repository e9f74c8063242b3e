//go:build !race

package testtool

// RaceEnabled reports whether the tests run under the race detector, which
// allocates memory of its own.
const RaceEnabled = false
