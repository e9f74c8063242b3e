package source

import "fmt"

// Guard returns what read returns, or an error if it panics. What a server has
// sent is read outside of any request, where a panic would end the process.
func Guard[T any](read func() (T, error)) (result T, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("reading it panics: %s", Text(fmt.Sprint(fault), maxErrorText))
		}
	}()
	return read()
}
