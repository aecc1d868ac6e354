// Package blockindex reads the index of one block wherever its bytes lie:
// symbols, label names and values, the postings of matchers, and series entries
// with the references of their chunks.
//
// It stands on floor 4. The format is that of Prometheus' TSDB index, versions 1
// to 3. At rest an Index holds every 32nd position of the symbol table and of
// the postings offset table; all else is read from its Source when asked for.
// Every checksum that is passed is verified. Whatever the bytes are, reading
// ends in an answer or in an error that is ErrCorrupt or the Source's, and never
// takes more memory than a small multiple of the index's size.
package blockindex
