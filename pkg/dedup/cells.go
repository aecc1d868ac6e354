package dedup

import "math"

// cells goes through the cells in which replicas have samples.
type cells struct {
	reps []*replica
	next []int // the first unit of each replica that is not done
	done int64 // what lies before is
	cell cell  // the current one; its memory is used again
}

func (s *cells) begin(reps []*replica) {
	s.reps, s.next, s.done = reps, append(s.next[:0], make([]int, len(reps))...), math.MinInt64
}

// advance returns the next cell, which is valid until it is called again, or nil at the end.
func (s *cells) advance() (*cell, error) {
	for s.done < math.MaxInt64 {
		start, found, err := s.start()
		if err != nil || !found {
			return nil, err
		}
		c := &s.cell
		*c = cell{start: start, end: saturate(start, Cell), reps: s.reps, tracks: c.tracks[:0], measured: c.measured[:0], memory: c.memory}
		for i, r := range s.reps {
			k, err := newTrack(i, r, s.next[i], max(start, s.done), c.end)
			if err != nil {
				return nil, err
			}
			if k.lo < k.hi {
				c.tracks = append(c.tracks, k)
			}
		}
		s.done = c.end
		if len(c.tracks) > 0 {
			return c, nil
		}
	}
	return nil, nil
}

// start is that of the cell in which the earliest sample lies that is not done.
func (s *cells) start() (start int64, found bool, err error) {
	first := int64(math.MaxInt64)
	for i, r := range s.reps {
		for s.next[i] < len(r.units) && r.units[s.next[i]].maxTime < s.done {
			s.next[i]++
		}
		t, more, err := r.after(s.next[i], s.done)
		if err != nil {
			return 0, false, err
		}
		if more {
			first, found = min(first, t), true
		}
	}
	return cellStart(first), found, nil
}

// after is the time of the first sample at t or later, in unit i or behind it.
func (r *replica) after(i int, t int64) (at int64, found bool, err error) {
	for ; i < len(r.units); i++ {
		u := &r.units[i]
		if u.minTime >= t {
			return u.minTime, true, nil
		}
		if err := r.read(i); err != nil {
			return 0, false, err
		}
		if n := position(r, u, t); n < u.n {
			return r.s.T[u.at+n], true, nil
		}
	}
	return 0, false, nil
}
