package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// heapFloor is the heap up to which garbage is not looked for: it is what a gateway
	// with full caches and a wide request has anyway.
	heapFloor = 128 << 20
	// garbageShare is how much garbage there may be above the floor, in percent. What
	// requests read are large, but few objects, which are cheaper to look at often than
	// to let double the heap.
	garbageShare = 12
	// looseBytes are what the process may keep besides its heap, most of it free memory
	// that it did not give back yet.
	looseBytes = 48 << 20
	// programBytes are those that the memory limit does not count.
	programBytes = 24 << 20
)

// tuneCollector lets the garbage collector begin when the heap has reached the floor,
// and later by what was alive when it last ended; free memory is given back accordingly.
func tuneCollector() {
	most := debug.SetMemoryLimit(-1) - programBytes
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var adjust func(*gcCycle)
	adjust = func(c *gcCycle) {
		metrics.Read(live)
		percent, limit := collectAt(live[0].Value.Uint64())
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
func collectAt(live uint64) (percent int, limit int64) {
	const least = 4 << 20 // the runtime reckons with no smaller heap
	live = min(max(live, least), math.MaxInt64/garbageShare)
	goal := max(heapFloor, live+live*garbageShare/100)
	return int((goal - live) * 100 / live), int64(goal + looseBytes)
}
