package source

import "fmt"

// Recover turns a panic into an error that begins with the name of what has
// panicked. It must be deferred. Calls into guest modules, and whatever reads
// what a server has sent, need it outside of requests, where a panic would end
// the process.
func Recover(what string, err *error) {
	if fault := recover(); fault != nil {
		*err = fmt.Errorf("%s panicked: %s", what, Text(fmt.Sprint(fault), maxErrorText))
	}
}
