package storage

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// maxUnanswered is how many questions storage may leave unanswered before it is
// asked no more, so that a storage that hangs does not collect goroutines.
const maxUnanswered = 8

var unanswered atomic.Int32

var errHangs = errors.New("storage has not answered earlier questions yet; if that lasts, mend it and restart")

// Guard, deferred, turns a panic of a storage module into an error: outside of a
// request it would end the whole server.
func Guard(err *error) {
	if fault := recover(); fault != nil {
		*err = fmt.Errorf("storage panicked: %v", fault)
	}
}

// Within returns what work returns, but waits for it no longer than ctx lasts,
// whether or not storage honours that. Work then goes on by itself, so it must
// share nothing with its caller. A panic of it is an error.
func Within[T any](ctx context.Context, work func(context.Context) (T, error)) (result T, err error) {
	if unanswered.Load() >= maxUnanswered {
		return result, errHangs
	}
	type answer struct {
		result T
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		var a answer
		defer func() { answered <- a }()
		defer Guard(&a.err)
		a.result, a.err = work(ctx)
	}()
	select {
	case a := <-answered:
		return a.result, a.err
	case <-ctx.Done():
	}
	unanswered.Add(1)
	go func() {
		<-answered
		unanswered.Add(-1)
	}()
	return result, fmt.Errorf("storage does not answer: %w", ctx.Err())
}
