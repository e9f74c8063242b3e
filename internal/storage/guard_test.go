package storage

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

func TestWithin(t *testing.T) {
	failed := errors.New("disk full")
	for want, work := range map[string]func() (int, error){
		"":                        func() (int, error) { return 7, nil },
		"disk full":               func() (int, error) { return 7, failed },
		"storage panicked: a bug": func() (int, error) { panic("a bug") },
	} {
		got, err := Within(t.Context(), new(certmagic.FileStorage), func(context.Context) (int, error) { return work() })
		if want == "" && (err != nil || got != 7) || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%q: %d, %v", want, got, err)
		}
	}
}

// TestWithinAHangingStorage: nobody waits for it longer than he said, it is not
// asked for ever, and again once it has answered.
func TestWithinAHangingStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mended := make(chan struct{})
		ask := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := Within(ctx, new(certmagic.FileStorage), func(context.Context) (int, error) {
				<-mended
				return 0, nil
			})
			return err
		}
		began := time.Now()
		for range maxUnanswered {
			if err := ask(); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != maxUnanswered*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := ask(); err == nil || !strings.Contains(err.Error(), "has not answered earlier questions") {
			t.Error(err)
		}
		close(mended)
		synctest.Wait()
		if err := ask(); err != nil {
			t.Error(err)
		}
	})
}
