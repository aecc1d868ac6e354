package pagecache

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"syscall"
	"time"
)

// write is the writer's goroutine: it alone changes files.
func (d *disk) write() {
	defer close(d.done)
	for {
		d.mu.Lock()
		for len(d.queue) == 0 && !d.closed {
			d.more.Wait()
		}
		jobs := d.queue
		d.queue, d.queued, d.writing = nil, 0, true
		d.mu.Unlock()
		for _, j := range jobs {
			d.writeJob(j)
			j.held.release()
		}
		d.writeStaged()
		d.mu.Lock()
		d.writing = false
		clear(d.forgot)
		d.idle.Broadcast()
		done := d.closed && len(d.queue) == 0
		d.mu.Unlock()
		d.publish()
		if done {
			return
		}
	}
}

// writeJob stages one record, unless the disk is left alone.
func (d *disk) writeJob(j job) {
	if len(j.extents) == 0 || d.pausing() {
		return
	}
	if now := time.Now(); now.Sub(d.looked) > lookInterval {
		d.look()
		d.looked = now
	}
	for d.tooMuch(int64(len(d.staged.data)) + j.size()) {
		d.evict()
	}
	d.mu.Lock()
	g := fresh
	if d.ghosts.remove(j.page.diskKey()) {
		g = kept
	}
	d.mu.Unlock()
	if d.staged.generation != g {
		d.writeStaged()
	}
	var p place
	d.staged.generation = g
	d.staged.data, p = encodeRecord(d.staged.data, j.page, j.extents)
	d.staged.places = append(d.staged.places, p)
	if int64(len(d.staged.data)) >= min(goodWrite, d.segment/segmentWrites) {
		d.writeStaged()
	}
}

// writeStaged writes the staged records.
func (d *disk) writeStaged() {
	if len(d.staged.places) > 0 {
		d.judge(d.append(&d.staged))
	}
	d.staged.data, d.staged.places = d.staged.data[:0], d.staged.places[:0]
}

// append writes records to the active segment of their generation.
func (d *disk) append(all *staged) error {
	s, err := d.ready(all.generation)
	if err != nil {
		return err
	}
	pos, err := s.append(all.data)
	if err != nil {
		return err
	}
	d.metrics.diskWritten.Add(float64(len(all.data)))
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range all.places {
		if !d.forgot[p.key] {
			s.records = append(s.records, d.index.add(row{p, uint32(pos)}, s.number))
		}
		pos += int64(p.length)
	}
	return nil
}

// appendMoved writes a record of an older segment to the active one of the kept.
func (d *disk) appendMoved(c candidate, data []byte) error {
	s, err := d.ready(kept)
	if err != nil {
		return err
	}
	pos, err := s.append(data)
	if err != nil {
		return err
	}
	d.metrics.diskWritten.Add(float64(len(data)))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.index.is(c.number, c.record) { // else it was forgotten meanwhile
		r := &d.index.records[c.number]
		r.pos, r.segment = uint32(pos), s.number
		s.records = append(s.records, c.number)
	}
	return nil
}

// judge starts a pause after an error and ends one after none, and says so once.
func (d *disk) judge(err error) {
	d.mu.Lock()
	failed := !d.retryAt.IsZero()
	d.retryAt = time.Time{}
	if err != nil {
		d.retryAt = time.Now().Add(diskPause)
	}
	d.mu.Unlock()
	if err == nil {
		if failed {
			d.log.Info("pages are kept on disk again", "dir", d.dir)
			d.metrics.diskUp.Set(1)
		}
		return
	}
	if !failed {
		d.log.Warn("pages are kept in memory only", "dir", d.dir, "retry_in", diskPause, "err", err)
		d.metrics.diskUp.Set(0)
	}
	d.metrics.diskErrors.Inc()
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		d.room = d.size() * 3 / 4 // others need the room; it grows again with each segment
	}
}

// ready returns the active segment of a generation, a new one if the last is full.
func (d *disk) ready(g generation) (*segment, error) {
	s := d.active[g]
	if s != nil && (s.size >= d.segment || len(s.records) >= d.mostRecords()/segmentShare) {
		if err := d.finish(g); err != nil {
			return nil, err
		}
		s = nil
	}
	if s != nil {
		return s, nil
	}
	s, err := createSegment(d.dir, d.next, g)
	if errors.Is(err, os.ErrNotExist) { // somebody removed the directory
		if err = os.MkdirAll(d.dir, 0o750); err == nil {
			s, err = createSegment(d.dir, d.next, g)
		}
	}
	d.next++
	if err != nil {
		return nil, err
	}
	d.room = min(d.limit, d.room+d.segment)
	d.active[g] = s
	d.mu.Lock()
	defer d.mu.Unlock()
	d.segments[s.number] = s
	return s, nil
}

// finish seals the active segment of a generation. One that cannot be is left as it is:
// a restart will look for its records.
func (d *disk) finish(g generation) error {
	s := d.active[g]
	d.active[g] = nil
	d.sealed[g] = append(d.sealed[g], s)
	d.mu.Lock()
	s.records = d.index.of(s.number, s.records)
	rows := make([]row, len(s.records))
	for i, n := range s.records {
		rows[i] = d.index.records[n].row
	}
	d.mu.Unlock()
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.pos, b.pos) })
	return s.seal(rows)
}

// mostRecords is how many records the limit allows.
func (d *disk) mostRecords() int { return int(d.limit / recordCharge) }

// size is what all segments take, the tables included that are still to be written.
func (d *disk) size() (n int64) {
	for g := range d.sealed {
		for _, s := range d.sealed[g] {
			n += s.size
		}
		if s := d.active[g]; s != nil {
			n += s.size + int64(len(s.records))*tableRow + trailer
		}
	}
	return n
}

// tooMuch reports whether something has to go before n bytes come. One segment's room is kept
// free for records that move.
func (d *disk) tooMuch(n int64) bool {
	if len(d.sealed[fresh])+len(d.sealed[kept]) == 0 {
		return false
	}
	d.mu.Lock()
	live := d.index.live
	d.mu.Unlock()
	return d.size()+n+tableRow > d.room-d.segment-2*maxRecord || live+len(d.staged.places) >= d.mostRecords()
}

// evict removes the oldest segment of a generation: a fresh one if those have more than a
// tenth of the room. Records that were used are kept, of a kept segment up to half.
func (d *disk) evict() {
	g := kept
	if f := d.sealed[fresh]; len(f) > 0 && (int64(len(f))*d.segment > d.room/10 || len(d.sealed[kept]) == 0) {
		g = fresh
	}
	if len(d.sealed[g]) == 0 {
		g = fresh
	}
	s := d.sealed[g][0]
	d.mu.Lock()
	var stay []candidate
	left := s.size
	if g == kept {
		left /= 2
	}
	for _, i := range d.index.of(s.number, s.records) {
		r := d.index.records[i]
		if left -= int64(r.length); r.uses > 0 && left >= 0 {
			stay = append(stay, candidate{i, r, s.file})
			continue
		}
		d.index.remove(i)
		if g == fresh {
			d.ghosts.add(r.key, struct{}{}, d.index.live)
		}
	}
	d.mu.Unlock()
	for _, c := range stay {
		d.move(c, g)
	}
	d.sealed[g] = d.sealed[g][1:]
	d.remove(s)
	d.metrics.diskEvictions.Inc()
}

// move copies a record to the kept segments, as it is: its checksum goes with it.
func (d *disk) move(c candidate, from generation) {
	data := make([]byte, c.length)
	_, err := c.file.ReadAt(data, int64(c.pos))
	d.mu.Lock()
	gone := !d.index.is(c.number, c.record)
	if r := &d.index.records[c.number]; !gone {
		if r.uses--; from == fresh {
			r.uses = 0
		}
	}
	d.mu.Unlock()
	if gone || err != nil {
		return
	}
	if err := d.appendMoved(c, data); err != nil {
		d.judge(err)
	}
}

// remove closes and removes a segment and forgets what is left of its records.
func (d *disk) remove(s *segment) {
	d.mu.Lock()
	for _, i := range d.index.of(s.number, s.records) {
		d.index.remove(i)
	}
	delete(d.segments, s.number)
	d.mu.Unlock()
	s.file.Close()
	os.Remove(s.path) // if it stays, the next start removes it or uses it
}

// look drops segments that somebody removed, so that their room is free indeed.
func (d *disk) look() {
	there := func(s *segment) bool {
		now, err := os.Stat(s.path)
		if err != nil {
			return false
		}
		mine, err := s.file.Stat()
		return err == nil && os.SameFile(now, mine)
	}
	for g := range d.sealed {
		d.sealed[g] = slices.DeleteFunc(d.sealed[g], func(s *segment) bool {
			if there(s) {
				return false
			}
			d.remove(s)
			return true
		})
		if s := d.active[g]; s != nil && !there(s) {
			d.active[g] = nil
			d.remove(s)
		}
	}
}

// publish shows what the disk holds.
func (d *disk) publish() {
	d.mu.Lock()
	records := d.index.live
	d.mu.Unlock()
	d.metrics.diskBytes.Set(float64(d.size()))
	d.metrics.diskRecords.Set(float64(records))
}
