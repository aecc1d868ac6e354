// Package blockscan reads a local block entry by entry and says what is wrong
// with it, by file and offset.
//
// Floor 4: it reads files and decides nothing. Prometheus' own readers refuse an
// index as a whole when one of its tables is broken. Here the series are found by
// their position, one behind the other, each with its own checksum, so damage
// costs no more than what it hit: the sample data of a block can be read as long
// as its symbols can, or its postings, from which they are learnt. What cannot be
// read is handed out as a Loss of its series, what is merely wrong as a Finding.
//
// Nothing is trusted: whatever the files hold, nothing here panics.
package blockscan
