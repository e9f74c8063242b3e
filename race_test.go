//go:build race

package mtlsauth

func init() { raceEnabled = true }
