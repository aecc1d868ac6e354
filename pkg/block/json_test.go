package block

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

func id(s string) ulid.ULID { return ulid.MustParseStrict(s) }

// golden is what testdata/meta.golden.json says, key by key as Thanos writes it.
func golden() *Meta {
	return &Meta{
		ULID: id("01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T"), MinTime: 1727740800000, MaxTime: 1727913600000, Version: 1,
		Stats: Stats{NumSamples: 120, NumFloatSamples: 100, NumHistogramSamples: 20, NumSeries: 2, NumChunks: 4},
		Compaction: Compaction{
			Level:   3,
			Sources: []ulid.ULID{id("01J8XPPZ6EZJ7QYJ4ZQJ0V4R5A"), id("01J8XPPZ6EZJ7QYJ4ZQJ0V4R5B")},
			Parents: []Parent{{ULID: id("01J8XPPZ6EZJ7QYJ4ZQJ0V4R5C"), MinTime: 1727740800000, MaxTime: 1727913600000}},
		},
		Thanos: Thanos{
			Version:      1,
			Labels:       map[string]string{"cluster": "eu", "prometheus_replica": "a"},
			Downsample:   Downsample{Resolution: FiveMin},
			Source:       SourceCompactor,
			SegmentFiles: []string{"000001"},
			Files: []File{
				{RelPath: "chunks/000001", SizeBytes: 4096, Hash: &FileHash{Func: "SHA256", Value: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}},
				{RelPath: "index", SizeBytes: 1024},
				{RelPath: "meta.json"},
			},
			IndexStats: IndexStats{SeriesMaxSize: 200},
			Extensions: map[string]any{"parquet_migrated": true, "serial": json.Number("9007199254740993")},
			UploadTime: time.Date(2024, 10, 3, 0, 5, 0, 0, time.UTC),
		},
	}
}

func TestMetaIsWrittenAndReadAsInTheGoldenFile(t *testing.T) {
	want, err := os.ReadFile("testdata/meta.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := golden().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("encoded meta:\n got %s\nwant %s", got, want)
	}
	m, err := ParseMeta(want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, golden()) {
		t.Errorf("parsed meta:\n got %+v\nwant %+v", m, golden())
	}
}

func TestMetaOfALocalPrometheusIsARawBlockWithoutLabels(t *testing.T) {
	data, err := os.ReadFile("testdata/prometheus.json")
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMeta(data)
	if err != nil {
		t.Fatal(err)
	}
	if m.Resolution() != Raw || !m.Labels().IsEmpty() || !m.Thanos.UploadTime.IsZero() {
		t.Errorf("got resolution %s, labels %s, upload time %s; want raw, none, zero", m.Resolution(), m.Labels(), m.Thanos.UploadTime)
	}
	if got, want := m.Arrived(), ulid.Time(m.ULID.Time()); !got.Equal(want) {
		t.Errorf("arrived at %s, want the ULID's time %s", got, want)
	}
}

func TestMetaThatNoReaderShouldTrustIsAnError(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Meta)
		want   string // a part of the error; empty means none
	}{
		"untouched":                   {func(*Meta) {}, ""},
		"thanos version absent":       {func(m *Meta) { m.Thanos.Version = 0 }, ""},
		"Prometheus' version 2":       {func(m *Meta) { m.Version = 2 }, "version is 2"},
		"thanos version 2":            {func(m *Meta) { m.Thanos.Version = 2 }, "thanos.version is 2"},
		"no ULID":                     {func(m *Meta) { m.ULID = ulid.ULID{} }, "ulid is missing"},
		"a time range of no length":   {func(m *Meta) { m.MaxTime = m.MinTime }, "is empty"},
		"a time range that runs back": {func(m *Meta) { m.MaxTime = m.MinTime - 1 }, "is empty"},
		"an unknown resolution":       {func(m *Meta) { m.Thanos.Downsample.Resolution = 60000 }, "resolution"},
	} {
		t.Run(name, func(t *testing.T) {
			m := golden()
			tc.change(m)
			data, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			_, err = ParseMeta(data)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got error %v, want one that says %q", err, tc.want)
			}
		})
	}
	if _, err := ParseMeta([]byte(`{"ulid":`)); err == nil {
		t.Error("a truncated meta.json was read without an error")
	}
}

func TestUnknownKeysAreTolerated(t *testing.T) {
	data, err := os.ReadFile("testdata/meta.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(data), `"version": 1,`, `"version": 1, "of_a_later_day": {"a": [1]},`, 2)
	m, err := ParseMeta([]byte(with))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, golden()) {
		t.Errorf("parsed meta:\n got %+v\nwant %+v", m, golden())
	}
}

func TestMarksHaveTheKeysOfTheirKind(t *testing.T) {
	b := id("01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T")
	for name, tc := range map[string]struct {
		mark Mark
		want string
	}{
		"deletion": {
			Mark{Kind: DeletionMark, ID: b, Details: "compacted", Time: 1727740800},
			`{"id":"01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T","version":1,"details":"compacted","deletion_time":1727740800}`,
		},
		"no compaction": {
			Mark{Kind: NoCompactMark, ID: b, Details: "bad", Reason: "manual", Time: 5},
			`{"id":"01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T","version":1,"details":"bad","no_compact_time":5,"reason":"manual"}`,
		},
		"no downsampling, without details": {
			Mark{Kind: NoDownsampleMark, ID: b, Reason: "manual", Time: 5},
			`{"id":"01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T","version":1,"no_downsample_time":5,"reason":"manual"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := EncodeMark(tc.mark)
			if err != nil {
				t.Fatal(err)
			}
			if string(data) != tc.want {
				t.Errorf("encoded:\n got %s\nwant %s", data, tc.want)
			}
			m, err := ParseMark(tc.mark.Kind, data)
			if err != nil {
				t.Fatal(err)
			}
			if *m != tc.mark {
				t.Errorf("parsed: got %+v, want %+v", *m, tc.mark)
			}
		})
	}
	for name, tc := range map[string]struct {
		kind MarkKind
		data string
	}{
		"another version":  {DeletionMark, `{"id":"01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T","version":2}`},
		"not JSON":         {NoCompactMark, `{"id`},
		"an unknown kind":  {"other-mark.json", `{"version":1}`},
		"a shortened ULID": {NoDownsampleMark, `{"id":"01J8","version":1}`},
	} {
		if m, err := ParseMark(tc.kind, []byte(tc.data)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, m)
		}
	}
	if _, err := EncodeMark(Mark{Kind: "other-mark.json", ID: b}); err == nil {
		t.Error("a mark of unknown kind was encoded without an error")
	}
}

// FuzzMetaJSON: whatever a bucket holds, reading it does not panic, and what was
// accepted reads back the same after it is written.
func FuzzMetaJSON(f *testing.F) {
	for _, name := range []string{"testdata/meta.golden.json", "testdata/prometheus.json"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMeta(data)
		if err != nil {
			return
		}
		first, err := m.Encode()
		if err != nil {
			t.Fatalf("a parsed meta cannot be written: %v", err)
		}
		again, err := ParseMeta(first)
		if err != nil {
			t.Fatalf("a written meta cannot be read: %v\n%s", err, first)
		}
		second, err := again.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if string(first) != string(second) {
			t.Errorf("written twice:\nfirst  %s\nsecond %s", first, second)
		}
		_ = m.StreamLabels([]string{"prometheus_replica"})
	})
}
