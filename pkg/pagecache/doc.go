// Package pagecache reads immutable objects of a bucket by range and keeps what
// it has read in memory, as small pages under a byte limit.
//
// It stands on floor 4 and knows nothing of blocks. An object's name stands for
// its content: the same name never means other bytes. Neighbouring pages that
// are missing cost one request; a page that several readers want at once is read
// once. Answers that are shorter than the object's size promises are errors and
// are not kept.
package pagecache
