// Package storage reads storage that several nodes write to at the same time, and
// guards against storage modules that hang.
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
	// listAttempts is how often listing is tried. File storage fails when a file
	// vanishes during it, as happens when another node writes. The pause after each
	// attempt is listPause longer than the one before: 0.2 s together.
	listAttempts = 20
	listPause    = time.Millisecond
)

// List returns the names of the objects in a folder of storage, none if the folder
// does not exist.
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
