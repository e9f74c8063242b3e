package stress_test

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// state is everything that the answers to the traffic depend on.
type state struct {
	config  int    // generation of the configuration
	pinned  string // the client that has the pinned certificate, "" if none has
	trusted bool   // the CA of the trusted client is in the trust pool
	revoked bool   // the certificate of the revocable client is revoked
	key     string // the only signing key
	stored  bool   // the stored client is enabled
}

// fact is the history of one part of the state.
type fact[T comparable] struct {
	mu     sync.Mutex
	values []timed[T]
}

// timed is a value and the change that brought it. During the change, the value before
// it may still be in force.
type timed[T comparable] struct {
	value      T
	begin, end time.Time // end is zero while the change is going on
}

// begin notes that a change to this value is going on.
func (f *fact[T]) begin(value T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values = append(f.values, timed[T]{value: value, begin: time.Now()})
}

// end notes that the change is in force, with its value.
func (f *fact[T]) end(value T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := &f.values[len(f.values)-1]
	last.value, last.end = value, time.Now()
}

// during returns the values that may have been in force at some time in between.
func (f *fact[T]) during(from, to time.Time) (values []T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range slices.Backward(f.values) {
		if !v.begin.After(to) {
			values = append(values, v.value)
			if !v.end.IsZero() && v.end.Before(from) {
				return values // the ones before it were over
			}
		}
	}
	return values
}

// oracle knows which states the server can have been in.
type oracle struct {
	config  fact[int]
	pinned  fact[string]
	trusted fact[bool]
	revoked fact[bool]
	key     fact[string]
	stored  fact[bool]
}

// pending is a signing key that is being made, whose kid is not known yet.
const pending = "pending"

// text describes the state, and what it was before.
func (o *oracle) text() string {
	return o.config.text("config") + o.pinned.text("pinned") + o.trusted.text("trusted") + o.revoked.text("revoked") + o.key.text("key") + o.stored.text("stored")
}

// text describes the last few values.
func (f *fact[T]) text(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := "\n" + name
	for _, v := range f.values[max(0, len(f.values)-5):] {
		text += fmt.Sprintf(" %v %s-%s", v.value, v.begin.Format(clockFormat), v.end.Format(clockFormat))
	}
	return text
}

// right reports whether an answer is that of one of the states between two moments.
// The token of the request, if there is one, is signed with the key kid.
func (o *oracle) right(from, to time.Time, kid, answer string, want func(state) string) bool {
	keys := o.key.during(from, to)
	if slices.Contains(keys, pending) {
		keys = append(keys, kid)
	}
	for _, config := range o.config.during(from, to) {
		for _, pinned := range o.pinned.during(from, to) {
			for _, trusted := range o.trusted.during(from, to) {
				for _, revoked := range o.revoked.during(from, to) {
					for _, key := range keys {
						for _, stored := range o.stored.during(from, to) {
							if want(state{config, pinned, trusted, revoked, key, stored}) == answer {
								return true
							}
						}
					}
				}
			}
		}
	}
	return false
}
