package directory

import "time"

const (
	// restTime is how long a long update rests when it gives way. The runtime makes a
	// millisecond of it if there is nothing else to do.
	restTime = 150 * time.Microsecond
	// minWork and maxWork are how long it works before, at least and at most: a request
	// that arrives may have to wait that long. In between, it works restShare times
	// shorter than it has rested.
	minWork, maxWork = 60 * time.Microsecond, 250 * time.Microsecond
	restShare        = 3
	// paceSteps is after how many steps it looks at the clock.
	paceSteps = 4
	// enoughProcessors are so many that an update and the garbage collector, which takes
	// a quarter of them, do not keep all.
	enoughProcessors = 4
)

// pace has a long update give way to requests. A goroutine that does not wait for
// anything keeps its processor for 10 ms, and if the garbage collector keeps the other
// ones meanwhile, nobody looks whether a request has arrived. Yielding is not enough,
// because the runtime looks at the network only if nothing can run.
type pace struct {
	steps  int
	began  time.Time     // when it began to work
	rested time.Duration // before that
}

// step is called after each piece of work that takes some microseconds. It does nothing
// if p is nil.
func (p *pace) step() {
	if p == nil {
		return
	}
	if p.steps++; p.steps%paceSteps != 0 {
		return
	}
	now := time.Now()
	if now.Sub(p.began) < min(max(p.rested/restShare, minWork), maxWork) {
		return
	}
	time.Sleep(restTime)
	p.began = time.Now()
	p.rested = p.began.Sub(now)
}
