package storage

import (
	"context"
	"fmt"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// Within returns what work returns, or an error as soon as ctx is done, whether
// or not the storage module honors ctx. Work then continues on its own, so it
// must share nothing with its caller. A panic of work is an error.
func Within[T any](ctx context.Context, work func(context.Context) (T, error)) (T, error) {
	type answer struct {
		result T
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		var a answer
		defer func() { answered <- a }()
		defer source.Recover("storage", &a.err)
		a.result, a.err = work(ctx)
	}()
	select {
	case a := <-answered:
		return a.result, a.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("storage does not answer: %w", ctx.Err())
	}
}
