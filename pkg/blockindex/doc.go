// Package blockindex reads the index of one block wherever its bytes lie:
// symbols, label names and values, the postings of matchers, and series entries
// with the references of their chunks.
//
// It stands on floor 4. The format is that of Prometheus' TSDB index, versions 1
// to 3. Where postings are and what symbols mean stands in a page directory on
// local disk (docs/format/page-directory.md), which Directories makes from the
// index and keeps; postings and entries are read from the index's Source by
// position, all that are wanted together at once. Every checksum that is passed is
// verified. Whatever the bytes are, reading ends in an answer or in an error that
// is ErrCorrupt or the Source's, and never takes more memory than a small multiple
// of the index's size. At rest an Index is less than a kilobyte.
package blockindex
