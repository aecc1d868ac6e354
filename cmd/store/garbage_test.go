package main

import "testing"

func TestGarbageIsLookedForAtTheFloorAndThenInProportion(t *testing.T) {
	for live, want := range map[uint64]uint64{
		0:              heapFloor,
		20 << 20:       heapFloor,
		heapFloor / 2:  heapFloor,
		heapFloor:      heapFloor * (100 + garbageShare) / 100,
		10 * heapFloor: 10 * heapFloor * (100 + garbageShare) / 100,
	} {
		percent, limit := collectAt(live)
		got := max(live, 4<<20) * uint64(100+percent) / 100
		if got > want || got < want*95/100 {
			t.Errorf("with %d MiB alive the collector begins at %d MiB, want %d", live>>20, got>>20, want>>20)
		}
		if limit != int64(want+looseBytes) {
			t.Errorf("with %d MiB alive the limit is %d MiB, want %d", live>>20, limit>>20, (want+looseBytes)>>20)
		}
	}
}
