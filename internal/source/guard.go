package source

import "fmt"

// Recover turns a panic into an error, which begins with the name of what has
// panicked, where it is deferred. Calls into guest modules, and whatever reads what a server has sent,
// need it where they run outside of any request: a panic would end the process.
func Recover(what string, err *error) {
	if fault := recover(); fault != nil {
		*err = fmt.Errorf("%s panicked: %s", what, Text(fmt.Sprint(fault), maxErrorText))
	}
}

// Guard returns what read returns, or an error if it panics.
func Guard[T any](read func() (T, error)) (result T, err error) {
	defer Recover("reading it", &err)
	return read()
}
