package compact

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/varve-io/varve/pkg/blockio"
)

// incidence says which series have which labels, in a few numbers that do not depend
// on the order in which one hears of it: from the series, or from the postings, which
// are the same the other way round. Random sums of 64 bits differ where either does.
type incidence struct {
	series uint64 // of the places of all series
	labels uint64 // of the places and labels of all series
}

// scatter is the finalizer of splitmix64.
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// scatterSeries is for the series whose entry is at ref times seriesAlign.
func scatterSeries(ref uint32) uint64 { return scatter(uint64(ref)) }

// scatterLabel is odd, so that multiplying by it loses nothing.
func scatterLabel(name, value uint32) uint64 { return scatter(uint64(name)<<32|uint64(value)) | 1 }

// addSeries takes a series from its entry; places are of its names and values in turn.
func (c *incidence) addSeries(at int64, places []uint32) {
	ref := scatterSeries(uint32(at / seriesAlign))
	c.series += ref
	for i := 0; i+1 < len(places); i += 2 {
		c.labels += ref * scatterLabel(places[i], places[i+1])
	}
}

// postings reads the lists of postings and the table that says whose they are, with
// their checksums, and gives what they say.
func (s *source) postings(ctx context.Context) (incidence, error) {
	lists, err := s.readLists(ctx)
	if err != nil {
		return incidence{}, fmt.Errorf("postings: %w", err)
	}
	c, err := s.readTable(ctx, lists)
	if err != nil {
		return incidence{}, fmt.Errorf("table of postings: %w", err)
	}
	return c, nil
}

// postingsList is a list of series of which the label is not known yet.
type postingsList struct {
	at  int64
	sum uint64
}

// readLists reads one list after the other.
func (s *source) readLists(ctx context.Context) (lists []postingsList, err error) {
	const align = 4
	for at := s.lists; at < s.table; {
		at = (at + align - 1) / align * align
		list := postingsList{at: at}
		if list.sum, at, err = s.readList(ctx, at); err != nil {
			return nil, fmt.Errorf("the list at %d: %w", list.at, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// readList sums the series of a list up, and gives where it ends.
func (s *source) readList(ctx context.Context, at int64) (sum uint64, end int64, err error) {
	r, err := openSection(ctx, s.files.Index, at)
	if err != nil {
		return 0, 0, err
	}
	last := int64(-1)
	for left := int64(r.be32()); left > 0 && r.err == nil; {
		piece := r.take(min(4*left, pieceSize))
		for ; len(piece) > 0; piece = piece[4:] {
			ref := binary.BigEndian.Uint32(piece)
			if at := int64(ref) * seriesAlign; int64(ref) <= last || at < s.begin || at >= s.end {
				return 0, 0, damagedf(indexUnreadable, "series %d comes after %d", ref, last)
			}
			last = int64(ref)
			sum += scatterSeries(ref)
			left--
		}
	}
	end, err = r.close()
	return sum, end, err
}

// readTable reads the labels of the lists, which come in their order.
func (s *source) readTable(ctx context.Context, lists []postingsList) (c incidence, err error) {
	const keys = 2
	r, err := openSection(ctx, s.files.Index, s.table)
	if err != nil {
		return c, err
	}
	known := s.symbols.Len()
	last := [keys]string{}
	n := r.be32()
	for i := uint32(0); i < n && r.err == nil; i++ {
		if r.uvarint() != keys && r.err == nil {
			return c, damagedf(indexUnreadable, "entry %d is not of a name and a value", i)
		}
		label := [keys]string{r.text(), r.text()}
		at := r.uvarint()
		switch {
		case r.err != nil:
		case int(i) >= len(lists) || at != uint64(lists[i].at):
			return c, damagedf(indexUnreadable, "entry %d of %q leads to %d, where no list begins", i, label, at)
		case i == 0 && label == last: // of all series
			c.series = lists[i].sum
		case label[0] < last[0] || label[0] == last[0] && label[1] <= last[1]:
			return c, damagedf(indexUnreadable, "entry %d of %q comes after %q", i, label, last)
		default:
			name, _ := s.symbols.Add(label[0])
			value, err := s.symbols.Add(label[1])
			if err != nil || s.symbols.Len() > known {
				return c, damagedf(indexUnreadable, "entry %d of %q is not among the symbols", i, label)
			}
			c.labels += lists[i].sum * scatterLabel(name, value)
		}
		last = label
	}
	if _, err := r.close(); err != nil {
		return c, err
	}
	if int(n) != len(lists) {
		return c, damagedf(indexUnreadable, "it has %d entries for %d lists", n, len(lists))
	}
	return c, nil
}

// pieceSize is how much of a section is asked for at a time.
const pieceSize = 4096

// section is a part of an index that begins with its length and ends with its checksum.
// What it gives after an error is zero.
type section struct {
	ctx     context.Context //nolint:containedctx // lives no longer than the call that opened it
	in      *blockio.Object
	at, end int64 // of its content
	ahead   []byte
	sum     uint32
	err     error
}

func openSection(ctx context.Context, in *blockio.Object, at int64) (*section, error) {
	head, err := in.At(ctx, at, 4)
	if err != nil {
		return nil, err
	}
	s := &section{ctx: ctx, in: in, at: at + 4}
	s.end = s.at + int64(binary.BigEndian.Uint32(head))
	if s.end > in.Size()-crc32.Size {
		return nil, damagedf(indexUnreadable, "%d bytes at %d reach beyond the end", s.end-s.at, at)
	}
	return s, nil
}

// peek gives the next bytes, n at most.
func (s *section) peek(n int64) []byte {
	if n = min(n, s.end-s.at); int64(len(s.ahead)) < n && s.err == nil {
		s.ahead, s.err = s.in.At(s.ctx, s.at, min(max(n, pieceSize), s.end-s.at))
	}
	if s.err != nil {
		return nil
	}
	return s.ahead[:n]
}

// take gives the next n bytes, or none if there are fewer.
func (s *section) take(n int64) []byte {
	b := s.peek(n)
	if int64(len(b)) < n {
		if s.err == nil {
			s.err = damagedf(indexUnreadable, "it ends early")
		}
		return nil
	}
	s.sum = crc32.Update(s.sum, crc32.MakeTable(crc32.Castagnoli), b)
	s.at += n
	s.ahead = s.ahead[n:]
	return b
}

func (s *section) be32() uint32 {
	if b := s.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (s *section) uvarint() uint64 {
	v, n := binary.Uvarint(s.peek(binary.MaxVarintLen64))
	if s.take(int64(max(n, 1))) == nil {
		return 0
	}
	return v
}

func (s *section) text() string {
	n := s.uvarint()
	if n > uint64(s.end-s.at) {
		n = uint64(s.end-s.at) + 1 // more than there is
	}
	return string(s.take(int64(n)))
}

// close reads the checksum and gives what comes behind it.
func (s *section) close() (behind int64, err error) {
	if s.err == nil && s.at != s.end {
		s.err = damagedf(indexUnreadable, "%d bytes are left at its end", s.end-s.at)
	}
	if s.err != nil {
		return 0, s.err
	}
	want, err := s.in.At(s.ctx, s.end, crc32.Size)
	if err != nil {
		return 0, err
	}
	if s.sum != binary.BigEndian.Uint32(want) {
		return 0, damagedf(indexChecksum, "wrong checksum")
	}
	return s.end + crc32.Size, nil
}
