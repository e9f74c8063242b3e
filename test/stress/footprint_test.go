package stress_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"
)

// footprint is what a process holds.
type footprint struct {
	goroutines, files int
	heap              uint64
}

func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %.1f MB of heap", f.goroutines, f.files, float64(f.heap)/1e6)
}

const (
	// slackFiles are files of connections that are being closed, and slackHeap is what
	// the heap may vary by: caches that are fuller, and what the runtime keeps.
	slackFiles = 4
	slackHeap  = 8 << 20
)

// quiet waits until no configuration but the last one holds anything, and then until
// the process holds no more than before. Before is zero if that is not known yet.
func (s *stress) quiet(t *testing.T, before footprint) (now footprint) {
	t.Helper()
	s.Logs.Forget()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	var last footprint
	err := s.await("no more is held than before", func() bool {
		if configurations() > 1 {
			return false
		}
		runtime.GC()
		runtime.GC()
		last, now = now, measure(t)
		if before.goroutines == 0 { // until nothing changes
			time.Sleep(100 * time.Millisecond)
			return now.goroutines == last.goroutines && now.files == last.files
		}
		return now.goroutines <= before.goroutines && now.files <= before.files+slackFiles && now.heap <= before.heap+slackHeap
	}, time.Minute)
	if err != nil {
		t.Errorf("%v: %s, before %s, %d configurations\n%s", err, now, before, configurations(), stacks())
	}
	return now
}

func measure(t *testing.T) (f footprint) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil && runtime.GOOS == "linux" {
		t.Fatal(err)
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return footprint{runtime.NumGoroutine(), len(open), memory.HeapAlloc}
}

// configurations returns how many configurations still answer requests. Each has a
// goroutine that waits for its end.
func configurations() int { return bytes.Count(stacks(), []byte("(*App).endLate(")) }

func stacks() []byte {
	text := make([]byte, 16<<20)
	return text[:runtime.Stack(text, true)]
}
