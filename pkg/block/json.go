package block

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
)

// Versions of the JSON objects that this package reads and writes.
const (
	metaVersion   = 1 // of Prometheus' part
	thanosVersion = 1 // of the "thanos" part; absent means the same
	markVersion   = 1
)

// ErrCorrupt marks errors that stand for data which no repetition will make
// readable; ask with errors.Is. It says nothing about other blocks.
var ErrCorrupt = errors.New("the data are corrupt")

// ParseMeta reads a meta.json, a bucket's as well as that of a local
// Prometheus, which has no "thanos" part. Unknown keys are ignored, extensions
// are kept as they are. A meta that no reader should trust is an error: another
// version, no ULID, an empty or negative time range, an unknown resolution.
// Its errors carry ErrCorrupt.
func ParseMeta(data []byte) (*Meta, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // large integers in extensions must survive
	var m Meta
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("parse %s: %w: %w", MetaFile, ErrCorrupt, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("parse %s: %w: %w", MetaFile, ErrCorrupt, err)
	}
	return &m, nil
}

func (m *Meta) check() error {
	switch {
	case m.Version != metaVersion:
		return fmt.Errorf("version is %d, want %d", m.Version, metaVersion)
	case m.Thanos.Version != 0 && m.Thanos.Version != thanosVersion:
		return fmt.Errorf("thanos.version is %d, want %d", m.Thanos.Version, thanosVersion)
	case m.ULID == ulid.ULID{}:
		return errors.New("ulid is missing")
	case m.MinTime >= m.MaxTime:
		return fmt.Errorf("time range [%d, %d) is empty", m.MinTime, m.MaxTime)
	case !m.Resolution().Known():
		return fmt.Errorf("thanos.downsample.resolution is %d, want 0, %d or %d", m.Resolution(), FiveMin, OneHour)
	}
	return nil
}

// Encode writes the meta as it stands in a bucket: JSON indented by tabs, with
// a newline at the end. The only errors are values that JSON cannot say, in
// Extensions or UploadTime.
func (m *Meta) Encode() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetIndent("", "\t")
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encode %s of block %s: %w", MetaFile, m.ULID, err)
	}
	return buf.Bytes(), nil
}

// The three marks differ in the name of one key only, so each has a shape of its own.
type (
	markHead struct {
		ID      ulid.ULID `json:"id"`
		Version int       `json:"version"`
		Details string    `json:"details,omitempty"`
	}
	deletionJSON struct {
		markHead
		Time int64 `json:"deletion_time"`
	}
	noCompactJSON struct {
		markHead
		Time   int64  `json:"no_compact_time"`
		Reason string `json:"reason"`
	}
	noDownsampleJSON struct {
		markHead
		Time   int64  `json:"no_downsample_time"`
		Reason string `json:"reason"`
	}
)

// EncodeMark writes a mark as it stands in a bucket: one line of JSON with the keys of its kind.
func EncodeMark(m Mark) ([]byte, error) {
	head := markHead{ID: m.ID, Version: markVersion, Details: m.Details}
	var v any
	switch m.Kind {
	case DeletionMark:
		v = deletionJSON{head, m.Time}
	case NoCompactMark:
		v = noCompactJSON{head, m.Time, m.Reason}
	case NoDownsampleMark:
		v = noDownsampleJSON{head, m.Time, m.Reason}
	default:
		return nil, fmt.Errorf("encode mark of block %s: unknown kind %q", m.ID, m.Kind)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s of block %s: %w", m.Kind, m.ID, err)
	}
	return data, nil
}

// ParseMark reads a mark of the given kind. Unknown keys are ignored; another version is an error.
// Its errors carry ErrCorrupt.
func ParseMark(kind MarkKind, data []byte) (*Mark, error) {
	var head markHead
	m := Mark{Kind: kind}
	var err error
	switch kind {
	case DeletionMark:
		var v deletionJSON
		err = json.Unmarshal(data, &v)
		head, m.Time = v.markHead, v.Time
	case NoCompactMark:
		var v noCompactJSON
		err = json.Unmarshal(data, &v)
		head, m.Time, m.Reason = v.markHead, v.Time, v.Reason
	case NoDownsampleMark:
		var v noDownsampleJSON
		err = json.Unmarshal(data, &v)
		head, m.Time, m.Reason = v.markHead, v.Time, v.Reason
	default:
		err = errors.New("unknown kind")
	}
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w: %w", kind, ErrCorrupt, err)
	}
	if head.Version != markVersion {
		return nil, fmt.Errorf("parse %s: %w: version is %d, want %d", kind, ErrCorrupt, head.Version, markVersion)
	}
	m.ID, m.Details = head.ID, head.Details
	return &m, nil
}

// At is the time of the mark.
func (m *Mark) At() time.Time { return time.Unix(m.Time, 0) }
