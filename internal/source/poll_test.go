package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPollReportsChangesOnly(t *testing.T) {
	down, full := errors.New("down"), errors.New("full")
	outcomes := []error{nil, down, full, down, nil, nil, down, nil}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		calls := 0
		var reports []string
		Poll(ctx, time.Minute, func(context.Context) error {
			if want := time.Duration(calls) * time.Minute; time.Since(began) != want {
				t.Errorf("call %d after %v", calls, time.Since(began))
			}
			calls++
			if calls > len(outcomes) {
				cancel()
				return down // too late to be reported
			}
			return outcomes[calls-1]
		}, func(err error) { reports = append(reports, fmt.Sprint(err)) })
		if want := []string{"down", "<nil>", "down", "<nil>"}; !slices.Equal(reports, want) {
			t.Errorf("reported %q, want %q", reports, want)
		}
	})
}

func TestPollIsOverBeforeItBegins(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	Poll(ctx, time.Minute, func(context.Context) error { t.Error("it works"); return nil }, nil)
}

func TestPollEndsBetweenTwoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		calls := 0
		Poll(ctx, time.Minute, func(context.Context) error { calls++; return nil }, nil)
		if calls != 2 {
			t.Errorf("%d calls, want 2", calls)
		}
	})
}
