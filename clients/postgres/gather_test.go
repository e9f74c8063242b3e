package postgres

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestNotificationsThatDoNotEnd: a row that changes all the time does not hold up the
// changes of others.
func TestNotificationsThatDoNotEnd(t *testing.T) {
	sent := 0
	trickle := func(time.Duration) (*pgconn.Notification, error) {
		time.Sleep(gatherFor / 10) // which is what takes time
		sent++
		return &pgconn.Notification{Payload: strconv.Itoa(sent)}, nil
	}
	ids, err := gather(trickle, time.Minute)
	if err != nil || !slices.Contains(ids, "1") || sent > 20 {
		t.Errorf("%d notifications were waited for, %v", sent, err)
	}
	if ids, err := gather(func(time.Duration) (*pgconn.Notification, error) { return nil, nil }, time.Minute); len(ids) > 0 || err != nil {
		t.Errorf("none has come: %q, %v", ids, err)
	}
}
