package storage

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWithin(t *testing.T) {
	failed := errors.New("disk full")
	for want, work := range map[string]func() (int, error){
		"":                        func() (int, error) { return 7, nil },
		"disk full":               func() (int, error) { return 7, failed },
		"storage panicked: a bug": func() (int, error) { panic("a bug") },
	} {
		got, err := Within(t.Context(), func(context.Context) (int, error) { return work() })
		if want == "" && (err != nil || got != 7) || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%q: %d, %v", want, got, err)
		}
	}
}

func TestWithinDoesNotWaitForAHangingStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mended := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := Within(ctx, func(context.Context) (int, error) {
			<-mended
			return 0, nil
		})
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
		close(mended)
	})
}
