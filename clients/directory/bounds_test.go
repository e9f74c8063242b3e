package directory

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// slowSource is a source that takes a second for every 1024 records.
type slowSource struct {
	clients.SourceInfo
	records int
}

func (s *slowSource) Info() clients.SourceInfo { return s.SourceInfo }

func (s *slowSource) Load(ctx context.Context, sink clients.Sink) error {
	return sink.Replace(ctx, func(yield func(clients.Entry, error) bool) {
		for i := range s.records {
			if i%checkEvery == 0 {
				time.Sleep(time.Second)
			}
			id := fmt.Sprintf("client-%d", i)
			if !yield(clients.Entry{ID: id, Record: entriesOf(pinned(id))[0].Record}, nil) {
				return
			}
		}
	})
}

func (s *slowSource) Watch(context.Context, clients.Sink) {}

// TestProgress checks that an update which takes long says every few seconds how far it
// has come, and when it is in force, and that others say nothing.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		slow := &slowSource{clients.SourceInfo{Name: "slow"}, 5 * checkEvery}
		w.config.Sources = []clients.Source{slow}
		w.mustLoad()
		w.saw("loading: 2048 of clients:slow after 3s", "loaded: 5120 of clients:slow after 5s")
		slow.records = 2 * checkEvery
		w.mustLoad()
		w.saw()
	})
}
