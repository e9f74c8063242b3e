//go:build unix

package testtool

// The benchmarks read CPU time, which unlike elapsed time does not count what
// other processes do.

import (
	mathrand "math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"
)

// CPUTime returns the CPU time that this process has spent so far, in user and
// system mode.
func CPUTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// Measure reports the CPU time and the allocations of one operation.
func Measure(b *testing.B, operation func(i int)) {
	b.ReportAllocs()
	start := CPUTime(b)
	for i := 0; b.Loop(); i++ {
		operation(i)
	}
	b.ReportMetric(float64((CPUTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// Contender is one of several ways to do the same thing.
type Contender struct {
	Name string
	// Turn does it several times and returns the CPU time of one.
	Turn func() time.Duration
}

// Repeated returns a Contender that runs in this process. A turn takes a few
// milliseconds.
func Repeated(b *testing.B, name string, operation func(i int)) Contender {
	done := 0
	turn := func(times int) time.Duration {
		start := CPUTime(b)
		for range times {
			operation(done)
			done++
		}
		return CPUTime(b) - start
	}
	times := 1
	for turn(times) < 5*time.Millisecond {
		times *= 2
	}
	return Contender{name, func() time.Duration { return turn(times) / time.Duration(times) }}
}

// Compare lets the contenders take turns in random order, so that other load on the
// machine affects all of them equally. One iteration is a round of that many turns
// for each contender. Compare reports the median CPU time of each contender over the
// rounds, and the median ratio of the first to each of the others.
func Compare(b *testing.B, turns int, contenders ...Contender) {
	spent := make([][]float64, len(contenders))
	ratios := make([][]float64, len(contenders))
	for b.Loop() {
		sums := make([]time.Duration, len(contenders))
		for range turns {
			for _, i := range mathrand.Perm(len(contenders)) {
				sums[i] += contenders[i].Turn()
			}
		}
		for i, sum := range sums {
			spent[i] = append(spent[i], float64(sum.Nanoseconds())/float64(turns))
			ratios[i] = append(ratios[i], float64(sums[0])/float64(sum))
		}
	}
	b.ReportMetric(0, "ns/op") // the duration of a round is meaningless
	for i, contender := range contenders {
		b.ReportMetric(median(spent[i]), contender.Name+"-cpu-ns")
		if i > 0 {
			b.ReportMetric(median(ratios[i]), "vs-"+contender.Name)
			b.ReportMetric(slices.Min(ratios[i]), "vs-"+contender.Name+"-min")
			b.ReportMetric(slices.Max(ratios[i]), "vs-"+contender.Name+"-max")
		}
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
