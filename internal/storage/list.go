// Package storage reads what several nodes write at the same time, and bounds
// what a storage module that panics or hangs can do.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caddyserver/certmagic"
)

const (
	// listAttempts is how often storage is listed: that of files fails when one
	// vanishes meanwhile, as happens whenever another node writes. The pause
	// before the next attempt is listPause longer each time: 0.2 s together.
	listAttempts = 20
	listPause    = time.Millisecond
)

// List returns the names of the objects in a folder of storage. A folder that is
// not there is an empty one.
func List(ctx context.Context, storage certmagic.Storage, folder string) ([]string, error) {
	var err error
	for attempt := range listAttempts {
		var names []string
		names, err = storage.List(ctx, folder, false)
		if err == nil {
			return names, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if !storage.Exists(ctx, folder) {
			return nil, ctx.Err()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(attempt) * listPause):
		}
	}
	return nil, fmt.Errorf("listing '%s' in storage: %w", folder, err)
}
