package rig

import (
	"testing"
	"time"
)

// Eventually asks over one open connection until the answer is what it should be.
func (c *Caller) Eventually(t *testing.T, status int) Reply {
	t.Helper()
	var got Reply
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = c.Get("https://api.test/"); got.Status == status {
			return got
		}
	}
	t.Fatalf("still %d, want %d", got.Status, status)
	return got
}
