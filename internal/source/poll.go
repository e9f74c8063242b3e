package source

import (
	"context"
	"time"
)

// Poll calls work at once and then at each interval, until ctx is done. It
// calls report, unless that is nil, with the error when work starts to fail and
// with nil when work succeeds again. Outcomes after the end of ctx do not count.
func Poll(ctx context.Context, interval time.Duration, work func(context.Context) error, report func(error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failing := false
	for ctx.Err() == nil {
		err := work(ctx)
		if ctx.Err() != nil {
			return
		}
		if failing != (err != nil) && report != nil {
			report(err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
