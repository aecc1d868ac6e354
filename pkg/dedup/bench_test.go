package dedup

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/internal/cputest"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// peerProgram names a program outside of this repository, called with the
// directories of the blocks of replicas a and b. It prints one line of JSON: the
// CPU time of deduplicating all series once, the samples that this gave, and their digest.
const peerProgram = "VARVE_PEER_DEDUP"

// shape is what two replicas have scraped.
type shape struct {
	name       string
	histograms bool
	mixed      bool    // counters that rise seldom, and gauges that never change, beside busy ones
	missed     float64 // part of its scrapes that the first replica lacks
	burst      int     // how many of them in a row
	failed     bool    // lacking a sample, it has a stale marker
}

// BenchmarkDedup measures CPU time, which other work on the machine disturbs
// less, and least where least of it was taken: for a sample of the result as chunks, as samples from a Reader, and of chunks that are decoded behind
// it. A peer's time, the least of five runs, is that for its result as samples, which is compared with the Reader's.
func BenchmarkDedup(b *testing.B) {
	for _, s := range []shape{
		{name: "counters/healthy", burst: 1},
		{name: "counters/holes", missed: 0.02, burst: 10},
		{name: "counters/misses", missed: 0.02, burst: 1, failed: true},
		{name: "mixed/healthy", mixed: true, burst: 1},
		{name: "mixed/holes", mixed: true, missed: 0.02, burst: 10},
		{name: "histograms/healthy", histograms: true, burst: 1},
		{name: "histograms/holes", histograms: true, missed: 0.02, burst: 10},
	} {
		b.Run(s.name, func(b *testing.B) {
			dirs := s.blocks(b)
			pairs := readPairs(b, dirs)
			var d deduplicator // as in a set, which keeps it from series to series
			reader := NewReader(Defaults())
			asChunks, asSamples, decoding, samples := math.Inf(1), math.Inf(1), math.Inf(1), 0
			var s chunkcodec.Samples
			var decoder chunkcodec.Decoder
			b.ReportAllocs()
			for b.Loop() {
				asChunks = min(asChunks, cpuOfRound(b, pairs, func(p *pair) (err error) {
					p.out, err = d.chunks(&Group{replicas: p.in}, Defaults())
					return err
				}))
				decoding = min(decoding, cpuOfRound(b, pairs, func(p *pair) error {
					s.Reset()
					decoder.Reset()
					for _, c := range p.out {
						if err := decoder.Decode(c.Encoding, c.Data, &s); err != nil {
							return err
						}
					}
					return nil
				}))
				samples = 0
				asSamples = min(asSamples, cpuOfRound(b, pairs, func(p *pair) error {
					s.Reset()
					err := reader.Append(&s, &Group{replicas: p.in})
					samples += s.Len()
					return err
				}))
			}
			perSample := float64(rounds) / float64(samples)
			asChunks, decoding, asSamples = asChunks*perSample, decoding*perSample, asSamples*perSample
			b.ReportMetric(asChunks, "chunks-cpu-ns/sample")
			b.ReportMetric(asChunks+decoding, "decoded-cpu-ns/sample")
			b.ReportMetric(asSamples, "samples-cpu-ns/sample")
			if program := os.Getenv(peerProgram); program != "" {
				besidePeer(b, program, dirs, pairs, asSamples)
			}
		})
	}
}

// rounds is how often a benchmark does the same before it looks at the clock, which is no measure of one: see cputest.
const rounds = 100

// cpuOfRound is the CPU time of one round over all pairs, in nanoseconds.
func cpuOfRound(b *testing.B, pairs []pair, do func(*pair) error) float64 {
	b.Helper()
	start := cputest.Used(b)
	for range rounds {
		for i := range pairs {
			if err := do(&pairs[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
	return float64(cputest.Used(b)-start) / rounds
}

// besidePeer runs the peer on the same blocks.
func besidePeer(b *testing.B, program string, dirs [2]string, pairs []pair, ours float64) {
	b.Helper()
	var peer struct {
		CPU     int64 `json:"cpu_ns"`
		Samples int64
		Hash    string
	}
	theirs := math.Inf(1)
	for range 5 {
		out, err := exec.CommandContext(b.Context(), program, dirs[0], dirs[1]).Output()
		if err != nil {
			b.Fatalf("run %s: %v", program, err)
		}
		if err := json.Unmarshal(out, &peer); err != nil || peer.Samples == 0 {
			b.Fatalf("%s printed %q: %v", program, out, err)
		}
		theirs = min(theirs, float64(peer.CPU)/float64(peer.Samples))
	}
	b.ReportMetric(theirs, "peer-cpu-ns/sample")
	b.ReportMetric(theirs/ours, "times-faster")
	samples, sum := digest(b, pairs)
	b.Logf("%d samples, the peer's %d; equal: %t", samples, peer.Samples, sum == peer.Hash)
}

// pair is a series of two replicas, and what it was made into.
type pair struct {
	labels labels.Labels
	in     [][]series.Chunk
	out    []series.Chunk
}

// blocks writes a block of twelve hours for each replica: 60 counters, or 12
// histograms, scraped every 15 s. The replicas scrape three seconds apart. As Prometheus
// has it, times are exact but for scrapes that begin more than 2 ms late.
func (s shape) blocks(b *testing.B) (dirs [2]string) {
	b.Helper()
	count := 60
	if s.histograms {
		count = 12
	}
	for replica := range dirs {
		r := rand.New(rand.NewPCG(31, uint64(replica)))
		spec := blocktest.Spec{Labels: map[string]string{"replica": string(rune('a' + replica))}}
		for i := range count {
			one := blocktest.Series{Labels: labels.FromStrings(labels.MetricName, "requests_total", "instance", strconv.Itoa(i))}
			process := rand.New(rand.NewPCG(32, uint64(i))) // the same for both replicas
			total, buckets, down := 0.0, [fleetBuckets]int64{}, 0
			for at := 20*Cell + int64(2_000+3_000*replica); at < 26*Cell; at += 15_000 {
				if rise := float64(process.IntN(40)); !s.mixed || i%3 == 0 || i%3 == 1 && process.IntN(10) == 0 {
					total += rise
				}
				for range 8 {
					buckets[min(int(process.ExpFloat64()*6), fleetBuckets-1)]++
				}
				if replica == 0 && r.Float64() < s.missed/float64(s.burst) {
					down = s.burst
				}
				p := blocktest.Sample{T: at, V: total}
				if process.IntN(50) == 0 {
					p.T += 3 + process.Int64N(20)
				}
				down--
				switch {
				case down >= 0 && !s.failed:
					continue
				case down >= 0:
					p.V = math.Float64frombits(value.StaleNaN)
				case s.histograms:
					p.H = observed(&buckets, new([fleetBuckets]int64))
				}
				one.Samples = append(one.Samples, p)
			}
			spec.Series = append(spec.Series, one)
		}
		dirs[replica], _ = blocktest.Dir(b, spec)
	}
	return dirs
}

// readPairs reads the chunks of two blocks with the same series.
func readPairs(b *testing.B, dirs [2]string) (pairs []pair) {
	b.Helper()
	for _, dir := range dirs {
		block, err := tsdb.OpenBlock(nil, dir, nil, nil)
		must(b, err)
		defer func() { must(b, block.Close()) }()
		entries, err := block.Index()
		must(b, err)
		defer func() { must(b, entries.Close()) }()
		data, err := block.Chunks()
		must(b, err)
		defer func() { must(b, data.Close()) }()
		name, value := index.AllPostingsKey()
		postings, err := entries.Postings(b.Context(), name, value)
		must(b, err)
		for i := 0; postings.Next(); i++ {
			var scratch labels.ScratchBuilder
			var metas []chunks.Meta
			must(b, entries.Series(postings.At(), &scratch, &metas))
			if i == len(pairs) {
				pairs = append(pairs, pair{labels: scratch.Labels()})
			}
			var list []series.Chunk
			for _, m := range metas {
				c, _, err := data.ChunkOrIterable(m)
				must(b, err)
				list = append(list, series.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Encoding: c.Encoding(), Data: slices.Clone(c.Bytes())})
			}
			pairs[i].in = append(pairs[i].in, list)
		}
		must(b, postings.Err())
	}
	return pairs
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// digest is xxhash over the labels of each series, every name and value followed by 0xff, and over its
// samples: little-endian words of the time and the bits of the value, for a histogram of its
// parts as float64: count, sum, zero count, schema; offset and length of each span; each bucket.
func digest(b *testing.B, pairs []pair) (samples int64, sum string) {
	b.Helper()
	h := xxhash.New()
	var buf []byte
	for _, p := range pairs {
		buf = buf[:0]
		p.labels.Range(func(l labels.Label) { buf = fmt.Appendf(buf, "%s\xff%s\xff", l.Name, l.Value) })
		var s chunkcodec.Samples
		for _, c := range p.out {
			must(b, decodeInto(&s, c))
		}
		for i, t := range s.T {
			buf = binary.LittleEndian.AppendUint64(buf, uint64(t))
			if s.Type(i) == chunkenc.ValHistogram {
				buf = appendHistogram(buf, s.H[i].ToFloat(nil))
				continue
			}
			buf = binary.LittleEndian.AppendUint64(buf, math.Float64bits(s.V[i]))
		}
		samples += int64(s.Len())
		if _, err := h.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	return samples, fmt.Sprintf("%016x", h.Sum64())
}

func appendHistogram(dst []byte, h *histogram.FloatHistogram) []byte {
	word := func(v uint64) { dst = binary.LittleEndian.AppendUint64(dst, v) }
	for _, v := range []float64{h.Count, h.Sum, h.ZeroCount} {
		word(math.Float64bits(v))
	}
	word(uint64(h.Schema))
	for _, s := range slices.Concat(h.PositiveSpans, h.NegativeSpans) {
		word(uint64(s.Offset))
		word(uint64(s.Length))
	}
	for _, v := range slices.Concat(h.PositiveBuckets, h.NegativeBuckets) {
		word(math.Float64bits(v))
	}
	return dst
}
