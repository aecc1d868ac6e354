package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"golang.org/x/sync/errgroup"
)

// Replica is one generated Prometheus.
type Replica struct {
	// Labels are its external labels.
	Labels map[string]string
	// Phase is how long after each multiple of Interval it scrapes.
	Phase time.Duration
	// Outages are when it was down.
	Outages []Outage
}

// Options say what to generate.
type Options struct {
	// Start and End bound the samples; End is exclusive. Blocks begin and end at multiples of
	// BlockRange, except for the first and the last.
	Start, End time.Time
	Interval   time.Duration
	BlockRange time.Duration
	Processes  []Process
}

// samplesPerChunk is how many samples Prometheus puts into a chunk.
const samplesPerChunk = 120

// Write generates the replica's blocks below dir and returns their directories, oldest first.
func Write(ctx context.Context, dir string, r Replica, o Options) ([]string, error) {
	processes := slices.Clone(o.Processes)
	slices.SortFunc(processes, func(a, b Process) int { return labels.Compare(a.Labels, b.Labels) })

	var dirs []string
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	width := o.BlockRange.Milliseconds()
	for from := o.Start.UnixMilli(); from < o.End.UnixMilli(); {
		to := min((from/width+1)*width, o.End.UnixMilli())
		id, err := blockID(r, from)
		if err != nil {
			return nil, err
		}
		b := blockSpec{id: id, dir: filepath.Join(dir, id.String()), from: from, to: to}
		dirs = append(dirs, b.dir)
		g.Go(func() error {
			if err := b.write(ctx, r, o.Interval.Milliseconds(), processes); err != nil {
				return fmt.Errorf("generate block %s: %w", b.dir, err)
			}
			return nil
		})
		from = to
	}
	return dirs, g.Wait()
}

// blockID is the same for the same replica and time.
func blockID(r Replica, from int64) (ulid.ULID, error) {
	var id ulid.ULID
	err := id.SetTime(uint64(from))
	return id, errors.Join(err, id.SetEntropy(fmt.Appendf(nil, "%010x", labels.FromMap(r.Labels).Hash()>>24)[:10]))
}

// blockSpec is a block to write; its range is half open.
type blockSpec struct {
	id       ulid.ULID
	dir      string
	from, to int64
}

func (b blockSpec) write(ctx context.Context, r Replica, interval int64, processes []Process) error {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	iw, err := index.NewWriter(ctx, filepath.Join(b.dir, "index"))
	if err != nil {
		return err
	}
	cw, err := chunks.NewWriter(filepath.Join(b.dir, "chunks"))
	if err != nil {
		return errors.Join(err, iw.Close())
	}
	err = addSymbols(iw, processes)
	m := meta{ULID: b.id, MinTime: b.from, MaxTime: b.to, Version: 1}
	times := scrapes(b, r, interval)
	for i := 0; err == nil && len(times) > 0 && i < len(processes); i++ {
		err = m.addSeries(iw, cw, storage.SeriesRef(i), processes[i], times)
	}
	if err := errors.Join(err, cw.Close(), iw.Close()); err != nil {
		return err
	}
	return m.write(b.dir, r.Labels)
}

// scrapes are the times at which the replica scraped within the block.
func scrapes(b blockSpec, r Replica, interval int64) []int64 {
	var times []int64
	for t := b.from/interval*interval + r.Phase.Milliseconds(); t < b.to; t += interval {
		down := slices.ContainsFunc(r.Outages, func(o Outage) bool { return o.holds(t) })
		if t >= b.from && !down {
			times = append(times, t)
		}
	}
	return times
}

func addSymbols(iw *index.Writer, processes []Process) error {
	set := map[string]bool{}
	for _, p := range processes {
		p.Labels.Range(func(l labels.Label) { set[l.Name], set[l.Value] = true, true })
	}
	symbols := make([]string, 0, len(set))
	for s := range set {
		symbols = append(symbols, s)
	}
	slices.Sort(symbols)
	for _, s := range symbols {
		if err := iw.AddSymbol(s); err != nil {
			return err
		}
	}
	return nil
}

// meta is the part of meta.json that a sidecar writes.
type meta struct {
	ULID    ulid.ULID `json:"ulid"`
	MinTime int64     `json:"minTime"`
	MaxTime int64     `json:"maxTime"`
	Stats   struct {
		NumSamples      uint64 `json:"numSamples"`
		NumFloatSamples uint64 `json:"numFloatSamples"`
		NumSeries       uint64 `json:"numSeries"`
		NumChunks       uint64 `json:"numChunks"`
	} `json:"stats"`
	Compaction struct {
		Level   int         `json:"level"`
		Sources []ulid.ULID `json:"sources"`
	} `json:"compaction"`
	Version int    `json:"version"`
	Thanos  thanos `json:"thanos"`
}

type thanos struct {
	Version    int               `json:"version"`
	Labels     map[string]string `json:"labels"`
	Downsample struct {
		Resolution int64 `json:"resolution"`
	} `json:"downsample"`
	Source       string    `json:"source"`
	SegmentFiles []string  `json:"segment_files"`
	Files        []file    `json:"files"`
	IndexStats   struct{}  `json:"index_stats"`
	UploadTime   time.Time `json:"upload_time"`
}

type file struct {
	RelPath   string `json:"rel_path"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
}

func (m *meta) addSeries(iw *index.Writer, cw *chunks.Writer, ref storage.SeriesRef, p Process, times []int64) error {
	var metas []chunks.Meta
	for run := range slices.Chunk(times, samplesPerChunk) {
		chk := chunkenc.NewXORChunk()
		app, err := chk.Appender()
		if err != nil {
			return err
		}
		for _, t := range run {
			app.Append(0, t, p.At(t))
		}
		metas = append(metas, chunks.Meta{Chunk: chk, MinTime: run[0], MaxTime: run[len(run)-1]})
	}
	if err := cw.WriteChunks(metas...); err != nil {
		return err
	}
	m.Stats.NumSeries++
	m.Stats.NumChunks += uint64(len(metas))
	m.Stats.NumSamples += uint64(len(times))
	m.Stats.NumFloatSamples = m.Stats.NumSamples
	return iw.AddSeries(ref, p.Labels, metas...)
}

func (m *meta) write(dir string, external map[string]string) error {
	m.Compaction.Level = 1
	m.Compaction.Sources = []ulid.ULID{m.ULID}
	m.Thanos.Version = 1
	m.Thanos.Labels = external
	m.Thanos.Source = "sidecar"
	// Long ago, as far as the compactor's consistency delay is concerned.
	m.Thanos.UploadTime = time.UnixMilli(m.MaxTime).UTC()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		m.Thanos.Files = append(m.Thanos.Files, file{filepath.ToSlash(rel), info.Size()})
		if filepath.Base(filepath.Dir(path)) == "chunks" {
			m.Thanos.SegmentFiles = append(m.Thanos.SegmentFiles, filepath.Base(path))
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.Thanos.Files = append(m.Thanos.Files, file{RelPath: "meta.json"})
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "meta.json"), data, 0o644)
}
