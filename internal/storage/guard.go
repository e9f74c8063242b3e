package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/certmagic"
)

// maxUnanswered is how many questions a storage may leave unanswered before it is
// asked no more, so that one that hangs does not collect goroutines.
const maxUnanswered = 8

// unanswered counts them, by what tells storages apart; another configuration
// has other modules for the same one.
var unanswered sync.Map // of string to *atomic.Int32

var errHangs = errors.New("storage has not answered earlier questions yet; if that lasts, mend it and restart")

func unansweredBy(storage certmagic.Storage) *atomic.Int32 {
	name := fmt.Sprintf("%T", storage)
	if described, ok := storage.(fmt.Stringer); ok {
		name += " " + described.String()
	}
	count, _ := unanswered.LoadOrStore(name, new(atomic.Int32))
	return count.(*atomic.Int32)
}

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
func Within[T any](ctx context.Context, storage certmagic.Storage, work func(context.Context) (T, error)) (result T, err error) {
	hanging := unansweredBy(storage)
	if hanging.Load() >= maxUnanswered {
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
	hanging.Add(1)
	go func() {
		<-answered
		hanging.Add(-1)
	}()
	return result, fmt.Errorf("storage does not answer: %w", ctx.Err())
}
