package pagecache

import "testing"

func TestAnIdleBufferServesShorterReadsToo(t *testing.T) {
	const size = 1 << 20
	for n, reused := range map[int64]bool{size: true, 600 << 10: true, size / 2: true, 400 << 10: false, size + 1: false} {
		var p buffers
		p.put(make([]byte, size))
		if got := p.get(n); int64(len(got)) != n || (cap(got) == size) != reused {
			t.Errorf("%d bytes in %d for %d: the idle buffer of %d is used: %t, wanted: %t", len(got), cap(got), n, size, cap(got) == size, reused)
		}
		if p.size != 0 == reused {
			t.Errorf("for %d bytes: %d are idle", n, p.size)
		}
	}
}
