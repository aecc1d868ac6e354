package fetcher

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// journal keeps on local disk what was read of a bucket, so that a restart reads
// nothing of it again. It is one file of one line for each version of an object:
//
//	CRC-32C of the rest, in 8 hexadecimal digits, a space, a record in JSON
//
// The last line of an object counts; a line that is not whole counts not. The file
// is a convenience and may be deleted at any time. The zero value keeps nothing.
// Only add may be called concurrently.
type journal struct {
	dir string

	mu    sync.Mutex // of add
	file  *os.File   // nil until the first add
	out   *bufio.Writer
	lines int
}

// record is one version of an object.
type record struct {
	Object   string `json:"object"`
	ETag     string `json:"etag"`
	Modified int64  `json:"modified"` // Unix nanoseconds
	Content  []byte `json:"content"`
}

func (r *record) version() version {
	return version{etag: r.ETag, size: int64(len(r.Content)), modified: r.Modified}
}

const journalFile = "journal"

func (j *journal) path() string { return filepath.Join(j.dir, journalFile) }

// load hands over the records that are whole, the older ones of an object first.
func (j *journal) load(yield func(*record)) error {
	if j.dir == "" {
		return nil
	}
	return j.scan(func(_ []byte, r *record) error { yield(r); return nil })
}

// scan reads the file line by line.
func (j *journal) scan(yield func(line []byte, r *record) error) error {
	f, err := os.Open(j.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	j.lines = 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxRecord)
	for lines.Scan() {
		j.lines++
		if r := parseLine(lines.Bytes()); r != nil {
			if err := yield(lines.Bytes(), r); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// maxRecord bounds a line: a meta.json lists a few thousand sources at most.
const maxRecord = 64 << 20

// sumSize is the length of a line's beginning.
const sumSize = 9

// parseLine gives nil for a line that is not whole.
func parseLine(line []byte) *record {
	if len(line) < sumSize || !bytes.Equal(line[:sumSize], sum(line[sumSize:])) {
		return nil
	}
	var r record
	if json.Unmarshal(line[sumSize:], &r) != nil {
		return nil
	}
	return &r
}

func sum(body []byte) []byte {
	return fmt.Appendf(nil, "%08x ", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

// add adds a record. It may reach the disk only with flush.
func (j *journal) add(r *record) error {
	if j.dir == "" {
		return nil
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the copy of %s: %w", r.Object, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		if err := os.MkdirAll(j.dir, 0o750); err != nil {
			return err
		}
		// Whatever a crash has left of the last line ends here.
		if j.file, err = os.OpenFile(j.path(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640); err != nil {
			return err
		}
		j.out = bufio.NewWriterSize(j.file, 64<<10)
		_ = j.out.WriteByte('\n') // its error stays until flush, as that of the next line
	}
	j.lines++
	if _, err = j.out.Write(append(append(sum(body), body...), '\n')); err != nil {
		return fmt.Errorf("write the copy of %s: %w", r.Object, err)
	}
	return nil
}

// flush hands what was added to the system and closes the file.
func (j *journal) flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := errors.Join(j.out.Flush(), j.file.Close())
	j.file, j.out = nil, nil
	return err
}

// compact writes the file anew without what is not live, once that is most of it;
// n is how many records are.
func (j *journal) compact(n int, live func(*record) bool) (err error) {
	if j.dir == "" || j.lines <= 2*n+100 {
		return nil
	}
	tmp, err := os.CreateTemp(j.dir, tmpPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // a no-op after the rename
	out, written := bufio.NewWriter(tmp), map[string]bool{}
	err = j.scan(func(line []byte, r *record) error {
		if !live(r) || written[r.Object] {
			return nil
		}
		written[r.Object] = true
		_, err := out.Write(line)
		return errors.Join(err, out.WriteByte('\n'))
	})
	if err := errors.Join(err, out.Flush(), tmp.Close()); err != nil {
		return err
	}
	j.lines = len(written)
	return os.Rename(tmp.Name(), j.path())
}

// tmpPrefix is that of files that a crash can leave behind.
const tmpPrefix = ".journal-"

// sweep removes them.
func (j *journal) sweep() error {
	if j.dir == "" {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(j.dir, tmpPrefix+"*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
