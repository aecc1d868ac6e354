// Package pagecache reads immutable objects of a bucket by range, and keeps what
// it has read in memory and on local disk, under byte limits.
//
// It stands on floor 4 and knows nothing of blocks. An object's name, size and
// version stand for its content. A call takes all ranges that are wanted; what is
// missing is joined by the price of a request, which is learned from this bucket,
// read side by side, repeated after errors that pass and hedged when it is late.
// What several readers want at once is read once; of a long answer of the bucket one
// reader takes many steps. A page holds only the bytes that
// were wanted of it. A scan does not flush what is used again. Bytes from disk are
// verified, and a disk that fails costs no read. Answers that are shorter than the
// object's size promises are errors and are not kept.
package pagecache
