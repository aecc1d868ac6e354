package garbage

import "testing"

func TestGarbageIsLookedForAtTheFloorAndThenInProportion(t *testing.T) {
	const floor = 128 << 20
	b := Budget{Floor: floor, Share: 12, Loose: 48 << 20}
	for live, want := range map[uint64]uint64{
		0:          floor,
		20 << 20:   floor,
		floor / 2:  floor,
		floor:      floor * 112 / 100,
		10 * floor: 10 * floor * 112 / 100,
	} {
		percent, limit := b.collectAt(live)
		got := max(live, 4<<20) * uint64(100+percent) / 100
		if got > want || got < want*95/100 {
			t.Errorf("with %d MiB alive the collector begins at %d MiB, want %d", live>>20, got>>20, want>>20)
		}
		if limit != int64(want+b.Loose) {
			t.Errorf("with %d MiB alive the limit is %d MiB, want %d", live>>20, limit>>20, (want+b.Loose)>>20)
		}
	}
}
