// Package garbage tells the garbage collector what memory is for.
//
// The heap of a gateway or a compactor is few and large pieces of objects: looking for garbage in a small one costs work that
// frees nothing that is missed, and letting a large one double costs as much memory again. It stands beside the floors: imported
// by cmd only, it imports nothing of ours.
package garbage

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Budget says how much garbage may pile up.
type Budget struct {
	// Floor is the heap in bytes up to which garbage is not looked for: what a busy process has anyway.
	Floor uint64
	// Share is how much garbage there may be above the floor, in percent of what is alive.
	Share uint64
	// Loose is what the process may keep besides its heap, in bytes, most of it free memory that it did not give back yet.
	Loose uint64
}

// programBytes are those that the memory limit does not count.
const programBytes = 24 << 20

// Tune lets the garbage collector begin when the heap has reached the floor, and later by what was alive when it last
// ended; free memory is given back accordingly. It has no effect where the operator set GOGC.
func (b Budget) Tune() {
	if os.Getenv("GOGC") != "" {
		return
	}
	most := debug.SetMemoryLimit(-1) - programBytes
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var adjust func(*gcCycle)
	adjust = func(c *gcCycle) {
		metrics.Read(live)
		percent, limit := b.collectAt(live[0].Value.Uint64())
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(min(limit, most))
		runtime.SetFinalizer(c, adjust) // called after the next one
	}
	adjust(new(gcCycle))
}

// gcCycle is garbage, so that its finalizer runs after each collection.
type gcCycle struct{ _ *gcCycle }

// collectAt says how much garbage there may be beside a live heap, in percent of it,
// and what all memory of the process should stay below.
func (b Budget) collectAt(live uint64) (percent int, limit int64) {
	const least = 4 << 20 // the runtime reckons with no smaller heap
	live = min(max(live, least), math.MaxInt64/(100+b.Share))
	goal := max(b.Floor, live+live*b.Share/100)
	return int((goal - live) * 100 / live), int64(goal + b.Loose)
}
