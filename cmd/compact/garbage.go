package main

import (
	"os"
	"runtime/debug"
)

// garbageShare is how much garbage there may be beside the live heap, in percent of it.
// What jobs hold are few and large pieces of files, without pointers: looking at them
// often costs next to nothing, and letting the heap double would cost as much again.
const garbageShare = 30

// tuneCollector has no effect where the operator set GOGC.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbageShare)
	}
}
